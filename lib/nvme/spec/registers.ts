// SPDX-License-Identifier: MIT
import { invalidArgument, outOfRange } from '../../errors';
import { type WordOf, bits, flag, wordCodec, zeroBased } from './bits';

/** Offsets of the controller registers in BAR 0, in bytes (NVMe base 2.0, 3.1.3). @enum */
export const Register = {
  /** Controller Capabilities, 64 bits. */
  cap: 0x00,
  /** Version. */
  vs: 0x08,
  /** Interrupt Mask Set. */
  intms: 0x0c,
  /** Interrupt Mask Clear. */
  intmc: 0x10,
  /** Controller Configuration. */
  cc: 0x14,
  /** Controller Status. */
  csts: 0x1c,
  /** NVM Subsystem Reset. */
  nssr: 0x20,
  /** Admin Queue Attributes. */
  aqa: 0x24,
  /** Admin Submission Queue Base Address, 64 bits. */
  asq: 0x28,
  /** Admin Completion Queue Base Address, 64 bits. */
  acq: 0x30,
  /** Controller Memory Buffer Location. */
  cmbloc: 0x38,
  /** Controller Memory Buffer Size. */
  cmbsz: 0x3c,
  /** Boot Partition Information. */
  bpinfo: 0x40,
  /** Boot Partition Read Select. */
  bprsel: 0x44,
  /** Boot Partition Memory Buffer Location, 64 bits. */
  bpmbl: 0x48,
  /** Controller Memory Buffer Memory Space Control, 64 bits. */
  cmbmsc: 0x50,
  /** Controller Memory Buffer Status. */
  cmbsts: 0x58,
  /** Controller Memory Buffer Elasticity Buffer Size. */
  cmbebs: 0x5c,
  /** Controller Memory Buffer Sustained Write Throughput. */
  cmbswtp: 0x60,
  /** NVM Subsystem Shutdown. */
  nssd: 0x64,
  /** Controller Ready Timeouts. */
  crto: 0x68,
  /** Persistent Memory Region Capabilities. */
  pmrcap: 0xe00,
  /** Persistent Memory Region Control. */
  pmrctl: 0xe04,
  /** Persistent Memory Region Status. */
  pmrsts: 0xe08,
  /** Submission Queue 0 Tail Doorbell, the first of the doorbells. */
  doorbells: 0x1000,
} as const;

/** Controller Capabilities (CAP; NVMe base 2.0, 3.1.3.1). */
export interface ControllerCapabilities {
  /** MQES: greatest number of entries of an I/O queue, 2 to 65536. */
  readonly maxQueueEntries: number;
  /** CQR: I/O queues must be physically contiguous. */
  readonly contiguousQueuesRequired: boolean;
  /** AMS bit 0: weighted round robin with urgent priority class. */
  readonly weightedRoundRobin: boolean;
  /** TO: longest time that CSTS.RDY takes to follow CC.EN, in milliseconds, a multiple of 500. */
  readonly timeout: number;
  /** DSTRD: doorbells are `4 << dstrd` bytes apart, 0 to 15. */
  readonly dstrd: number;
  /** NSSRS: NVM subsystem reset by NSSR. */
  readonly subsystemReset: boolean;
  /** CSS: command sets, a mask of {@link CommandSets}. */
  readonly commandSets: number;
  /** MPSMIN: smallest memory page, in bytes. */
  readonly minPageSize: number;
  /** MPSMAX: largest memory page, in bytes. */
  readonly maxPageSize: number;
  /** PMRS: persistent memory region. */
  readonly persistentMemoryRegion: boolean;
  /** CMBS: controller memory buffer. */
  readonly controllerMemoryBuffer: boolean;
  /** CRMS bit 0 (CRWMS): CC.EN waits for media; then CRTO holds the time-out. */
  readonly readyWithMedia: boolean;
  /** CRMS bit 1 (CRIMS): the controller can be ready independent of media. */
  readonly readyIndependentOfMedia: boolean;
}

/** Bits of {@link ControllerCapabilities.commandSets}. @enum */
export const CommandSets = {
  /** The NVM command set. */
  nvm: 0x01,
  /** One or more I/O command sets, which Identify lists. */
  ioCommandSets: 0x40,
  /** No I/O command set. */
  adminOnly: 0x80,
} as const;

const capLow = wordCodec({
  maxQueueEntries: zeroBased(0, 16),
  contiguousQueuesRequired: flag(16),
  weightedRoundRobin: flag(17),
  to: bits(24, 8),
});

const capHigh = wordCodec({
  dstrd: bits(0, 4),
  subsystemReset: flag(4),
  commandSets: bits(5, 8),
  mpsmin: bits(16, 4),
  mpsmax: bits(20, 4),
  persistentMemoryRegion: flag(24),
  controllerMemoryBuffer: flag(25),
  readyWithMedia: flag(27),
  readyIndependentOfMedia: flag(28),
});

