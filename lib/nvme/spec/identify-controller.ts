// SPDX-License-Identifier: MIT
import { outOfRange } from '../../errors';
import {
  type Decoded,
  ascii,
  bits16,
  decodeLayout,
  encodeLayout,
  hex,
  structView,
  u128,
  u16,
  u24,
  u32,
  u8,
} from './layout';

/** Bytes of every Identify data structure. */
export const IDENTIFY_BYTES = 4096;

const layout = {
  /** PCI vendor id. */
  vid: u16(0),
  /** PCI subsystem vendor id. */
  ssvid: u16(2),
  /** Serial number, at most 20 characters. */
  sn: ascii(4, 20),
  /** Model number, at most 40 characters. */
  mn: ascii(24, 40),
  /** Firmware revision, at most 8 characters. */
  fr: ascii(64, 8),
  /** Recommended arbitration burst, as a power of two. */
  rab: u8(72),
  /** IEEE OUI of the vendor. */
  ieee: u24(73),
  /** Multi-path and sharing capabilities. */
  cmic: u8(76),
  /** Greatest transfer, as a power of two of CAP.MPSMIN; 0 for no limit. */
  mdts: u8(77),
  /** Controller id. */
  cntlid: u16(78),
  /** Version word, see `formatVersion`. */
  ver: u32(80),
  /** Resume latency in microseconds. */
  rtd3r: u32(84),
  /** Entry latency in microseconds; how long a shutdown takes. */
  rtd3e: u32(88),
  /** Asynchronous events, a mask of {@link OptionalEvents}. */
  oaes: u32(92),
  /** Controller attributes. */
  ctratt: u32(96),
  /** Read recovery levels. */
  rrls: u16(100),
  /** Controller type: 1 I/O, 2 discovery, 3 administrative; 0 not reported. */
  cntrltype: u8(111),
  /** Globally unique id of the replaceable unit, 16 bytes in hexadecimal. */
  fguid: hex(112, 16),
  /** Command retry delay time 1, in units of 100 ms. */
  crdt1: u16(128),
  /** Command retry delay time 2, in units of 100 ms. */
  crdt2: u16(130),
  /** Command retry delay time 3, in units of 100 ms. */
  crdt3: u16(132),
  /** Admin commands, a mask of {@link OptionalAdminCommands}. */
  oacs: u16(256),
  /** Concurrent Abort commands, 0's based. */
  acl: u8(258),
  /** Concurrent Asynchronous Event Requests, 0's based. */
  aerl: u8(259),
  /** Firmware updates. */
  frmw: u8(260),
  /** Log page attributes, a mask of {@link LogPageAttributes}. */
  lpa: u8(261),
  /** Entries of the error log, 0's based. */
  elpe: u8(262),
  /** Power states, 0's based. */
  npss: u8(263),
  /** Format of vendor specific admin commands. */
  avscc: u8(264),
  /** Autonomous power state transitions. */
  apsta: u8(265),
  /** Warning temperature in kelvins. */
  wctemp: u16(266),
  /** Critical temperature in kelvins. */
  cctemp: u16(268),
  /** Longest firmware activation in units of 100 ms. */
  mtfa: u16(270),
  /** Preferred size of the host memory buffer in units of 4 KiB. */
  hmpre: u32(272),
  /** Least size of the host memory buffer in units of 4 KiB. */
  hmmin: u32(276),
  /** Total capacity in bytes. */
  tnvmcap: u128(280),
  /** Unallocated capacity in bytes. */
  unvmcap: u128(296),
  /** Replay protected memory block. */
  rpmbs: u32(312),
  /** Time of an extended self-test in minutes. */
  edstt: u16(316),
  /** Self-test options. */
  dsto: u8(318),
  /** Granularity of firmware updates in units of 4 KiB. */
  fwug: u8(319),
  /** Granularity of keep alive in units of 100 ms; 0 when not supported. */
  kas: u16(320),
  /** Host controlled thermal management. */
  hctma: u16(322),
  /** Least thermal management temperature in kelvins. */
  mntmt: u16(324),
  /** Greatest thermal management temperature in kelvins. */
  mxtmt: u16(326),
  /** Sanitize operations. */
  sanicap: u32(328),
  /** Least size of a host memory descriptor in units of 4 KiB. */
  hmminds: u32(332),
  /** Greatest number of host memory descriptors. */
  hmmaxd: u16(336),
  /** Greatest id of an NVM set. */
  nsetidmax: u16(338),
  /** Greatest id of an endurance group. */
  endgidmax: u16(340),
  /** ANA transition time in seconds. */
  anatt: u8(342),
  /** Asymmetric namespace access capabilities. */
  anacap: u8(343),
  /** Greatest id of an ANA group. */
  anagrpmax: u32(344),
  /** Number of ANA groups. */
  nanagrpid: u32(348),
  /** Size of the persistent event log in units of 64 KiB. */
  pels: u32(352),
  /** Id of the domain of the controller; 0 when there are no domains. */
  domainid: u16(356),
  /** Greatest capacity of an endurance group in bytes. */
  megcap: u128(368),
  /** Sizes of submission entries, least 3:0 and greatest 7:4 as powers of two; 66h for 64 bytes. */
  sqes: u8(512),
  /** Sizes of completion entries, as for `sqes`; 44h for 16 bytes. */
  cqes: u8(513),
  /** Outstanding commands; 0 when not reported. */
  maxcmd: u16(514),
  /** Greatest namespace id. Not the number of namespaces. */
  nn: u32(516),
  /** NVM commands, a mask of {@link OptionalNvmCommands}. */
  oncs: u16(520),
  /** Bit 0 is fused compare and write. */
  fuses: u16(522),
  /** Attributes of Format NVM. */
  fna: u8(524),
  /** Volatile write cache; bit 0 is present, bits 2:1 whether Flush takes the broadcast namespace id. */
  vwc: u8(525),
  /** Blocks written atomically, 0's based. */
  awun: u16(526),
  /** Blocks written atomically across a power failure, 0's based. */
  awupf: u16(528),
  /** Format of vendor specific I/O commands; NVSCC before version 2.0. */
  icsvscc: u8(530),
  /** Namespace write protection. */
  nwpc: u8(531),
  /** Blocks of fused compare and write, 0's based. */
  acwu: u16(532),
  /** Formats of Copy descriptors. */
  ocfs: u16(534),
  /** SGL support; bits 1:0 are 0 for none, 1 for any alignment, 2 for dword alignment. */
  sgls: u32(536),
  /** Greatest number of namespaces; 0 means `nn`. */
  mnan: u32(540),
  /** Greatest number of namespaces attached to the I/O controllers of a domain; 0 for no limit. */
  maxdna: u128(544),
  /** Greatest number of namespaces attached to this controller; 0 for no limit. */
  maxcna: u32(560),
  /** NVMe qualified name of the subsystem, at most 223 characters. */
  subnqn: ascii(768, 256, 0),
  /** Size of I/O command capsules in units of 16 bytes; fabrics only. */
  ioccsz: u32(1792),
  /** Size of I/O response capsules in units of 16 bytes; fabrics only. */
  iorcsz: u32(1796),
  /** Offset of data in a capsule in units of 16 bytes; fabrics only. */
  icdoff: u16(1800),
  /** Attributes of the fabrics controller. */
  fcatt: u8(1802),
  /** SGL data blocks of a capsule; fabrics only. */
  msdbd: u8(1803),
  /** Optional fabrics commands. */
  ofcs: u16(1804),
};

