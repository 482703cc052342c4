// SPDX-License-Identifier: MIT
import { VfioUserError } from '../errors';
import type { Negotiated } from '../client';
import type { KernelDevice } from '../kernel';
import { Register, decodeCapabilities, formatVersion, type ControllerCapabilities } from '../nvme/spec';
import {
  PCI_CONFIG_BYTES,
  PCIE_CONFIG_BYTES,
  PciIrq,
  PciRegion,
  className,
  deviceName,
  parseCapabilities,
  parseConfigHeader,
  parseExtendedCapabilities,
  vendorName,
  type Capability,
  type CapabilityList,
  type ConfigHeader,
  type DeviceRegion,
  type ExtendedCapability,
  type SparseArea,
} from '../pci';
import { IrqInfoFlag, RegionFlag, type Capabilities } from '../protocol';
import type { EndpointDevice } from './open-endpoint';
import { measureRoundTrip, type RoundTrip } from './round-trip';

/** A region as the server describes it. Sizes and offsets are in bytes. */
export interface RegionReport {
  readonly index: number;
  readonly name: string;
  readonly size: number;
  readonly readable: boolean;
  readonly writable: boolean;
  readonly mappable: boolean;
  /** Parts that can be mapped. */
  readonly areas: readonly SparseArea[];
  /** Descriptors that the server sent; undefined of a device behind the kernel. */
  readonly fds: number | undefined;
}

/** An interrupt index. */
export interface IrqReport {
  readonly index: number;
  readonly name: string;
  /** Vectors; 0 when the device has no such interrupt. */
  readonly count: number;
  readonly eventfd: boolean;
  readonly maskable: boolean;
  readonly automasked: boolean;
  readonly noresize: boolean;
}

/** What configuration space tells. */
export interface PciReport {
  readonly header: ConfigHeader;
  /** Names, undefined where they are not known. */
  readonly vendor: string | undefined;
  readonly device: string | undefined;
  readonly class: string;
  readonly capabilities: CapabilityList<Capability>;
  readonly extendedCapabilities: CapabilityList<ExtendedCapability>;
}

/** What the registers of an NVMe controller tell. */
export interface NvmeReport {
  /** Such as `1.4`. */
  readonly version: string;
  readonly capabilities: ControllerCapabilities;
  /** CAP as read. */
  readonly cap: bigint;
  readonly cc: number;
  readonly csts: number;
  readonly doorbellsMappable: boolean;
}

/** Something that the server refused, or that makes no sense, told in words. */
export interface Problem {
  readonly problem: string;
}

/** What both sides of a connection have announced. */
export interface ProtocolReport {
  /** The version that both speak, such as `0.1`. */
  readonly version: string;
  readonly client: Capabilities;
  readonly server: Capabilities;
  /** The server's version data as it came. */
  readonly serverJson: unknown;
}

/** All that can be known of a device without changing anything in it. With `--json` it is printed as it is. */
export interface DeviceReport {
  readonly endpoint: string;
  /** Null of a device behind the kernel. */
  readonly protocol: ProtocolReport | null;
  /** How the kernel was asked for the device; null of one behind a socket. */
  readonly kernel: { readonly through: KernelDevice['through'] } | null;
  readonly device: { readonly resettable: boolean; readonly regions: number; readonly irqs: number };
  readonly regions: readonly (RegionReport | (Problem & { readonly index: number; readonly name: string }))[];
  readonly irqs: readonly (IrqReport | (Problem & { readonly index: number; readonly name: string }))[];
  readonly pci: PciReport | Problem;
  /** Null for devices of another class. */
  readonly nvme: NvmeReport | Problem | null;
  readonly roundTrip: RoundTrip | Problem;
}

/** Class code of an NVMe controller. */
export const NVME_CLASS = 0x010802;
/** Bytes asked for with one message; servers that model registers may refuse it and want single registers. */
const CONFIG_CHUNK = 256;

/**
 * Asks a device for all that `vfio-user info` shows. Only reads; what the server refuses becomes a {@link Problem}.
 *
 * @param deadline when the blocking messages end, in milliseconds of `performance.now()`: no timer can end them
 * @throws VfioUserError when the connection fails
 */
export async function inspectDevice(device: EndpointDevice, deadline = Infinity): Promise<DeviceReport> {
  const { resettable, regionCount, irqCount } = await device.info();
  const regions: DeviceReport['regions'][number][] = [];
  for (let index = 0; index < regionCount; index++) {
    const name = nameOf(PciRegion, index, 'region');
    const report = await attempt(async () => regionReport(name, await device.region(index)));
    regions.push('problem' in report ? { index, name, ...report } : report);
  }
  const irqs: DeviceReport['irqs'][number][] = [];
  for (let index = 0; index < irqCount; index++) {
    const name = nameOf(PciIrq, index, 'irq');
    const report = await attempt(async () => irqReport(name, await device.irq(index)));
    irqs.push('problem' in report ? { index, name, ...report } : report);
  }
  const pci = await attempt(async () => pciReport(await device.region('config')));
  const isNvme = 'header' in pci && pci.header.classCode === NVME_CLASS;
  return {
    endpoint: device.name,
    protocol: 'negotiated' in device ? protocolReport(device.negotiated) : null,
    kernel: 'through' in device ? { through: device.through } : null,
    device: { resettable, regions: regionCount, irqs: irqCount },
    regions,
    irqs,
    pci,
    nvme: isNvme ? await attempt(async () => nvmeReport(await device.region('bar0'))) : null,
    roundTrip: await attempt(async () =>
      measureRoundTrip(await device.region(isNvme ? 'bar0' : 'config'), isNvme ? Register.csts : 0, deadline),
    ),
  };
}

