// SPDX-License-Identifier: MIT
import { outOfRange } from '../../errors';

/** Words of a completion queue entry. */
export const CQE_WORDS = 4;
/** Bytes of a completion queue entry. */
export const CQE_BYTES = 16;
/** CC.IOCQES for {@link CQE_BYTES}. */
export const CQE_SIZE_EXPONENT = 4;

/** Index of each 32-bit word of a completion queue entry (NVMe base 2.0, 3.3.3.2). */
export const CqeWord = {
  /** Command specific result. */
  dw0: 0,
  /** Command specific result, upper half where a command has one. */
  dw1: 1,
  /** SQHD 15:0, SQID 31:16. */
  queue: 2,
  /** Command id 15:0, phase tag 16, status 31:17. Written last, so that a new phase means a whole entry. */
  status: 3,
} as const;

/** Shift of the phase tag in {@link CqeWord.status}. */
export const CQE_PHASE_SHIFT = 16;
/** Shift of the 15-bit status field in {@link CqeWord.status}. */
export const CQE_STATUS_SHIFT = 17;

/** A completion. */
export interface Completion {
  readonly dw0: number;
  readonly dw1: number;
  /** SQHD: submission queue head, the entries before it are free. */
  readonly sqHead: number;
  /** SQID */
  readonly sqId: number;
  /** CID of the completed command. */
  readonly cid: number;
  /** Phase tag, inverted by the controller at each pass through the queue. */
  readonly phase: 0 | 1;
  /** 15-bit status field; 0 is success. See `decodeStatus`. */
  readonly status: number;
}

function checkEntry(words: Uint32Array, index: number): void {
  if (!Number.isInteger(index) || index < 0 || index + CQE_WORDS > words.length) {
    throw outOfRange(`A completion queue entry at word ${index} does not fit ${words.length} words`);
  }
}

/** Reads a completion that begins at word `index`. */
export function decodeCompletion(words: Uint32Array, index: number): Completion {
  checkEntry(words, index);
  // The status word first: what is read after a new phase was seen is the new entry.
  const status = words[index + CqeWord.status] as number;
  const queue = words[index + CqeWord.queue] as number;
  return {
    dw0: words[index + CqeWord.dw0] as number,
    dw1: words[index + CqeWord.dw1] as number,
    sqHead: queue & 0xffff,
    sqId: queue >>> 16,
    cid: status & 0xffff,
    phase: ((status >>> CQE_PHASE_SHIFT) & 1) as 0 | 1,
    status: status >>> CQE_STATUS_SHIFT,
  };
}

/** Last word of a completion, which publishes the entry. Arguments are not checked: for hot paths. */
export function completionStatusWord(cid: number, phase: number, status: number): number {
  return ((status << CQE_STATUS_SHIFT) | (phase << CQE_PHASE_SHIFT) | cid) >>> 0;
}

/** Writes a completion, the status word last. The caller orders the stores against the reader (`Atomics.store`). */
export function encodeCompletion(words: Uint32Array, index: number, completion: Completion): void {
  checkEntry(words, index);
  const { dw0, dw1, sqHead, sqId, cid, phase, status } = completion;
  for (const [name, value, limit] of [
    ['dw0', dw0, 0xffff_ffff],
    ['dw1', dw1, 0xffff_ffff],
    ['sqHead', sqHead, 0xffff],
    ['sqId', sqId, 0xffff],
    ['cid', cid, 0xffff],
    ['status', status, 0x7fff],
  ] as const) {
    if (!Number.isInteger(value) || value < 0 || value > limit) {
      throw outOfRange(`${name} is ${value}; it must be an integer from 0 to ${limit}`);
    }
  }
  words[index + CqeWord.dw0] = dw0;
  words[index + CqeWord.dw1] = dw1;
  words[index + CqeWord.queue] = ((sqId << 16) | sqHead) >>> 0;
  words[index + CqeWord.status] = completionStatusWord(cid, phase, status);
}
