// SPDX-License-Identifier: MIT
import { outOfRange } from '../../errors';
import {
  type Decoded,
  ascii,
  byteBits,
  decodeLayout,
  encodeLayout,
  hex,
  mnemonics,
  structView,
  u128,
  u16,
  u16List,
  u24,
  u32,
  u8,
} from './layout';

/** Bytes of every Identify data structure. */
export const IDENTIFY_BYTES = 4096;

/** Identify Controller, CNS 01h (NVMe base 2.0, figure "Identify Controller Data Structure"). */
const layout = {
  /** VID: PCI vendor id. */
  vendorId: u16(0, 'vid'),
  /** SSVID: PCI subsystem vendor id. */
  subsystemVendorId: u16(2, 'ssvid'),
  /** SN: serial number, at most 20 characters. */
  serialNumber: ascii(4, 20, 'sn'),
  /** MN: model number, at most 40 characters. */
  modelNumber: ascii(24, 40, 'mn'),
  /** FR: firmware revision, at most 8 characters. */
  firmwareRevision: ascii(64, 8, 'fr'),
  /** RAB: recommended arbitration burst, as a power of two. */
  recommendedArbitrationBurst: u8(72, 'rab'),
  /** IEEE: OUI of the vendor. */
  ieeeOui: u24(73, 'ieee'),
  /** CMIC: multi-path and sharing capabilities. */
  multipath: u8(76, 'cmic'),
  /** MDTS: greatest transfer, as a power of two of CAP.MPSMIN; 0 for no limit. See {@link maxTransferSize}. */
  mdts: u8(77, 'mdts'),
  /** CNTLID */
  controllerId: u16(78, 'cntlid'),
  /** VER: version word, see `formatVersion`. */
  version: u32(80, 'ver'),
  /** RTD3R: resume latency in microseconds. */
  resumeLatency: u32(84, 'rtd3r'),
  /** RTD3E: entry latency in microseconds; how long a shutdown takes. */
  entryLatency: u32(88, 'rtd3e'),
  /** OAES: asynchronous events, a mask of {@link OptionalEvents}. */
  optionalEvents: u32(92, 'oaes'),
  /** CTRATT: controller attributes. */
  attributes: u32(96, 'ctratt'),
  /** RRLS: read recovery levels. */
  readRecoveryLevels: u16(100, 'rrls'),
  /** CNTRLTYPE: 1 I/O, 2 discovery, 3 administrative; 0 not reported. */
  controllerType: u8(111, 'cntrltype'),
  /** FGUID: globally unique id of the replaceable unit, 16 bytes in hexadecimal. */
  fruGuid: hex(112, 16, 'fguid'),
  /** CRDT1 to CRDT3: command retry delay times in units of 100 ms. */
  retryDelays: u16List(128, 3, 'crdt'),
  /** OACS: admin commands, a mask of {@link OptionalAdminCommands}. */
  optionalAdminCommands: u16(256, 'oacs'),
  /** ACL: concurrent Abort commands, 0's based. */
  abortLimit: u8(258, 'acl'),
  /** AERL: concurrent Asynchronous Event Requests, 0's based. */
  asyncEventLimit: u8(259, 'aerl'),
  /** FRMW: firmware updates. */
  firmwareUpdates: u8(260, 'frmw'),
  /** LPA: log page attributes, a mask of {@link LogPageAttributes}. */
  logPageAttributes: u8(261, 'lpa'),
  /** ELPE: entries of the error log, 0's based. */
  errorLogEntries: u8(262, 'elpe'),
  /** AVSCC: format of vendor specific admin commands. */
  adminVendorSpecific: u8(264, 'avscc'),
  /** APSTA: autonomous power state transitions. */
  autonomousPowerTransitions: u8(265, 'apsta'),
  /** WCTEMP: warning temperature in kelvins. */
  warningTemperature: u16(266, 'wctemp'),
  /** CCTEMP: critical temperature in kelvins. */
  criticalTemperature: u16(268, 'cctemp'),
  /** MTFA: longest firmware activation in units of 100 ms. */
  maxFirmwareActivation: u16(270, 'mtfa'),
  /** HMPRE: preferred size of the host memory buffer in units of 4 KiB. */
  hostMemoryPreferred: u32(272, 'hmpre'),
  /** HMMIN: least size of the host memory buffer in units of 4 KiB. */
  hostMemoryMinimum: u32(276, 'hmmin'),
  /** TNVMCAP: total capacity in bytes. */
  totalCapacity: u128(280, 'tnvmcap'),
  /** UNVMCAP: unallocated capacity in bytes. */
  unallocatedCapacity: u128(296, 'unvmcap'),
  /** RPMBS: replay protected memory block. */
  replayProtectedMemory: u32(312, 'rpmbs'),
  /** EDSTT: time of an extended self-test in minutes. */
  extendedSelfTestTime: u16(316, 'edstt'),
  /** DSTO: self-test options. */
  selfTestOptions: u8(318, 'dsto'),
  /** FWUG: granularity of firmware updates in units of 4 KiB. */
  firmwareGranularity: u8(319, 'fwug'),
  /** KAS: granularity of keep alive in units of 100 ms; 0 when not supported. */
  keepAliveGranularity: u16(320, 'kas'),
  /** HCTMA: host controlled thermal management. */
  hostThermalManagement: u16(322, 'hctma'),
  /** MNTMT: least thermal management temperature in kelvins. */
  minThermalTemperature: u16(324, 'mntmt'),
  /** MXTMT: greatest thermal management temperature in kelvins. */
  maxThermalTemperature: u16(326, 'mxtmt'),
  /** SANICAP: sanitize operations. */
  sanitizeCapabilities: u32(328, 'sanicap'),
  /** HMMINDS: least size of a host memory descriptor in units of 4 KiB. */
  hostMemoryMinDescriptor: u32(332, 'hmminds'),
  /** HMMAXD: greatest number of host memory descriptors. */
  hostMemoryMaxDescriptors: u16(336, 'hmmaxd'),
  /** NSETIDMAX */
  maxNvmSetId: u16(338, 'nsetidmax'),
  /** ENDGIDMAX */
  maxEnduranceGroupId: u16(340, 'endgidmax'),
  /** ANATT: ANA transition time in seconds. */
  anaTransitionTime: u8(342, 'anatt'),
  /** ANACAP */
  anaCapabilities: u8(343, 'anacap'),
  /** ANAGRPMAX */
  maxAnaGroupId: u32(344, 'anagrpmax'),
  /** NANAGRPID */
  anaGroups: u32(348, 'nanagrpid'),
  /** PELS: size of the persistent event log in units of 64 KiB. */
  persistentEventLogSize: u32(352, 'pels'),
  /** DOMAINID */
  domainId: u16(356, 'domainid'),
  /** MEGCAP: greatest capacity of an endurance group in bytes. */
  maxEnduranceGroupCapacity: u128(368, 'megcap'),
  /** SQES: sizes of submission entries, least 3:0 and greatest 7:4 as powers of two; 66h for 64 bytes. */
  submissionEntrySizes: u8(512, 'sqes'),
  /** CQES: sizes of completion entries, as {@link submissionEntrySizes}; 44h for 16 bytes. */
  completionEntrySizes: u8(513, 'cqes'),
  /** MAXCMD: outstanding commands; 0 when not reported. */
  maxCommands: u16(514, 'maxcmd'),
  /** NN: greatest namespace id. Not the number of namespaces. */
  maxNamespaceId: u32(516, 'nn'),
  /** ONCS: NVM commands, a mask of {@link OptionalNvmCommands}. */
  optionalNvmCommands: u16(520, 'oncs'),
  /** FUSES: bit 0 is fused compare and write. */
  fusedOperations: u16(522, 'fuses'),
  /** FNA: attributes of Format NVM. */
  formatAttributes: u8(524, 'fna'),
  /** VWC: volatile write cache; bit 0 is present, bits 2:1 whether Flush takes the broadcast namespace id. */
  volatileWriteCache: u8(525, 'vwc'),
  /** AWUN: blocks written atomically, 0's based. */
  atomicWriteUnit: u16(526, 'awun'),
  /** AWUPF: blocks written atomically across a power failure, 0's based. */
  atomicWriteUnitPowerFail: u16(528, 'awupf'),
  /** ICSVSCC (before 2.0 NVSCC): format of vendor specific I/O commands. */
  ioVendorSpecific: u8(530, 'icsvscc'),
  /** NWPC: namespace write protection. */
  writeProtection: u8(531, 'nwpc'),
  /** ACWU: blocks of fused compare and write, 0's based. */
  atomicCompareWriteUnit: u16(532, 'acwu'),
  /** OCFS: formats of Copy descriptors. */
  copyFormats: u16(534, 'ocfs'),
  /** SGLS: SGL support; bits 1:0 are 0 for none, 1 for any alignment, 2 for dword alignment. */
  sglSupport: u32(536, 'sgls'),
  /** MNAN: greatest number of namespaces; 0 means {@link maxNamespaceId}. */
  maxNamespaces: u32(540, 'mnan'),
  /** MAXDNA */
  maxDomainAttachments: u128(544, 'maxdna'),
  /** MAXCNA */
  maxControllerAttachments: u32(560, 'maxcna'),
  /** SUBNQN: NVMe qualified name of the subsystem, at most 223 characters. */
  subsystemNqn: ascii(768, 256, 'subnqn', 0),
  /** IOCCSZ: size of I/O command capsules in units of 16 bytes; fabrics only. */
  commandCapsuleSize: u32(1792, 'ioccsz'),
  /** IORCSZ: size of I/O response capsules in units of 16 bytes; fabrics only. */
  responseCapsuleSize: u32(1796, 'iorcsz'),
  /** ICDOFF: offset of data in a capsule in units of 16 bytes; fabrics only. */
  inCapsuleDataOffset: u16(1800, 'icdoff'),
  /** FCATT: attributes of the fabrics controller. */
  fabricsAttributes: u8(1802, 'fcatt'),
  /** MSDBD: SGL data blocks of a capsule; fabrics only. */
  maxSglDescriptors: u8(1803, 'msdbd'),
  /** OFCS: optional fabrics commands. */
  optionalFabricsCommands: u16(1804, 'ofcs'),
};

