// SPDX-License-Identifier: MIT
/** Generated messages of a client: every command of the protocol, its fields at and around their limits. */
import { Command, HEADER_SIZE, HeaderFlag, commandRow } from '../../lib/protocol';
import { FD_KINDS, type FdKind } from './descriptors';
import type { Random } from './random';

/** Writes little-endian fields one after the other. */
export class Fields {
  readonly #bytes = new Uint8Array(3 << 20);
  readonly #view = new DataView(this.#bytes.buffer);
  #at = 0;

  u8(...values: number[]): this {
    for (const value of values) this.#bytes[this.#at++] = value;
    return this;
  }

  u16(...values: number[]): this {
    for (const value of values) {
      this.#view.setUint16(this.#at, value, true);
      this.#at += 2;
    }
    return this;
  }

  u32(...values: number[]): this {
    for (const value of values) {
      this.#view.setUint32(this.#at, value, true);
      this.#at += 4;
    }
    return this;
  }

  u64(...values: (number | bigint)[]): this {
    for (const value of values) {
      this.#view.setBigUint64(this.#at, BigInt.asUintN(64, BigInt(value)), true);
      this.#at += 8;
    }
    return this;
  }

  raw(bytes: Uint8Array): this {
    this.#bytes.set(bytes, this.#at);
    this.#at += bytes.length;
    return this;
  }

  /** What was written since the last time. */
  take(): Uint8Array {
    const taken = this.#bytes.slice(0, this.#at);
    this.#at = 0;
    return taken;
  }
}

const fields = new Fields();
const PAGE = 4096;
/** Regions of the served device, and indexes that it does not have. */
const REGIONS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
/** Pages of I/O addresses that maps, unmaps and the device's accesses meet in. */
const SLOTS = 32;

function regionOf(random: Random): number {
  return random.once(20) ? random.odd32() : random.pick(REGIONS);
}

export function iovaOf(random: Random): bigint {
  if (random.once(12)) return random.odd64();
  return BigInt(random.below(SLOTS) * PAGE);
}

function sizeOf(random: Random): bigint {
  if (random.once(12)) return random.odd64();
  return BigInt(PAGE * random.pick([1, 1, 1, 2, 4, 16]));
}

function offsetOf(random: Random): bigint {
  if (random.once(20)) return random.odd64();
  return BigInt(random.once(2) ? random.below(64) * 4 : random.near(0, 0x800, 0x1000, 0x4000, 0xff8));
}

function countOf(random: Random): number {
  if (random.once(50)) return random.near(PAGE, 65536, 1 << 20);
  return random.once(3) ? random.pick([1, 2, 4, 8]) : random.below(64);
}

const access = (offset: bigint, region: number, count: number): Fields =>
  fields.u64(offset).u32(region, count);

/** What the device is asked to do with the client's memory, by a write to region 2: see the device model. */
function order(random: Random): Uint8Array {
  const length = random.once(20) ? random.near(PAGE, 65536, 1 << 20) : random.below(512);
  return fields
    .u8(random.below(8), random.below(4))
    .u16(random.near(0, 16, 2048))
    .u32(length)
    .u64(iovaOf(random))
    .take();
}

function smallWrites(random: Random): Uint8Array {
  const count = random.below(5);
  fields.u64(random.once(10) ? random.odd64() : BigInt(count));
  for (let i = 0; i < count; i++) {
    fields.u64(offsetOf(random)).u32(regionOf(random), random.once(6) ? random.odd32() : random.below(9));
    fields.raw(random.bytes(8));
  }
  return fields.take();
}

function feature(random: Random): Uint8Array {
  const index = random.once(10) ? random.odd32() & 0xffff : random.pick([1, 2, 2, 2, 6, 7, 8]);
  const operation = random.pick([1, 2, 2, 4, 5, 6, 7, 0]) << 16;
  const room = random.once(4) ? random.odd32() : random.near(8, 16, 32, 4096, 1 << 20);
  fields.u32(room, index | operation);
  if (index === 2) return fields.u32(random.near(0, 7), 0).take();
  if (index === 6) {
    const ranges = random.below(4);
    const page = random.once(6) ? random.odd64() : 4096n;
    fields.u64(page).u32(random.once(8) ? random.odd32() : ranges, 0);
    for (let i = 0; i < ranges; i++) fields.u64(iovaOf(random), sizeOf(random));
  }
  if (index === 8) fields.u64(iovaOf(random), sizeOf(random), random.once(6) ? random.odd64() : 4096n);
  return fields.take();
}

