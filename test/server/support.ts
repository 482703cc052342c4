// SPDX-License-Identifier: MIT
import { Mapping, Socket, closeFd, createSharedMemory } from '../../lib/native';
import { PciRegion, type ConfigEffect } from '../../lib/pci';
import {
  type Client,
  type ClientRange,
  type PciDeviceModel,
  type ServedFunction,
  type ServedRegion,
} from '../../lib/server';
import { hex, join, u16, u32, u64 } from '../support/bytes';
import { openFds, warmUp } from '../support/resources';
import { until } from '../support/wait';

export { hex, join, openFds, u16, u32, u64, until, warmUp };
export { turns } from '../support/wait';
export { gate } from '../support/gate';

/** `VFIO_USER_*` of libvfio-user's include/vfio-user.h. */
const F_REPLY = 1;
export const F_NO_REPLY = 0x10;
const F_ERROR = 0x20;

/** A message as `struct vfio_user_header` has it: u16 id, u16 command, u32 size, u32 flags, u32 errno. */
export function message(
  command: number,
  payload: Uint8Array = new Uint8Array(0),
  id = 1,
  flags = 0,
): Uint8Array {
  return join(u16(id, command), u32(16 + payload.length, flags, 0), payload);
}

/** `struct vfio_user_region_access`: u64 offset, u32 region, u32 count. */
export const access = (region: number, offset: number | bigint, count: number): Uint8Array =>
  join(u64(offset), u32(region, count));
/** `struct vfio_user_dma_map`: u32 argsz, u32 flags, u64 offset, u64 address, u64 size. */
export const dmaMap = (address: number | bigint, size: number | bigint, flags = 3, offset = 0): Uint8Array =>
  join(u32(32, flags), u64(offset, address, size));
/** `struct vfio_user_dma_unmap`: u32 argsz, u32 flags, u64 address, u64 size. */
export const dmaUnmap = (address: number | bigint, size: number | bigint, flags = 0): Uint8Array =>
  join(u32(24, flags), u64(address, size));
/** `struct vfio_irq_set`: u32 argsz, flags, index, start, count. */
export const setIrqs = (flags: number, index: number, start: number, count: number): Uint8Array =>
  u32(20, flags, index, start, count);

export interface RawReply {
  id: number;
  command: number;
  flags: number;
  errno: number;
  payload: Uint8Array;
  fds: number[];
}

/** A VERSION 0.1 as a client sends it, `struct vfio_user_version` and JSON. */
export const VERSION = message(
  1,
  join(
    u16(0, 1),
    Buffer.from('{"capabilities":{"max_msg_fds":16,"max_data_xfer_size":1048576,"pgsizes":4096}}\0'),
  ),
);

/** A peer that sends bytes as told, and takes replies apart by itself. */
export class RawClient {
  readonly socket: Socket;

  constructor(socket: Socket) {
    this.socket = socket;
  }

  /** Connects, and negotiates unless told otherwise. */
  static async connect(path: string, negotiate = true): Promise<RawClient> {
    const client = new RawClient(Socket.connect(path));
    if (negotiate) expect((await client.ask(VERSION)).errno).toBe(0);
    return client;
  }

  send(bytes: Uint8Array, fds: number[] = []): void {
    expect(this.socket.send(bytes, bytes.length, null, 0, fds)).toBe(bytes.length);
  }

  async ask(bytes: Uint8Array, fds: number[] = []): Promise<RawReply> {
    this.send(bytes, fds);
    return this.receive();
  }

  /** Sends a command, and tells the errno of its reply. */
  async errnoOf(command: number, payload?: Uint8Array, fds: number[] = []): Promise<number> {
    const reply = await this.ask(message(command, payload, 77), fds);
    for (const fd of reply.fds) closeFd(fd);
    expect(reply).toMatchObject({ id: 77, command });
    expect(reply.flags).toBe(reply.errno === 0 ? F_REPLY : F_REPLY | F_ERROR);
    if (reply.errno !== 0) expect(reply.payload.length).toBe(0);
    return reply.errno;
  }

  async receive(): Promise<RawReply> {
    const head = await this.#bytes(16);
    const view = new DataView(head.buffer);
    const payload = await this.#bytes(view.getUint32(4, true) - 16);
    return {
      id: view.getUint16(0, true),
      command: view.getUint16(2, true),
      flags: view.getUint32(8, true),
      errno: view.getUint32(12, true),
      payload,
      fds: this.socket.takeFds(),
    };
  }