/** A power state descriptor (NVMe base 2.0, figure "Power State Descriptor Data Structure"). */
const powerLayout = {
  /** MP: greatest power, in units of 10 mW, or of 0.1 mW when {@link maxPowerScale} is 1. */
  maxPower: u16(0, 'mp'),
  /** MXPS */
  maxPowerScale: byteBits(3, 0, 1, 'mxps'),
  /** NOPS: 1 for a state in which no I/O is done. */
  nonOperational: byteBits(3, 1, 1, 'nops'),
  /** ENLAT: entry latency in microseconds. */
  entryLatency: u32(4, 'enlat'),
  /** EXLAT: exit latency in microseconds. */
  exitLatency: u32(8, 'exlat'),
  /** RRT: rank among the states by read throughput. */
  readThroughput: byteBits(12, 0, 5, 'rrt'),
  /** RRL */
  readLatency: byteBits(13, 0, 5, 'rrl'),
  /** RWT */
  writeThroughput: byteBits(14, 0, 5, 'rwt'),
  /** RWL */
  writeLatency: byteBits(15, 0, 5, 'rwl'),
  /** IDLP: idle power, see {@link idlePowerScale}. */
  idlePower: u16(16, 'idlp'),
  /** IPS: 0 not reported, 1 units of 0.1 mW, 2 units of 10 mW. */
  idlePowerScale: byteBits(18, 6, 2, 'ips'),
  /** ACTP: active power, see {@link activePowerScale}. */
  activePower: u16(20, 'actp'),
  /** APW: workload of {@link activePower}. */
  activePowerWorkload: byteBits(22, 0, 3, 'apw'),
  /** APS: scale as {@link idlePowerScale}. */
  activePowerScale: byteBits(22, 6, 2, 'aps'),
};

