// SPDX-License-Identifier: MIT
import { highWord, joinWords } from './bits';
import { GenericStatus } from './status';
import { SqeWord } from './submission-entry';

/**
 * Scatter gather lists (NVMe base 2.0, 4.1.2). The command holds one descriptor: a data block, which is one buffer whose
 * device addresses are contiguous, of any length and without a list in memory; or a segment, which is a list of more.
 */

/** SGL identifier, the last byte of a descriptor: type in bits 7:4, subtype in 3:0, of which 0 is an address. */
const DATA_BLOCK = 0x00;
const SEGMENT = 0x20;
const LAST_SEGMENT = 0x30;
const IDENTIFIER_SHIFT = 24;

/** Bytes of a descriptor. */
const DESCRIPTOR_BYTES = 16;

/**
 * Most descriptors in segments that {@link walkSgl} follows, those of the segments with them. Twice what hosts send:
 * Linux fills one page at most, SPDK a little less.
 */
export const MAX_SGL_DESCRIPTORS = 512;

/** Whether a controller takes SGLs whose data begins at multiples of 4 (Identify Controller, SGLS bits 1:0). */
export function takesSgl(sgls: number): boolean {
  const support = sgls & 3;
  return support === 1 || support === 2;
}

/**
 * Stores a data block descriptor into a submission entry, whose PSDT the caller sets to `Psdt.sglContiguousMetadata`.
 * Arguments are not checked.
 *
 * @param words memory of the submission queue, or of other data pointers
 * @param index word at which the data pointer (PRP1) begins
 * @param address device address of the data, a multiple of 4
 * @param length bytes, 1 to 2^32 - 1
 */
export function storeSglDataBlock(words: Uint32Array, index: number, address: number, length: number): void {
  words[index] = address >>> 0;
  words[index + 1] = highWord(address);
  words[index + 2] = length;
  words[index + 3] = DATA_BLOCK << IDENTIFIER_SHIFT;
}

/** Words of a data pointer: PRP1 and PRP2, or one SGL descriptor. */
export const DATA_POINTER_WORDS = SqeWord.cdw10 - SqeWord.prp1Low;

/**
 * Reads an SGL segment of `words` words. Undefined when there is no such memory. The memory belongs to the host, and
 * may change: it is asked for, and read, once.
 */
export type SglSegmentReader = (address: number, words: number) => Uint32Array | undefined;

/**
 * Walks the data blocks of a command in order, on the side of the controller. All of the arguments before `length` are the
 * host's, from the descriptor in the command.
 *
 * The descriptors to be read are limited, so that segments that a hostile host ties into a ring come to an end.
 *
 * @param address of the data or of the segment
 * @param size its bytes
 * @param lastWord the word with the SGL identifier in its highest byte
 * @param length bytes of data, at least 1; the data blocks must have just as many
 * @param visit called for each data block in order. What it refuses it handles itself
 * @returns a generic status code: `success`; `sglTypeInvalid`, `dataSglLengthInvalid`, `invalidSglSegment` and
 *   `invalidSglCount` as the specification has them (NVMe base 2.0, 3.3.3.2.1), the last one for too many descriptors as
 *   well; `dataTransferError` when a segment cannot be read or an address is 2^53 or more. Blocks before the fault may
 *   have been visited
 */
export function walkSgl(
  address: number,
  size: number,
  lastWord: number,
  length: number,
  readSegment: SglSegmentReader,
  visit: (address: number, length: number) => void,
): number {
  let identifier = lastWord >>> IDENTIFIER_SHIFT;
  if (identifier === DATA_BLOCK) {
    if (size !== length) return GenericStatus.dataSglLengthInvalid;
    if (address > Number.MAX_SAFE_INTEGER - size) return GenericStatus.dataTransferError;
    visit(address, size);
    return GenericStatus.success;
  }
  if (!isSegment(identifier)) return GenericStatus.sglTypeInvalid;

  let left = length;
  let budget = MAX_SGL_DESCRIPTORS;
  for (;;) {
    if (size === 0 || size % DESCRIPTOR_BYTES !== 0 || address % 8 !== 0)
      return GenericStatus.invalidSglSegment;
    if (address > Number.MAX_SAFE_INTEGER - size) return GenericStatus.dataTransferError;
    const count = size / DESCRIPTOR_BYTES;
    budget -= count;
    if (budget < 0) return GenericStatus.invalidSglCount;
    const words = readSegment(address, 4 * count);
    if (words === undefined || words.length < 4 * count) return GenericStatus.dataTransferError;
    const within = identifier;
    identifier = DATA_BLOCK;
    for (let at = 0; at < 4 * count; at += 4) {
      // A segment has been seen that is not at the end.
      if (identifier !== DATA_BLOCK) return GenericStatus.invalidSglCount;
      address = joinWords(words[at] as number, words[at + 1] as number);
      size = words[at + 2] as number;
      identifier = (words[at + 3] as number) >>> IDENTIFIER_SHIFT;
      if (identifier === DATA_BLOCK) {
        if (size > left) return GenericStatus.dataSglLengthInvalid;
        if (address > Number.MAX_SAFE_INTEGER - size) return GenericStatus.dataTransferError;
        if (size > 0) visit(address, size);
        left -= size;
      } else if (!isSegment(identifier)) return GenericStatus.sglTypeInvalid;
      else if (within === LAST_SEGMENT) return GenericStatus.invalidSglSegment;
    }
    // Without another segment this was the last, whatever it was called.
    if (identifier === DATA_BLOCK)
      return left === 0 ? GenericStatus.success : GenericStatus.dataSglLengthInvalid;
  }
}

function isSegment(identifier: number): boolean {
  return identifier === SEGMENT || identifier === LAST_SEGMENT;
}
