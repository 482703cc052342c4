// SPDX-License-Identifier: MIT
import { VfioUserError, outOfRange } from '../../errors';
import { IDENTIFY_BYTES } from './identify-controller';
import {
  type Decoded,
  decodeLayout,
  encodeLayout,
  hex,
  safeU64,
  structView,
  u128,
  u16,
  u32,
  u8,
} from './layout';

const layout = {
  /** Size in logical blocks; 0 for a namespace that is not active. */
  nsze: safeU64(0),
  /** Blocks that may be allocated. */
  ncap: safeU64(8),
  /** Blocks that are allocated. */
  nuse: safeU64(16),
  /** Namespace features, a mask of {@link NamespaceFeatures}. */
  nsfeat: u8(24),
  /** Number of LBA formats, 0's based. */
  nlbaf: u8(25),
  /** Format in use: bits 3:0 are the index in `lbafs`, bits 6:5 its upper bits; bit 4 is metadata at the end of each block. */
  flbas: u8(26),
  /** Metadata capabilities; bit 0 extended blocks, bit 1 separate buffer. */
  mc: u8(27),
  /** Protection information capabilities. */
  dpc: u8(28),
  /** Protection information in use; bits 2:0 are the type, 0 for none. */
  dps: u8(29),
  /** Multi-path and sharing; bit 0 is a shared namespace. */
  nmic: u8(30),
  /** Reservations. */
  rescap: u8(31),
  /** Progress of Format NVM. */
  fpi: u8(32),
  /** Deallocated blocks; bits 2:0 are 0 not reported, 1 read zeros, 2 read FFh; bit 3 DEAC of Write Zeroes. */
  dlfeat: u8(33),
  /** Blocks written atomically, 0's based. */
  nawun: u16(34),
  /** Blocks written atomically across a power failure, 0's based. */
  nawupf: u16(36),
  /** Blocks of fused compare and write, 0's based. */
  nacwu: u16(38),
  /** Blocks of an atomic boundary, 0's based; 0 for none. */
  nabsn: u16(40),
  /** First block at which an atomic boundary lies. */
  nabo: u16(42),
  /** Blocks of an atomic boundary across a power failure, 0's based; 0 for none. */
  nabspf: u16(44),
  /** Optimal I/O boundary in blocks; 0 when not reported. */
  noiob: u16(46),
  /** Size in bytes; 0 when not reported. */
  nvmcap: u128(48),
  /** Preferred write granularity in blocks, 0's based. */
  npwg: u16(64),
  /** Preferred write alignment in blocks, 0's based. */
  npwa: u16(66),
  /** Preferred deallocate granularity in blocks, 0's based. */
  npdg: u16(68),
  /** Preferred deallocate alignment in blocks, 0's based. */
  npda: u16(70),
  /** Optimal write size in blocks, 0's based. */
  nows: u16(72),
  /** Greatest length of a source range of Copy in blocks. */
  mssrl: u16(74),
  /** Greatest length of a Copy in blocks. */
  mcl: u32(76),
  /** Source ranges of a Copy, 0's based. */
  msrc: u8(80),
  /** Id of the ANA group; 0 for none. */
  anagrpid: u32(92),
  /** Namespace attributes; bit 0 is write protected. */
  nsattr: u8(99),
  /** Id of the NVM set; 0 when not reported. */
  nvmsetid: u16(100),
  /** Id of the endurance group; 0 when not reported. */
  endgid: u16(102),
  /** Globally unique id, 16 bytes in hexadecimal; zeros when there is none. */
  nguid: hex(104, 16),
  /** IEEE extended unique id, 8 bytes in hexadecimal; zeros when there is none. */
  eui64: hex(120, 8),
};

/** A format of the logical blocks (NVM command set 1.0, figure "LBA Format Data Structure"). */
export interface LbaFormat {
  /** Bytes of metadata of each block. */
  readonly ms: number;
  /** Bytes of data of each block, as a power of two from 9; 0 when the format is not available. */
  readonly ds: number;
  /** Relative performance: 0 best, 3 worst. */
  readonly rp: number;
}

/**
 * What Identify Namespace returns (CNS 00h; NVM command set 1.0, figure "Identify Namespace Data Structure"). The fields have
 * nvme-cli's JSON keys, the mnemonics of the specification in lower case.
 */
export interface IdentifyNamespace extends Decoded<typeof layout> {
  /** The formats that the namespace can have, of which there are `nlbaf` + 1. */
  readonly lbafs: readonly LbaFormat[];
}