function protocolReport({ major, minor, client, server, serverJson }: Negotiated): ProtocolReport {
  return { version: `${major}.${minor}`, client, server, serverJson };
}

/** The result, or what the device had against it. A connection that fails is not the device's answer. */
async function attempt<T>(ask: () => Promise<T>): Promise<T | Problem> {
  try {
    return await ask();
  } catch (error) {
    const refused =
      error instanceof VfioUserError
        ? ['ERR_VFIO_USER_REMOTE', 'ERR_VFIO_USER_UNSUPPORTED', 'ERR_VFIO_USER_PCI'].includes(error.code) ||
          error.syscall === 'pread'
        : error instanceof RangeError;
    if (!refused) throw error;
    return { problem: (error as Error).message };
  }
}

function regionReport(
  name: string,
  region: DeviceRegion & { readonly flags: number; readonly fdCount?: number },
): RegionReport {
  return {
    index: region.index,
    name,
    size: region.size,
    readable: region.readable,
    writable: region.writable,
    mappable: (region.flags & RegionFlag.mmap) !== 0,
    areas: region.areas,
    fds: region.fdCount,
  };
}

function irqReport(
  name: string,
  { index, count, flags }: { index: number; count: number; flags: number },
): IrqReport {
  return {
    index,
    name,
    count,
    eventfd: (flags & IrqInfoFlag.eventfd) !== 0,
    maskable: (flags & IrqInfoFlag.maskable) !== 0,
    automasked: (flags & IrqInfoFlag.automasked) !== 0,
    noresize: (flags & IrqInfoFlag.noresize) !== 0,
  };
}

async function pciReport(region: DeviceRegion): Promise<PciReport> {
  const config = await readConfig(region);
  const header = parseConfigHeader(config);
  return {
    header,
    vendor: vendorName(header.vendorId),
    device: deviceName(header.vendorId, header.deviceId),
    class: className(header.classCode),
    capabilities: parseCapabilities(config),
    extendedCapabilities: parseExtendedCapabilities(config),
  };
}

/** Configuration space: its first 256 bytes, and the rest where there is something in it. */
async function readConfig(region: DeviceRegion): Promise<Uint8Array> {
  const size = Math.min(region.size, PCIE_CONFIG_BYTES);
  const config = new Uint8Array(size);
  for (let offset = 0; offset < size; offset += CONFIG_CHUNK) {
    const length = Math.min(CONFIG_CHUNK, size - offset);
    const chunk = await attempt(() => readChunk(region, offset, length));
    // Conventional configuration space must be readable; some servers refuse what is beyond.
    if ('problem' in chunk) {
      if (offset >= PCI_CONFIG_BYTES) return config.slice(0, offset);
      throw new VfioUserError('ERR_VFIO_USER_PCI', chunk.problem);
    }
    config.set(chunk, offset);
    // Without extended capabilities the first header reads 0 (PCI Express base 5.0, 7.6).
    if (offset === PCI_CONFIG_BYTES && chunk.subarray(0, 4).every((byte) => byte === 0)) break;
  }
  return config;
}

async function readChunk(region: DeviceRegion, offset: number, length: number): Promise<Uint8Array> {
  try {
    return await region.readBytes(offset, length);
  } catch (error) {
    if (!(error instanceof VfioUserError) || error.code !== 'ERR_VFIO_USER_REMOTE') throw error;
    const words = new Uint8Array(length);
    for (let at = 0; at + 4 <= length; at += 4) words.set(await region.readBytes(offset + at, 4), at);
    return words;
  }
}

async function nvmeReport(bar: DeviceRegion): Promise<NvmeReport> {
  const cap = await bar.read64(Register.cap);
  return {
    version: formatVersion(await bar.read32(Register.vs)),
    capabilities: decodeCapabilities(cap),
    cap,
    cc: await bar.read32(Register.cc),
    csts: await bar.read32(Register.csts),
    doorbellsMappable: bar.areas.some(
      ({ offset, size }) => offset <= Register.doorbells && offset + size > Register.doorbells,
    ),
  };
}

function nameOf(indexes: Readonly<Record<string, number>>, index: number, kind: string): string {
  return Object.entries(indexes).find(([, value]) => value === index)?.[0] ?? `${kind}${index}`;
}
