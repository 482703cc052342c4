// SPDX-License-Identifier: MIT
import { NvmOpcode } from '../spec/opcodes';
import { SqeWord } from '../spec/submission-entry';
import { FUSE, startBlock } from './io-words';
import { Outcome, type Reply } from './outcome';

/** FUSE of the first and of the second of two fused commands. */
export const FUSED_FIRST = 0x100;
export const FUSED_SECOND = 0x200;

const BLOCKS = 0xffff;

/**
 * Takes the fused bits from two commands, so that each is a command of its own.
 * @returns whether they are what the NVM command set has: a Compare, and a Write of the same blocks (NVM command set 1.0, 3.2.1)
 */
export function unfuse(first: Int32Array, second: Int32Array): boolean {
  for (const words of [first, second]) words[0] = (words[0] as number) & ~FUSE;
  const opcode = (words: Int32Array): number => (words[0] as number) & 0xff;
  const blocks = (words: Int32Array): number => (words[SqeWord.cdw12] as number) & BLOCKS;
  return (
    opcode(first) === NvmOpcode.compare &&
    opcode(second) === NvmOpcode.write &&
    first[SqeWord.nsid] === second[SqeWord.nsid] &&
    startBlock(first, 0) === startBlock(second, 0) &&
    blocks(first) === blocks(second)
  );
}

/** Runs the second of two commands if the first has succeeded (NVMe base 2.0, 3.4.2). */
export async function runFused(first: () => Promise<Reply>, second: () => Promise<Reply>): Promise<Reply> {
  const compared = await first();
  if (compared.outcome !== Outcome.success) return { ...compared, second: Outcome.abortedFailedFused };
  return { outcome: Outcome.success, second: (await second()).outcome };
}
