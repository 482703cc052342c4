// SPDX-License-Identifier: MIT
/** What the words of an I/O command say. Each word is read once: the host may be writing. */
import { NvmOpcode } from '../spec/opcodes';
import { SqeWord } from '../spec/submission-entry';
import type { DataPointer, FetchedLists } from './data-pointer';
import type { Namespace } from './namespace';
import { Outcome } from './outcome';

const TWO_32 = 0x1_0000_0000;
/** FUSE, bits 9:8 of CDW0. */
export const FUSE = 0x300;
/** FUSE, and the upper bit of PSDT, 15:14: fused commands come in pairs, and SGLs of metadata are not offered. */
export const UNSUPPORTED_FLAGS = 0x8300;
/** DEAC, bit 25 of CDW12 of Write Zeroes: the blocks may be deallocated. */
export const DEALLOCATE = 1 << 25;
/** PSDT of 1: the data pointer is an SGL descriptor. */
const SGL = 0x4000;

/** Where the blocks of a command begin in the backend. When it is -1, {@link rangeOutcome} tells what is wrong. */
export function blockOffset(
  namespace: Namespace,
  words: Int32Array,
  at: number,
  cdw0: number,
  cdw12: number,
): number {
  const lba = startBlock(words, at);
  if ((cdw0 & UNSUPPORTED_FLAGS) !== 0) return -1;
  // An LBA of 2^53 or more is rounded, and stays beyond every namespace.
  return lba + (cdw12 & 0xffff) + 1 > namespace.blocks ? -1 : lba * namespace.blockSize;
}

/** What is wrong with a command that has no {@link blockOffset}. */
export function rangeOutcome(cdw0: number): number {
  return (cdw0 & UNSUPPORTED_FLAGS) !== 0 ? Outcome.invalidField : Outcome.lbaOutOfRange;
}

/** Finds the data of the command at word `at`. Returns an {@link Outcome}. */
export function resolveData(
  pointer: DataPointer,
  words: Int32Array,
  at: number,
  cdw0: number,
  length: number,
  lists?: FetchedLists,
): number {
  const toClient = (cdw0 & 0xff) === NvmOpcode.read;
  const first = address(words, at + SqeWord.prp1Low);
  const second = at + SqeWord.prp2Low;
  if ((cdw0 & SGL) === 0) return pointer.resolve(first, address(words, second), length, toClient, lists);
  const size = (words[second] as number) >>> 0;
  return pointer.resolveSgl(first, size, words[second + 1] as number, length, toClient, lists);
}

/** The 64-bit address in two words. What is rounded, from 2^53 on, does not become less than 2^53. */
function address(words: Int32Array | Uint32Array, at: number): number {
  return ((words[at + 1] as number) >>> 0) * TWO_32 + ((words[at] as number) >>> 0);
}

/** SLBA of Read, Write, Compare and Write Zeroes: CDW10 and CDW11. */
export function startBlock(words: Int32Array | Uint32Array, at: number): number {
  return address(words, at + SqeWord.cdw10);
}