/** A decoded power state. */
export type PowerState = Decoded<typeof powerLayout>;

/** Decoded Identify Controller. Its field comments name the mnemonics of the specification. */
export type IdentifyController = Decoded<typeof layout> & {
  /** PSD0 to PSDn; NPSS is the number of these less one. */
  readonly powerStates: readonly PowerState[];
};

/** nvme-cli's JSON key of each field of {@link IdentifyController}, in the order of the structure. */
export const IDENTIFY_CONTROLLER_MNEMONICS = mnemonics(layout);
/** nvme-cli's JSON key of each field of {@link PowerState}. */
export const POWER_STATE_MNEMONICS = mnemonics(powerLayout);

/** Bits of OACS. */
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

/** Bits of ONCS. */
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

/** Bits of OAES. */
export const OptionalEvents = {
  namespaceAttributes: 0x100,
  firmwareActivation: 0x200,
  anaChange: 0x800,
} as const;

/** Bits of LPA. */
export const LogPageAttributes = {
  smartPerNamespace: 0x01,
  commandEffects: 0x02,
  extendedData: 0x04,
  telemetry: 0x08,
  persistentEvents: 0x10,
  /** Supported log pages, feature effects and others: pages 00h, 12h and 13h. */
  miscellaneous: 0x20,
} as const;