const powerLayout = {
  /** Greatest power, in units of 10 mW, or of 0.1 mW when `max_power_scale` is 1. */
  max_power: u16(0),
  /** Unit of `max_power`. */
  max_power_scale: bits16(3, 0, 1),
  /** 1 for a state in which no I/O is done. */
  'non-operational_state': bits16(3, 1, 1),
  /** Entry latency in microseconds. */
  entry_lat: u32(4),
  /** Exit latency in microseconds. */
  exit_lat: u32(8),
  /** Rank among the states by read throughput, 0 for the best. */
  read_tput: bits16(12, 0, 5),
  /** Rank among the states by read latency, 0 for the best. */
  read_lat: bits16(13, 0, 5),
  /** Rank among the states by write throughput, 0 for the best. */
  write_tput: bits16(14, 0, 5),
  /** Rank among the states by write latency, 0 for the best. */
  write_lat: bits16(15, 0, 5),
  /** Idle power in the unit that `idle_scale` names. */
  idle_power: u16(16),
  /** 0 not reported, 1 units of 0.1 mW, 2 units of 10 mW. */
  idle_scale: bits16(18, 6, 2),
  /** Active power in the unit that `active_scale` names. */
  active_power: u16(20),
  /** Workload for which `active_power` holds. */
  active_power_work: bits16(22, 0, 3),
  /** 0 not reported, 1 units of 0.1 mW, 2 units of 10 mW. */
  active_scale: bits16(22, 6, 2),
};

/**
 * A power state of a controller (NVMe base 2.0, figure "Power State Descriptor Data Structure"). The fields
 * have nvme-cli's JSON keys.
 */