function setIrqs(random: Random): Uint8Array {
  const data = random.once(12) ? random.below(8) : random.pick([1, 2, 4, 4]);
  const action = random.once(12) ? random.below(8) << 3 : random.pick([8, 16, 32, 32]);
  const count = random.once(12) ? random.odd32() : random.below(5);
  const start = random.once(12) ? random.odd32() : random.below(4);
  fields.u32(20, data | action, random.near(0, 2, 4), start, count);
  if (data === 2) fields.raw(random.bytes(count < 5000 ? count : 3));
  return fields.take();
}

function versionJson(random: Random): string {
  const value = (): unknown =>
    random.pick([random.odd32(), -1, 1.5, null, true, 'x', [], {}, 2 ** 53, random.near(0, 16, 65535)]);
  const capabilities: Record<string, unknown> = {
    max_msg_fds: random.once(4) ? value() : random.near(0, 1, 8, 16),
    max_data_xfer_size: random.once(6) ? value() : random.near(4096, 1 << 20),
    max_dma_maps: random.once(6) ? value() : 65535,
    pgsizes: random.once(6) ? value() : 4096,
    twin_socket: random.once(6) ? value() : { supported: random.once(3) },
    write_multiple: random.once(6) ? value() : random.once(2),
  };
  for (const key of Object.keys(capabilities)) if (random.once(5)) Reflect.deleteProperty(capabilities, key);
  if (random.once(8)) capabilities[String(random.u32())] = value();
  return JSON.stringify(random.once(20) ? value() : { capabilities });
}

/** A VERSION payload, with JSON that may be cut, spoilt, or of wrong types. */
export function versionPayload(random: Random): Uint8Array {
  let json = Buffer.from(`${versionJson(random)}\0`);
  if (random.once(8)) json = json.subarray(0, random.below(json.length));
  if (random.once(10) && json.length > 0) json[random.below(json.length)] = random.u32();
  if (random.once(40)) json = Buffer.alloc(random.near(16384), ' ');
  return fields
    .u16(random.once(12) ? random.u32() : 0, random.once(8) ? random.u32() : random.below(2))
    .raw(json)
    .take();
}

/** An honest VERSION 0.1. */
export function honestVersion(random: Random): Uint8Array {
  const capabilities = {
    max_msg_fds: random.pick([1, 8, 16]),
    max_data_xfer_size: random.pick([4096, 1 << 20]),
    pgsizes: 4096,
    twin_socket: { supported: random.once(3) },
    write_multiple: random.once(2),
  };
  return fields
    .u16(0, 1)
    .raw(Buffer.from(`${JSON.stringify({ capabilities })}\0`))
    .take();
}

