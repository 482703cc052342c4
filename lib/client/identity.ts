// SPDX-License-Identifier: MIT
import { MAX_INDEXES } from '../device/pci-device';
import { VfioUserError, asError } from '../errors';
import { closeFd } from '../native';
import { PciConfig } from '../pci/config-header';
import { PciRegion } from '../pci/device';
import {
  Command,
  REGION_ACCESS_SIZE,
  decodeDeviceInfoReply,
  decodeIrqInfoReply,
  decodeRegionReadReply,
  encodeDeviceInfoRequest,
  encodeIrqInfoRequest,
  encodeRegionReadRequest,
  type NegotiatedLimits,
} from '../protocol';
import type { Connection } from '../transport';
import { describeRegion, type RegionDescription } from './region-description';

/** By which a device that comes back is known: each thing that is compared, in words, and its value. */
type Traits = ReadonlyMap<string, string>;

/** Most differences that an error tells. */
const TOLD = 6;

/**
 * What a device is, as its server tells: device info, regions, interrupts, and the ids in configuration space. Nothing of it
 * changes while a device lives, so that a server that tells otherwise has another device.
 */
export class DeviceIdentity {
  readonly #traits: Traits;
  readonly #regions: Map<number, RegionDescription>;

  private constructor(traits: Traits, regions: Map<number, RegionDescription>) {
    this.#traits = traits;
    this.#regions = regions;
  }

  /**
   * Asks a server, with all questions in flight together.
   *
   * @throws VfioUserError ERR_VFIO_USER_DISCONNECTED and others of a message. What is refused (REMOTE) is a trait too
   */
  static async ask(connection: Connection): Promise<DeviceIdentity> {
    const info = decodeDeviceInfoReply(
      (await connection.request({ command: Command.deviceGetInfo, payload: encodeDeviceInfoRequest() }))
        .payload,
    );
    const traits = new Map([
      ['device flags', hex(info.flags)],
      ['number of regions', `${info.numRegions}`],
      ['number of interrupt indexes', `${info.numIrqs}`],
    ]);
    const regions = new Map<number, RegionDescription>();
    const regionIndexes = indexes(info.numRegions);
    const irqIndexes = indexes(info.numIrqs);
    const asked = [
      ...regionIndexes.map(async (index) => {
        const region = await describeRegion(connection, index);
        regions.set(index, region);
        return describe(region);
      }),
      ...irqIndexes.map((index) => askIrq(connection, index)),
      askIds(connection),
    ];
    const answers = await Promise.allSettled(asked);
    const identity = new DeviceIdentity(traits, regions);
    const names = [
      ...regionIndexes.map((index) => `region ${index}`),
      ...irqIndexes.map((index) => `interrupt index ${index}`),
      'configuration space',
    ];
    for (const [at, answer] of answers.entries()) {
      if (answer.status === 'rejected' && !isRefusal(answer.reason)) {
        identity.close();
        throw asError(answer.reason);
      }
      traits.set(names[at] as string, answer.status === 'fulfilled' ? answer.value : 'none, it is refused');
    }
    return identity;
  }