  /** Waits until the server has closed the connection. */
  async end(): Promise<void> {
    const buffer = new Uint8Array(4096);
    const ended = (): boolean => {
      try {
        return this.socket.receive(buffer, 0, buffer.length) < 0;
      } catch {
        return true; // ECONNRESET: it closed with unread bytes.
      }
    };
    await until(ended, 'the server closes the connection');
  }

  close(): void {
    this.socket.close();
  }

  async #bytes(length: number): Promise<Uint8Array> {
    const buffer = new Uint8Array(length);
    let have = 0;
    const complete = (): boolean => {
      const count = have < length ? this.socket.receive(buffer, have, length - have) : 0;
      if (count < 0) throw new Error('the server closed the connection');
      have += count;
      return have === length;
    };
    await until(complete, 'the server answers');
    return buffer;
  }
}

export const BAR_SIZE = 0x4000;
const AREA = { offset: 0x1000, size: 0x2000 };

/** A device with registers that remember, mapped areas, and a log of what the server called. */
export class TestModel implements PciDeviceModel {
  readonly name = 'test device';
  readonly log: string[] = [];
  readonly bar0: Uint8Array;
  readonly regions = new Map<number, ServedRegion>();
  readonly irqs = new Map<number, number>();
  pci: ServedFunction;
  client: Client | null = null;
  activity?: () => number;
  ranges: ClientRange[] = [];
  /** Awaited by `unmapping` and `reset`. */
  gate: Promise<void> | undefined;
  /** Thrown by the next access to BAR 1, reset, or unmapping. */
  failure: Error | undefined;
  readonly #fd: number;
  readonly #mapping: Mapping;

  constructor() {
    this.#fd = createSharedMemory(0x1000 + BAR_SIZE);
    this.#mapping = Mapping.map(this.#fd, 0x1000, BAR_SIZE);
    this.bar0 = new Uint8Array(this.#mapping.buffer);
    const msix = { bar: 4, offset: 0 };
    this.pci = {
      vendorId: 0x1234,
      deviceId: 0x5678,
      classCode: 0xff0000,
      interruptPin: 1,
      bars: {
        4: {
          kind: 'memory32',
          size: 0x2000,
          shared: { fd: this.#fd, offset: 0, areas: [{ offset: 0, size: 0x2000 }] },
          read: () => undefined,
          write: () => undefined,
        },
      },
      capabilities: [{ kind: 'msix', vectors: 4, table: msix, pba: { ...msix, offset: 0x1000 } }],
    };
    this.regions.set(PciRegion.bar0, {
      size: BAR_SIZE,
      shared: { fd: this.#fd, offset: 0x1000, areas: [AREA] },
      read: (offset, data) => {
        data.set(this.bar0.subarray(offset, offset + data.length));
      },
      write: (offset, data, posted) => {
        this.bar0.set(data, offset);
        if (posted) this.log.push(`posted ${offset}`);
      },
    });
    this.regions.set(PciRegion.bar1, {
      size: 64,
      read: () => {
        this.#fail();
      },
      write: async (offset) => {
        await Promise.resolve();
        if (offset >= 8) this.#fail();
      },
    });
    this.regions.set(PciRegion.bar2, {
      size: 64,
      read: (_offset, data) => void data.fill(0x22),
    });
    this.regions.set(PciRegion.bar3, { size: 64, write: () => undefined });
  }

  async reset(): Promise<void> {
    this.log.push('reset');
    await this.gate;
    this.#fail();
  }

  configured(effect: ConfigEffect): void | Promise<void> {
    this.log.push(effect.kind);
  }

  attach(client: Client): void {
    this.client = client;
    this.log.push('attach');
  }

  mapped(range: ClientRange): void {
    this.ranges.push(range);
    this.log.push(`mapped 0x${range.iova.toString(16)}`);
  }

  async unmapping(range: ClientRange): Promise<void> {
    this.log.push(`unmapping 0x${range.iova.toString(16)}`);
    await this.gate;
    this.#fail();
    this.ranges = this.ranges.filter((other) => other !== range);
  }

  detach(): void {
    this.log.push('detach');
    this.client = null;
    this.ranges = [];
  }

  close(): void {
    this.#mapping.close();
    closeFd(this.#fd);
  }

  #fail(): void {
    const { failure } = this;
    this.failure = undefined;
    if (failure !== undefined) throw failure;
  }
}