/** Payloads of requests by command; most of them are right. */
const PAYLOADS: Readonly<Record<number, (random: Random) => Uint8Array>> = {
  [Command.version]: versionPayload,
  [Command.dmaMap]: (random) =>
    fields
      .u32(32, random.once(12) ? random.odd32() : random.pick([3, 3, 1, 2, 0]))
      .u64(random.once(8) ? random.odd64() : random.below(4) * PAGE, iovaOf(random), sizeOf(random))
      .take(),
  [Command.dmaUnmap]: (random) => {
    const flags = random.once(12) ? random.odd32() : random.pick([0, 0, 0, 1, 2]);
    fields.u32(random.once(8) ? random.odd32() : 24 + 16 + 64, flags);
    if (flags === 2) fields.u64(random.once(6) ? random.odd64() : 0, 0);
    else fields.u64(iovaOf(random), sizeOf(random));
    if (flags === 1) fields.u64(random.once(4) ? random.odd64() : 4096, random.once(4) ? random.odd64() : 8);
    return fields.take();
  },
  [Command.deviceGetInfo]: (random) => fields.u32(random.once(4) ? random.odd32() : 16, 0, 0, 0).take(),
  [Command.deviceGetRegionInfo]: (random) =>
    fields
      .u32(random.once(2) ? random.near(0, 32, 64, 4096) : random.odd32(), 0, regionOf(random), 0)
      .u64(0, 0)
      .take(),
  [Command.deviceGetRegionIoFds]: (random) =>
    fields.u32(random.once(2) ? 4096 : random.odd32(), random.once(8) ? 1 : 0, regionOf(random), 0).take(),
  [Command.deviceGetIrqInfo]: (random) =>
    fields.u32(random.once(4) ? random.odd32() : 16, 0, random.near(0, 2, 4), 0).take(),
  [Command.deviceSetIrqs]: setIrqs,
  [Command.regionRead]: (random) => access(offsetOf(random), regionOf(random), countOf(random)).take(),
  [Command.regionWrite]: (random) => {
    if (random.once(3)) {
      const data = order(random);
      return access(0n, 2, data.length).raw(data).take();
    }
    const count = countOf(random);
    return access(offsetOf(random), regionOf(random), count).raw(random.bytes(count)).take();
  },
  [Command.dmaRead]: (random) => fields.u64(iovaOf(random), countOf(random)).take(),
  [Command.dmaWrite]: (random) => {
    const count = random.below(64);
    return fields.u64(iovaOf(random), count).raw(random.bytes(count)).take();
  },
  [Command.deviceReset]: () => fields.take(),
  [Command.regionWriteMulti]: smallWrites,
  [Command.deviceFeature]: feature,
  [Command.migDataRead]: (random) => {
    const size = countOf(random) * 8;
    return fields.u32(random.once(6) ? random.odd32() : 8 + size, size).take();
  },
  [Command.migDataWrite]: (random) => {
    const size = countOf(random);
    return fields
      .u32(8 + size, size)
      .raw(random.bytes(size))
      .take();
  },
};

/** Commands by how often they are sent. */
const WEIGHTED: readonly number[] = [
  ...Object.values(Command),
  ...[Command.regionRead, Command.regionRead, Command.regionWrite, Command.regionWrite, Command.regionWrite],
  ...[Command.dmaMap, Command.dmaMap, Command.dmaMap, Command.dmaUnmap, Command.deviceSetIrqs],
  ...[Command.deviceFeature, Command.migDataRead, Command.migDataWrite],
];

/** Spoils a payload: a field gets another value, or bytes are missing or too many. */
function spoil(random: Random, payload: Uint8Array): Uint8Array {
  switch (random.below(4)) {
    case 0:
      return payload.slice(0, random.below(payload.length + 1));
    case 1:
      return fields
        .raw(payload)
        .raw(random.bytes(random.below(40)))
        .take();
    case 2: {
      if (payload.length < 4) return payload;
      const at = random.below(payload.length >>> 2) * 4;
      new DataView(payload.buffer).setUint32(at, random.odd32(), true);
      return payload;
    }
    default: {
      if (payload.length < 8) return payload;
      const at = random.below(payload.length >>> 3) * 8;
      new DataView(payload.buffer).setBigUint64(at, random.odd64(), true);
      return payload;
    }
  }
}

/** A message with its header. */
export function frame(
  command: number,
  payload: Uint8Array,
  id: number,
  { flags = 0, errno = 0, size = HEADER_SIZE + payload.length } = {},
): Uint8Array {
  return fields.u16(id, command).u32(size, flags, errno).raw(payload).take();
}

export interface GeneratedRequest {
  readonly bytes: Uint8Array;
  readonly fds?: readonly FdKind[];
}

/** Descriptors for a command: as many as it takes and of the right kind, or not. */
function fdsFor(random: Random, command: number, payload: Uint8Array): FdKind[] {
  if (random.once(40)) return Array.from({ length: random.near(1, 16, 64) }, () => random.pick(FD_KINDS));
  if (command === Command.dmaMap && !random.once(3))
    return [random.once(3) ? random.pick(FD_KINDS) : random.pick(['sealed', 'memory', 'shrinking'])];
  if (command === Command.deviceSetIrqs && payload.length >= 20) {
    const view = new DataView(payload.buffer);
    const count = Math.min(view.getUint32(16, true), 20);
    if ((view.getUint32(4, true) & 4) !== 0 && !random.once(4))
      return Array.from({ length: random.once(10) ? random.below(17) : count }, () =>
        random.once(10) ? random.pick(FD_KINDS) : 'eventfd',
      );
  }
  return random.once(60) && commandRow(command).requestFds === 0 ? [random.pick(FD_KINDS)] : [];
}