  /**
   * Checks that another server has the same device.
   *
   * @throws VfioUserError ERR_VFIO_USER_IDENTITY that tells what differs
   */
  assertSame(name: string, found: DeviceIdentity): void {
    const all = new Set([...this.#traits.keys(), ...found.#traits.keys()]);
    const differences = [...all]
      .filter((trait) => this.#traits.get(trait) !== found.#traits.get(trait))
      .map(
        (trait) =>
          `${trait}: ${this.#traits.get(trait) ?? 'none'} before, ${found.#traits.get(trait) ?? 'none'} now`,
      );
    if (differences.length > 0) throw otherDevice(name, differences);
  }

  /** Gives the description of a region away, with its descriptors. */
  take(index: number): RegionDescription | undefined {
    const region = this.#regions.get(index);
    this.#regions.delete(index);
    return region;
  }

  /** Closes the descriptors that were not taken. Idempotent. */
  close(): void {
    for (const { fds } of this.#regions.values()) for (const fd of fds) closeFd(fd);
    this.#regions.clear();
  }
}

/**
 * Checks that a server takes what the one before took, which the objects of a device go by.
 *
 * @throws VfioUserError ERR_VFIO_USER_IDENTITY that tells what differs
 */
export function assertSameLimits(name: string, before: NegotiatedLimits, now: NegotiatedLimits): void {
  const differences: string[] = [];
  const atLeast = (what: string, least: number, value: number): void => {
    if (value < least) differences.push(`${what}: ${least} before, ${value} now`);
  };
  atLeast('max_msg_fds', before.maxMsgFds, now.maxMsgFds);
  atLeast('max_data_xfer_size', before.maxDataXferSize, now.maxDataXferSize);
  atLeast('max_dma_maps', before.maxDmaMaps, now.maxDmaMaps);
  atLeast('write_multiple', Number(before.writeMultiple), Number(now.writeMultiple));
  atLeast('twin_socket', Number(before.twinSocket), Number(now.twinSocket));
  if (before.pageSizes !== now.pageSizes)
    differences.push(`pgsizes: ${hex(before.pageSizes)} before, ${hex(now.pageSizes)} now`);
  if (differences.length > 0) throw otherDevice(name, differences);
}

function otherDevice(name: string, differences: readonly string[]): VfioUserError {
  const more = differences.length - TOLD;
  return new VfioUserError(
    'ERR_VFIO_USER_IDENTITY',
    `${name} is served again, but is not the device that it was (${differences.slice(0, TOLD).join('; ')}` +
      `${more > 0 ? `; and ${more} more` : ''}). Nothing was set up; connect anew to use it`,
  );
}

async function askIrq(connection: Connection, index: number): Promise<string> {
  const request = { command: Command.deviceGetIrqInfo, payload: encodeIrqInfoRequest({ index }) };
  const { count, flags } = decodeIrqInfoReply((await connection.request(request)).payload, { index });
  return `${count} vectors, flags ${hex(flags)}`;
}

/** Vendor, device, revision, class, header type and, where they are at this place, the ids of the subsystem. */
async function askIds(connection: Connection): Promise<string> {
  const [ids, classes, header, subsystem] = await Promise.all(
    [PciConfig.vendorId, PciConfig.revisionId, HEADER_WORD, PciConfig.subsystemVendorId].map((offset) =>
      readConfig(connection, offset),
    ),
  );
  const type = ((header as number) >>> 16) & 0xff;
  const text = `ids ${hex(ids as number)}, class and revision ${hex(classes as number)}, header type ${hex(type)}`;
  // A bridge has addresses there, which a driver sets (PCI-to-PCI Bridge 1.2, 3.2).
  return (type & 0x7f) === 0 ? `${text}, subsystem ${hex(subsystem as number)}` : text;
}

/** The word with the header type in its third byte. */
const HEADER_WORD = PciConfig.headerType & ~3;

async function readConfig(connection: Connection, offset: number): Promise<number> {
  const access = { offset, region: PciRegion.config, count: 4 };
  const { payload } = await connection.request({
    command: Command.regionRead,
    payload: encodeRegionReadRequest(access),
    maxReply: REGION_ACCESS_SIZE + 4,
  });
  const { data } = decodeRegionReadReply(payload, access);
  if (data.length < 4) return 0;
  return new DataView(data.buffer, data.byteOffset, 4).getUint32(0, true);
}

function describe({ size, flags, areas, type }: RegionDescription): string {
  const mapped = areas.map((area) => `${hex(area.offset)}+${hex(area.size)}`).join(' ');
  const kind = type === undefined ? '' : `, type ${type.type}.${type.subtype}`;
  return `${size} bytes, flags ${hex(flags)}, mappable ${mapped === '' ? 'nowhere' : mapped}${kind}`;
}

function indexes(count: number): number[] {
  return Array.from({ length: Math.min(count, MAX_INDEXES) }, (_, index) => index);
}

function isRefusal(error: unknown): boolean {
  return error instanceof VfioUserError && error.code === 'ERR_VFIO_USER_REMOTE';
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}
