// SPDX-License-Identifier: MIT
import { VfioUserError, outOfRange } from '../../errors';
import { IDENTIFY_BYTES } from './identify-controller';
import {
  type Decoded,
  decodeLayout,
  encodeLayout,
  hex,
  mnemonics,
  safeU64,
  structView,
  u128,
  u16,
  u32,
  u8,
} from './layout';

/** Identify Namespace, CNS 00h (NVM command set 1.0, figure "Identify Namespace Data Structure"). */
const layout = {
  /** NSZE: size in logical blocks; 0 for a namespace that is not active. */
  size: safeU64(0, 'nsze'),
  /** NCAP: blocks that may be allocated. */
  capacity: safeU64(8, 'ncap'),
  /** NUSE: blocks that are allocated. */
  utilization: safeU64(16, 'nuse'),
  /** NSFEAT: a mask of {@link NamespaceFeatures}. */
  features: u8(24, 'nsfeat'),
  /** FLBAS: format in use, see {@link currentLbaFormat}; bit 4 is metadata at the end of each block. */
  formattedSize: u8(26, 'flbas'),
  /** MC: metadata capabilities; bit 0 extended blocks, bit 1 separate buffer. */
  metadataCapabilities: u8(27, 'mc'),
  /** DPC: protection information capabilities. */
  protectionCapabilities: u8(28, 'dpc'),
  /** DPS: protection information in use; bits 2:0 are the type, 0 for none. */
  protectionSettings: u8(29, 'dps'),
  /** NMIC: bit 0 is a shared namespace. */
  multipath: u8(30, 'nmic'),
  /** RESCAP: reservations. */
  reservations: u8(31, 'rescap'),
  /** FPI: progress of Format NVM. */
  formatProgress: u8(32, 'fpi'),
  /** DLFEAT: deallocated blocks; bits 2:0 are 0 not reported, 1 read zeros, 2 read FFh; bit 3 DEAC of Write Zeroes. */
  deallocation: u8(33, 'dlfeat'),
  /** NAWUN: blocks written atomically, 0's based. */
  atomicWriteUnit: u16(34, 'nawun'),
  /** NAWUPF */
  atomicWriteUnitPowerFail: u16(36, 'nawupf'),
  /** NACWU */
  atomicCompareWriteUnit: u16(38, 'nacwu'),
  /** NABSN: blocks of an atomic boundary, 0's based; 0 for none. */
  atomicBoundarySize: u16(40, 'nabsn'),
  /** NABO */
  atomicBoundaryOffset: u16(42, 'nabo'),
  /** NABSPF */
  atomicBoundarySizePowerFail: u16(44, 'nabspf'),
  /** NOIOB: optimal I/O boundary in blocks; 0 when not reported. */
  optimalIoBoundary: u16(46, 'noiob'),
  /** NVMCAP: size in bytes; 0 when not reported. */
  nvmCapacity: u128(48, 'nvmcap'),
  /** NPWG: preferred write granularity in blocks, 0's based. */
  preferredWriteGranularity: u16(64, 'npwg'),
  /** NPWA */
  preferredWriteAlignment: u16(66, 'npwa'),
  /** NPDG: preferred deallocate granularity in blocks, 0's based. */
  preferredDeallocateGranularity: u16(68, 'npdg'),
  /** NPDA */
  preferredDeallocateAlignment: u16(70, 'npda'),
  /** NOWS: optimal write size in blocks, 0's based. */
  optimalWriteSize: u16(72, 'nows'),
  /** MSSRL: greatest length of a source range of Copy in blocks. */
  maxCopyRange: u16(74, 'mssrl'),
  /** MCL: greatest length of a Copy in blocks. */
  maxCopyLength: u32(76, 'mcl'),
  /** MSRC: source ranges of a Copy, 0's based. */
  maxCopyRanges: u8(80, 'msrc'),
  /** ANAGRPID */
  anaGroupId: u32(92, 'anagrpid'),
  /** NSATTR: bit 0 is write protected. */
  attributes: u8(99, 'nsattr'),
  /** NVMSETID */
  nvmSetId: u16(100, 'nvmsetid'),
  /** ENDGID */
  enduranceGroupId: u16(102, 'endgid'),
  /** NGUID: 16 bytes in hexadecimal, zeros when there is none. */
  nguid: hex(104, 16, 'nguid'),
  /** EUI64: 8 bytes in hexadecimal, zeros when there is none. */
  eui64: hex(120, 8, 'eui64'),
};

/** A format of the logical blocks (LBAF). */
export interface LbaFormat {
  /** MS: bytes of metadata of each block. */
  readonly metadataSize: number;
  /** LBADS as bytes of data of each block, a power of two; 0 when the format is not available. */
  readonly dataSize: number;
  /** RP: 0 best, 3 worst. */
  readonly relativePerformance: number;
}

/** Decoded Identify Namespace. Its field comments name the mnemonics of the specification. */
export type IdentifyNamespace = Decoded<typeof layout> & {
  /** LBAF0 to LBAFn; NLBAF is the number of these less one. */
  readonly lbaFormats: readonly LbaFormat[];
};