const NPSS = 263;
const POWER_STATES = 2048;
const POWER_STATE_BYTES = 32;
const MAX_POWER_STATES = 32;

/**
 * Decodes Identify Controller.
 * @throws VfioUserError `ERR_VFIO_USER_NVME_CONTROLLER` when there are fewer than 4096 bytes
 */
export function decodeIdentifyController(bytes: Uint8Array): IdentifyController {
  const view = structView(bytes, IDENTIFY_BYTES, 'Identify Controller');
  // NPSS is a byte of the peer's, but there are only 32 descriptors.
  const count = Math.min(view.getUint8(NPSS) + 1, MAX_POWER_STATES);
  return {
    ...decodeLayout(layout, view),
    powerStates: Array.from({ length: count }, (_, i) => decodeLayout(powerLayout, powerStateView(view, i))),
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
export type IdentifyControllerInput = Partial<Decoded<typeof layout>> & {
  readonly powerStates?: readonly Partial<PowerState>[];
};

/** Encodes the 4096 bytes of Identify Controller. */
export function encodeIdentifyController(input: IdentifyControllerInput): Uint8Array {
  const bytes = new Uint8Array(IDENTIFY_BYTES);
  const view = new DataView(bytes.buffer);
  const { powerStates = [{}], ...fields } = input;
  if (powerStates.length < 1 || powerStates.length > MAX_POWER_STATES) {
    throw outOfRange(`${powerStates.length} power states; a controller has 1 to ${MAX_POWER_STATES}`);
  }
  encodeLayout(layout, view, { serialNumber: '', modelNumber: '', firmwareRevision: '', ...fields });
  view.setUint8(NPSS, powerStates.length - 1);
  powerStates.forEach((state, i) => {
    encodeLayout(powerLayout, powerStateView(view, i), state);
  });
  return bytes;
}

/**
 * Greatest transfer of a command in bytes: `Infinity` when MDTS sets no limit.
 * @param mdts Identify Controller MDTS
 * @param minPageSize CAP.MPSMIN in bytes
 */
export function maxTransferSize(mdts: number, minPageSize: number): number {
  return mdts === 0 ? Infinity : minPageSize * 2 ** mdts;
}