/** A request of a client, most often one that can be served. */
export function generateRequest(random: Random, id: number): GeneratedRequest {
  const command = random.once(60) ? random.odd32() & 0xffff : random.pick(WEIGHTED);
  let payload = PAYLOADS[command]?.(random) ?? random.bytes(random.below(64));
  const fds = fdsFor(random, command, payload);
  if (random.once(8)) payload = spoil(random, payload);
  let flags = random.once(12) ? HeaderFlag.noReply : 0;
  let size = HEADER_SIZE + payload.length;
  // Rare, since nothing can be read after most of these.
  if (random.once(400)) flags = random.odd32();
  if (random.once(600)) size = random.once(2) ? random.odd32() : random.near(0, 16, size);
  const bytes = frame(command, payload, id, { flags, errno: random.once(30) ? random.odd32() : 0, size });
  return fds.length > 0 ? { bytes, fds } : { bytes };
}

/** DEVICE_FEATURE that sets the migration state. */
function migrationState(state: number): Uint8Array {
  return fields.u32(16, 2 | (2 << 16), state, 0).take();
}

/** Messages that only together lead somewhere: a state is saved or loaded, the device works with memory that goes by message. */
export function generateSequence(random: Random, firstId: number): GeneratedRequest[] {
  let id = firstId;
  const messages: GeneratedRequest[] = [];
  const add = (command: number, payload: Uint8Array, fds?: readonly FdKind[]): void => {
    const bytes = frame(command, random.once(40) ? spoil(random, payload) : payload, id++ & 0xffff);
    messages.push(fds === undefined ? { bytes } : { bytes, fds });
  };
  const times = random.near(1, 4, 12);
  switch (random.below(4)) {
    case 0:
      add(Command.deviceFeature, migrationState(random.pick([3, 6])));
      for (let i = 0; i < times; i++)
        add(Command.migDataRead, fields.u32(8 + 1024, random.near(1, 100, 1024)).take());
      add(Command.deviceFeature, migrationState(random.pick([2, 2, 3, 1])));
      break;
    case 1:
      add(Command.deviceFeature, migrationState(1));
      add(Command.deviceFeature, migrationState(4));
      for (let i = 0; i < times; i++) {
        const size = random.below(600);
        add(
          Command.migDataWrite,
          fields
            .u32(8 + size, size)
            .raw(random.bytes(size))
            .take(),
        );
      }
      add(Command.deviceFeature, migrationState(random.pick([1, 2])));
      break;
    case 2: {
      const iova = random.below(SLOTS) * PAGE;
      add(Command.dmaUnmap, fields.u32(24, 2).u64(0, 0).take());
      add(
        Command.dmaMap,
        fields
          .u32(32, 3)
          .u64(0, iova, 64 * PAGE)
          .take(),
      );
      for (let i = 0; i < times; i++) {
        const length = random.once(30) ? random.near(65536, 64 * PAGE) : random.below(2 * PAGE);
        const data = fields.u8(random.below(5), random.below(2)).u16(0).u32(length).u64(iova).take();
        add(Command.regionWrite, access(0n, 2, 16).raw(data).take());
      }
      break;
    }
    default: {
      const count = random.near(1, 4);
      const eventfds = Array.from({ length: count }, (): FdKind => 'eventfd');
      for (const action of [32, 16, 8])
        add(Command.deviceSetIrqs, fields.u32(20, 4 | action, 2, 0, count).take(), eventfds);
      for (let i = 0; i < times; i++)
        add(Command.deviceSetIrqs, fields.u32(20, 1 | random.pick([8, 16, 32]), 2, 0, count).take());
      add(Command.deviceSetIrqs, fields.u32(20, 1 | 32, 2, 0, 0).take());
    }
  }
  return messages;
}