export interface PowerState extends Decoded<typeof powerLayout> {}

/**
 * What Identify Controller returns (CNS 01h; NVMe base 2.0, 5.17.2.1). The fields have nvme-cli's JSON keys, the mnemonics of
 * the specification in lower case.
 */
export interface IdentifyController extends Decoded<typeof layout> {
  /** The power states, of which there are `npss` + 1. */
  readonly psds: readonly PowerState[];
}

/** Bits of `oacs` of {@link IdentifyController}: optional admin commands. @enum */
export const OptionalAdminCommands = {
  security: 0x001,
  formatNvm: 0x002,
  firmware: 0x004,
  namespaceManagement: 0x008,
  selfTest: 0x010,
  directives: 0x020,
  nvmeMi: 0x040,
  virtualization: 0x080,
  doorbellBufferConfig: 0x100,
  getLbaStatus: 0x200,
  lockdown: 0x400,
} as const;

/** Bits of `oncs` of {@link IdentifyController}: optional NVM commands. @enum */
export const OptionalNvmCommands = {
  compare: 0x001,
  writeUncorrectable: 0x002,
  datasetManagement: 0x004,
  writeZeroes: 0x008,
  saveSelectFeatures: 0x010,
  reservations: 0x020,
  timestamp: 0x040,
  verify: 0x080,
  copy: 0x100,
} as const;

/** Bits of `oaes` of {@link IdentifyController}: optional asynchronous events. @enum */
export const OptionalEvents = {
  namespaceAttributes: 0x100,
  firmwareActivation: 0x200,
  anaChange: 0x800,
} as const;

/** Bits of `lpa` of {@link IdentifyController}: log page attributes. @enum */
export const LogPageAttributes = {
  smartPerNamespace: 0x01,
  commandEffects: 0x02,
  extendedData: 0x04,
  telemetry: 0x08,
  persistentEvents: 0x10,
  /** Supported log pages, feature effects and others: pages 00h, 12h and 13h. */
  miscellaneous: 0x20,
} as const;

const POWER_STATES = 2048;
const POWER_STATE_BYTES = 32;
const MAX_POWER_STATES = 32;

/**
 * Decodes Identify Controller.
 * @throws VfioUserError `ERR_VFIO_USER_NVME_CONTROLLER` when there are fewer than 4096 bytes
 */
export function decodeIdentifyController(bytes: Uint8Array): IdentifyController {
  const view = structView(bytes, IDENTIFY_BYTES, 'Identify Controller');
  const fields = decodeLayout(layout, view);
  // NPSS is a byte of the peer's, but there are only 32 descriptors.
  const count = Math.min(fields.npss + 1, MAX_POWER_STATES);
  return {
    ...fields,
    psds: Array.from({ length: count }, (_, i) => decodeLayout(powerLayout, powerStateView(view, i))),
  };
}

function powerStateView(view: DataView, index: number): DataView {
  return new DataView(
    view.buffer,
    view.byteOffset + POWER_STATES + index * POWER_STATE_BYTES,
    POWER_STATE_BYTES,
  );
}

/** What {@link encodeIdentifyController} takes: fields that are not given are zero, texts blank. */
export type IdentifyControllerInput = Partial<Omit<Decoded<typeof layout>, 'npss'>> & {
  readonly psds?: readonly Partial<PowerState>[];
};

/** Encodes the 4096 bytes of Identify Controller. NPSS follows from the power states, of which there are 1 to 32. */
export function encodeIdentifyController({ psds = [{}], ...fields }: IdentifyControllerInput): Uint8Array {
  const bytes = new Uint8Array(IDENTIFY_BYTES);
  const view = new DataView(bytes.buffer);
  if (psds.length < 1 || psds.length > MAX_POWER_STATES) {
    throw outOfRange(`${psds.length} power states; a controller has 1 to ${MAX_POWER_STATES}`);
  }
  encodeLayout(layout, view, { sn: '', mn: '', fr: '', ...fields, npss: psds.length - 1 });
  psds.forEach((state, i) => {
    encodeLayout(powerLayout, powerStateView(view, i), state);
  });
  return bytes;
}

/**
 * The bytes of a limit that Identify tells as a power of two of pages: `Infinity` for 0, no limit.
 * @param exponent MDTS of Identify Controller, or WZSL of Identify Controller of the NVM command set
 * @param minPageSize CAP.MPSMIN in bytes
 */
export function pagesLimit(exponent: number, minPageSize: number): number {
  return exponent === 0 ? Infinity : minPageSize * 2 ** exponent;
}