/** Unit of CAP.TO, in milliseconds. */
const TIMEOUT_UNIT = 500;

/** Decodes CAP. */
export function decodeCapabilities(cap: bigint): ControllerCapabilities {
  const { to, ...lower } = capLow.decode(Number(cap & 0xffff_ffffn));
  const { mpsmin, mpsmax, ...upper } = capHigh.decode(Number(cap >> 32n));
  return {
    ...lower,
    ...upper,
    timeout: to * TIMEOUT_UNIT,
    minPageSize: 4096 * 2 ** mpsmin,
    maxPageSize: 4096 * 2 ** mpsmax,
  };
}

/**
 * Encodes CAP. The time-out is rounded up to a multiple of 500 ms.
 * @returns the lower and the upper word
 * @throws RangeError when a value does not fit
 */
export function encodeCapabilities(cap: ControllerCapabilities): readonly [low: number, high: number] {
  const { timeout, minPageSize, maxPageSize, ...rest } = cap;
  return [
    capLow.encode({ ...rest, to: Math.ceil(timeout / TIMEOUT_UNIT) }),
    capHigh.encode({
      ...rest,
      mpsmin: encodePageSize(minPageSize),
      mpsmax: encodePageSize(maxPageSize),
    }),
  ];
}

/**
 * CC.MPS, CAP.MPSMIN or CAP.MPSMAX for a page size.
 * @param pageSize a power of two from 4 KiB to 128 MiB
 */
function encodePageSize(pageSize: number): number {
  const exponent = Math.log2(pageSize) - 12;
  if (!Number.isInteger(exponent) || exponent < 0 || exponent > 15) {
    throw outOfRange(`The page size ${pageSize} is not a power of two from 4096 to 134217728`);
  }
  return exponent;
}

/** Controller Configuration (CC; NVMe base 2.0, 3.1.3.5). */
export const controllerConfiguration = wordCodec({
  /** EN */
  enable: flag(0),
  /** CSS: 0 NVM, 6 all supported command sets, 7 admin only. */
  commandSet: bits(4, 3),
  /** MPS: memory pages are `4096 << mps` bytes. */
  mps: bits(7, 4),
  /** AMS: 0 round robin, 1 weighted round robin. */
  arbitration: bits(11, 3),
  /** SHN: a value of {@link ShutdownNotification}. */
  shutdown: bits(14, 2),
  /** IOSQES: I/O submission entries are `2 ** iosqes` bytes, 6 for 64. */
  iosqes: bits(16, 4),
  /** IOCQES: I/O completion entries are `2 ** iocqes` bytes, 4 for 16. */
  iocqes: bits(20, 4),
  /** CRIME: ready independent of media. */
  readyIndependentOfMedia: flag(24),
});
/** The fields of CC. */
export type ControllerConfiguration = WordOf<typeof controllerConfiguration>;

/** Values of CC.SHN. */
export const ShutdownNotification = { none: 0, normal: 1, abrupt: 2 } as const;

/** Controller Status (CSTS; NVMe base 2.0, 3.1.3.6). */
export const controllerStatus = wordCodec({
  /** RDY */
  ready: flag(0),
  /** CFS: controller fatal status. */
  fatal: flag(1),
  /** SHST: a value of {@link ShutdownStatus}. */
  shutdown: bits(2, 2),
  /** NSSRO: an NVM subsystem reset occurred; written as 1 to clear. */
  subsystemReset: flag(4),
  /** PP: processing paused. */
  paused: flag(5),
});

/** Values of CSTS.SHST. */
export const ShutdownStatus = { normal: 0, occurring: 1, complete: 2 } as const;

/** Admin Queue Attributes (AQA; NVMe base 2.0, 3.1.3.8). Sizes are in entries, 1 to 4096. */
export const adminQueueAttributes = wordCodec({
  /** ASQS */
  submissionEntries: zeroBased(0, 12),
  /** ACQS */
  completionEntries: zeroBased(16, 12),
});

/** Text of a version word (VS, VER): `2.0`, `1.2.1`. */
export function formatVersion(vs: number): string {
  const tertiary = vs & 0xff;
  return `${vs >>> 16}.${(vs >>> 8) & 0xff}${tertiary === 0 ? '' : `.${tertiary}`}`;
}

/**
 * Version word of a text such as `2.0` or `1.2.1`.
 * @throws TypeError when the text is not a version
 */
export function parseVersion(text: string): number {
  const match = /^(\d{1,5})\.(\d{1,3})(?:\.(\d{1,3}))?$/.exec(text);
  const part = (index: number): number => Number(match?.[index] ?? (index === 3 && match !== null ? 0 : NaN));
  const [major, minor, tertiary] = [part(1), part(2), part(3)] as const;
  if (!(major <= 0xffff && minor <= 0xff && tertiary <= 0xff)) {
    throw invalidArgument(`"${text}" is not an NVMe version such as "2.0"`);
  }
  return ((major << 16) | (minor << 8) | tertiary) >>> 0;
}