/** Bits of `nsfeat` of {@link IdentifyNamespace}. @enum */
export const NamespaceFeatures = {
  /** Blocks are allocated when they are written. */
  thinProvisioning: 0x01,
  /** The fields `nawun`, `nawupf` and `nacwu` are valid. */
  atomicWriteUnits: 0x02,
  /** Reads of deallocated blocks may be made to fail. */
  deallocatedError: 0x04,
  /** NGUID and EUI-64 are never used for another namespace. */
  idsNeverReused: 0x08,
  /** The fields `npwg`, `npwa`, `npdg`, `npda` and `nows` are valid. */
  optimalPerformance: 0x10,
} as const;

const LBA_FORMATS = 128;
const MAX_LBA_FORMATS = 64;

/**
 * Decodes Identify Namespace.
 * @throws VfioUserError `ERR_VFIO_USER_NVME_CONTROLLER` when there are fewer than 4096 bytes,
 *   `ERR_VFIO_USER_UNSUPPORTED` when a size is above 2^53 - 1 blocks
 */
export function decodeIdentifyNamespace(bytes: Uint8Array): IdentifyNamespace {
  const view = structView(bytes, IDENTIFY_BYTES, 'Identify Namespace');
  const fields = decodeLayout(layout, view);
  // NLBAF is a byte of the peer's, but there are only 64 formats.
  const count = Math.min(fields.nlbaf + 1, MAX_LBA_FORMATS);
  return {
    ...fields,
    lbafs: Array.from({ length: count }, (_, i) => {
      const word = view.getUint32(LBA_FORMATS + 4 * i, true);
      return { ms: word & 0xffff, ds: (word >>> 16) & 0xff, rp: (word >>> 24) & 3 };
    }),
  };
}

/** What {@link encodeIdentifyNamespace} takes: fields that are not given are zero. */
export type IdentifyNamespaceInput = Partial<Omit<Decoded<typeof layout>, 'nlbaf'>> & {
  readonly lbafs: readonly LbaFormat[];
};

/** Encodes the 4096 bytes of Identify Namespace. NLBAF follows from the formats, of which there are 1 to 64. */
export function encodeIdentifyNamespace({ lbafs, ...fields }: IdentifyNamespaceInput): Uint8Array {
  const bytes = new Uint8Array(IDENTIFY_BYTES);
  const view = new DataView(bytes.buffer);
  if (lbafs.length < 1 || lbafs.length > MAX_LBA_FORMATS) {
    throw outOfRange(`${lbafs.length} LBA formats; a namespace has 1 to ${MAX_LBA_FORMATS}`);
  }
  encodeLayout(layout, view, { ...fields, nlbaf: lbafs.length - 1 });
  lbafs.forEach(({ ms, ds, rp }, i) => {
    if (ds !== 0 && !isBlockExponent(ds)) {
      throw outOfRange(`LBA format ${i} has blocks of 2^${ds} bytes; they must have 2^9 to 2^31`);
    }
    if (!Number.isInteger(ms) || ms < 0 || ms > 0xffff) {
      throw outOfRange(`LBA format ${i} has ${ms} bytes of metadata; at most 65535 are possible`);
    }
    if (![0, 1, 2, 3].includes(rp)) {
      throw outOfRange(`LBA format ${i} has the relative performance ${rp}; it must be 0 to 3`);
    }
    view.setUint32(LBA_FORMATS + 4 * i, ms | (ds << 16) | (rp << 24), true);
  });
  return bytes;
}

/**
 * The format in use. Its index is FLBAS bits 3:0, and bits 6:5 above them when there are more than 16 formats.
 * @throws VfioUserError `ERR_VFIO_USER_NVME_CONTROLLER` when FLBAS names a format that does not exist, or one whose
 *   blocks are not a power of two from 512 bytes to 2 GiB
 */
export function currentLbaFormat({ flbas, lbafs }: IdentifyNamespace): LbaFormat {
  const index = (flbas & 0xf) | (lbafs.length > 16 ? ((flbas >>> 5) & 3) << 4 : 0);
  const format = lbafs[index];
  if (format === undefined || !isBlockExponent(format.ds)) {
    throw new VfioUserError(
      'ERR_VFIO_USER_NVME_CONTROLLER',
      `The namespace uses LBA format ${index} of ${lbafs.length}, ` +
        (format === undefined ? 'which does not exist' : `whose blocks are 2^${format.ds} bytes`),
    );
  }
  return format;
}

/** Whether blocks of `2 ** ds` bytes are possible and supported. */
function isBlockExponent(ds: number): boolean {
  return Number.isInteger(ds) && ds >= 9 && ds <= 31;
}
