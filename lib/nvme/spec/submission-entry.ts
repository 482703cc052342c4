// SPDX-License-Identifier: MIT
import { outOfRange } from '../../errors';
import { bits, highWord, joinWords, wordCodec } from './bits';

/** Words of a submission queue entry. */
export const SQE_WORDS = 16;
/** Bytes of a submission queue entry. */
export const SQE_BYTES = 64;
/** CC.IOSQES for {@link SQE_BYTES}. */
export const SQE_SIZE_EXPONENT = 6;

/** Index of each 32-bit word of a submission queue entry (NVMe base 2.0, 3.3.3.1, "Common Command Format"). @enum */
export const SqeWord = {
  /** Opcode 7:0, FUSE 9:8, PSDT 15:14, command id 31:16. */
  cdw0: 0,
  /** Namespace id. */
  nsid: 1,
  cdw2: 2,
  cdw3: 3,
  /** Metadata pointer, bits 31:0. */
  mptrLow: 4,
  /** Metadata pointer, bits 63:32. */
  mptrHigh: 5,
  prp1Low: 6,
  prp1High: 7,
  prp2Low: 8,
  prp2High: 9,
  cdw10: 10,
  cdw11: 11,
  cdw12: 12,
  cdw13: 13,
  cdw14: 14,
  cdw15: 15,
} as const;

/** PRP or SGL for data transfer (PSDT). @enum */
export const Psdt = {
  /** PRPs. */
  prp: 0,
  /** SGLs; the metadata is one contiguous buffer. */
  sglContiguousMetadata: 1,
  /** SGLs, for the metadata too. */
  sglMetadataSgl: 2,
} as const;

/** A command (NVMe base 2.0, 3.3.3.1). Fields that are not given are 0. Dwords have 32 bits, addresses are below 2^53. */
export interface Command {
  /** Opcode, 0 to 255. */
  readonly opcode: number;
  /** FUSE: fused operation, 0 for none. */
  readonly fuse?: number;
  /** PSDT: how the data pointer is to be read, a value of {@link Psdt}. */
  readonly psdt?: number;
  /** CID, 0 to 65535. FFFFh is not used: the error log means "no command" by it. */
  readonly cid?: number;
  /** Namespace id, dword 1. */
  readonly nsid?: number;
  /** Dword 2. */
  readonly cdw2?: number;
  /** Dword 3. */
  readonly cdw3?: number;
  /** MPTR: device address of the metadata. */
  readonly metadata?: number;
  /** PRP entry 1: device address of the data. */
  readonly prp1?: number;
  /** PRP entry 2: device address of the second page, or of the list of the further pages. */
  readonly prp2?: number;
  /** Dword 10. */
  readonly cdw10?: number;
  /** Dword 11. */
  readonly cdw11?: number;
  /** Dword 12. */
  readonly cdw12?: number;
  /** Dword 13. */
  readonly cdw13?: number;
  /** Dword 14. */
  readonly cdw14?: number;
  /** Dword 15. */
  readonly cdw15?: number;
}

const cdw0 = wordCodec({ opcode: bits(0, 8), fuse: bits(8, 2), psdt: bits(14, 2), cid: bits(16, 16) });

const PLAIN_WORDS = ['nsid', 'cdw2', 'cdw3', 'cdw10', 'cdw11', 'cdw12', 'cdw13', 'cdw14', 'cdw15'] as const;
const ADDRESSES = [
  ['metadata', SqeWord.mptrLow],
  ['prp1', SqeWord.prp1Low],
  ['prp2', SqeWord.prp2Low],
] as const;

function checkEntry(words: Uint32Array, index: number): void {
  if (!Number.isInteger(index) || index < 0 || index + SQE_WORDS > words.length) {
    throw outOfRange(`A submission queue entry at word ${index} does not fit ${words.length} words`);
  }
}

/**
 * Writes all 16 words of a command. For the admin queue and other cold paths: a driver's loop stores the words itself.
 *
 * @param words memory of the queue
 * @param index word at which the entry begins, a multiple of 16
 * @throws RangeError when a field does not fit; then nothing is written
 */
export function encodeCommand(words: Uint32Array, index: number, command: Command): void {
  checkEntry(words, index);
  const entry = new Uint32Array(SQE_WORDS);
  const { opcode, fuse = 0, psdt = 0, cid = 0 } = command;
  entry[SqeWord.cdw0] = cdw0.encode({ opcode, fuse, psdt, cid });
  for (const name of PLAIN_WORDS) {
    const value = command[name] ?? 0;
    if (!Number.isInteger(value) || value < 0 || value > 0xffff_ffff) {
      throw outOfRange(`${name} is ${value}; it must be an integer of 32 bits`);
    }
    entry[SqeWord[name]] = value;
  }
  for (const [name, low] of ADDRESSES) {
    const value = command[name] ?? 0;
    if (!Number.isSafeInteger(value) || value < 0) {
      throw outOfRange(`${name} is ${value}; it must be an address below 2^53`);
    }
    entry[low] = value >>> 0;
    entry[low + 1] = highWord(value);
  }
  words.set(entry, index);
}

/**
 * Reads a command. Each word is read once, since the other side may be writing. An address of 2^53 or more is
 * rounded, and stays at or above 2^53, where this package maps nothing.
 *
 * @throws RangeError when the entry is not within `words`
 */
export function decodeCommand(words: Uint32Array, index: number): Required<Command> {
  checkEntry(words, index);
  const entry = words.slice(index, index + SQE_WORDS);
  const word = (i: number): number => entry[i] as number;
  return {
    ...cdw0.decode(word(SqeWord.cdw0)),
    nsid: word(SqeWord.nsid),
    cdw2: word(SqeWord.cdw2),
    cdw3: word(SqeWord.cdw3),
    metadata: joinWords(word(SqeWord.mptrLow), word(SqeWord.mptrHigh)),
    prp1: joinWords(word(SqeWord.prp1Low), word(SqeWord.prp1High)),
    prp2: joinWords(word(SqeWord.prp2Low), word(SqeWord.prp2High)),
    cdw10: word(SqeWord.cdw10),
    cdw11: word(SqeWord.cdw11),
    cdw12: word(SqeWord.cdw12),
    cdw13: word(SqeWord.cdw13),
    cdw14: word(SqeWord.cdw14),
    cdw15: word(SqeWord.cdw15),
  };
}