/** nvme-cli's JSON key of each field of {@link IdentifyNamespace}, in the order of the structure. */
export const IDENTIFY_NAMESPACE_MNEMONICS = mnemonics(layout);

/** Bits of NSFEAT. */
export const NamespaceFeatures = {
  thinProvisioning: 0x01,
  atomicWriteUnits: 0x02,
  deallocatedError: 0x04,
  idsNeverReused: 0x08,
  optimalPerformance: 0x10,
} as const;

const NLBAF = 25;
const LBA_FORMATS = 128;
const MAX_LBA_FORMATS = 64;

/**
 * Decodes Identify Namespace.
 * @throws VfioUserError `ERR_VFIO_USER_NVME_CONTROLLER` when there are fewer than 4096 bytes,
 *   `ERR_VFIO_USER_UNSUPPORTED` when a size is above 2^53 - 1 blocks
 */
export function decodeIdentifyNamespace(bytes: Uint8Array): IdentifyNamespace {
  const view = structView(bytes, IDENTIFY_BYTES, 'Identify Namespace');
  // NLBAF is a byte of the peer's, but there are only 64 formats.
  const count = Math.min(view.getUint8(NLBAF) + 1, MAX_LBA_FORMATS);
  return {
    ...decodeLayout(layout, view),
    lbaFormats: Array.from({ length: count }, (_, i) => {
      const word = view.getUint32(LBA_FORMATS + 4 * i, true);
      const exponent = (word >>> 16) & 0xff;
      return {
        metadataSize: word & 0xffff,
        dataSize: exponent === 0 ? 0 : 2 ** exponent,
        relativePerformance: (word >>> 24) & 3,
      };
    }),
  };
}

/** What {@link encodeIdentifyNamespace} takes: fields that are not given are zero. */
export type IdentifyNamespaceInput = Partial<Decoded<typeof layout>> & {
  readonly lbaFormats: readonly LbaFormat[];
};

/** Encodes the 4096 bytes of Identify Namespace. */
export function encodeIdentifyNamespace(input: IdentifyNamespaceInput): Uint8Array {
  const bytes = new Uint8Array(IDENTIFY_BYTES);
  const view = new DataView(bytes.buffer);
  const { lbaFormats, ...fields } = input;
  if (lbaFormats.length < 1 || lbaFormats.length > MAX_LBA_FORMATS) {
    throw outOfRange(`${lbaFormats.length} LBA formats; a namespace has 1 to ${MAX_LBA_FORMATS}`);
  }
  encodeLayout(layout, view, fields);
  view.setUint8(NLBAF, lbaFormats.length - 1);
  lbaFormats.forEach(({ metadataSize, dataSize, relativePerformance }, i) => {
    const exponent = dataSize === 0 ? 0 : Math.log2(dataSize);
    if (!Number.isInteger(exponent) || (exponent !== 0 && exponent < 9) || exponent > 31) {
      throw outOfRange(
        `LBA format ${i} has blocks of ${dataSize} bytes; they must be a power of two from 512`,
      );
    }
    if (!Number.isInteger(metadataSize) || metadataSize < 0 || metadataSize > 0xffff) {
      throw outOfRange(`LBA format ${i} has ${metadataSize} bytes of metadata; at most 65535 are possible`);
    }
    if (![0, 1, 2, 3].includes(relativePerformance)) {
      throw outOfRange(
        `LBA format ${i} has the relative performance ${relativePerformance}; it must be 0 to 3`,
      );
    }
    view.setUint32(LBA_FORMATS + 4 * i, metadataSize | (exponent << 16) | (relativePerformance << 24), true);
  });
  return bytes;
}

/** Index of the format in use: FLBAS bits 3:0, and bits 6:5 above them when there are more than 16 formats. */
export function lbaFormatIndex(namespace: IdentifyNamespace): number {
  const flbas = namespace.formattedSize;
  return (flbas & 0xf) | (namespace.lbaFormats.length > 16 ? ((flbas >>> 5) & 3) << 4 : 0);
}

/**
 * The format in use.
 * @throws VfioUserError `ERR_VFIO_USER_NVME_CONTROLLER` when FLBAS names a format that does not exist, or one whose
 *   blocks are not a power of two from 512 bytes to 2 GiB
 */
export function currentLbaFormat(namespace: IdentifyNamespace): LbaFormat {
  const index = lbaFormatIndex(namespace);
  const format = namespace.lbaFormats[index];
  if (format === undefined || format.dataSize < 512 || format.dataSize > 0x8000_0000) {
    throw new VfioUserError(
      'ERR_VFIO_USER_NVME_CONTROLLER',
      `The namespace uses LBA format ${index} of ${namespace.lbaFormats.length}, ` +
        (format === undefined ? 'which does not exist' : `whose blocks are ${format.dataSize} bytes`),
    );
  }
  return format;
}
