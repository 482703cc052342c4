// SPDX-License-Identifier: MIT
import { pagesLimit, type DatasetRange } from '../spec';
import type { NvmeAdmin } from './admin';

/** Limits of a command that has no data buffer (Identify Controller of the NVM command set). */
export interface CommandLimits {
  /** WZSL: bytes of Write Zeroes. */
  readonly zeroBytes: number;
  /** VSL: bytes of Verify. */
  readonly verifyBytes: number;
  /** WUSL: bytes of Write Uncorrectable. */
  readonly uncorrectableBytes: number;
  /** DMRL: ranges of Dataset Management. */
  readonly ranges: number;
  /** DMRSL: blocks of a range of Dataset Management. */
  readonly rangeBlocks: number;
  /** DMSL: blocks of Dataset Management. */
  readonly blocks: number;
}

/** What the fields of the commands hold (NVM command set 1.0, 3.2.3). */
export const NO_LIMITS: CommandLimits = {
  zeroBytes: Infinity,
  verifyBytes: Infinity,
  uncorrectableBytes: Infinity,
  ranges: 256,
  rangeBlocks: 0xffff_ffff,
  blocks: Infinity,
};

/**
 * Asks for the limits.
 *
 * @param minPageSize of the controller, in bytes: the unit of some of them
 */
export async function askCommandLimits(admin: NvmeAdmin, minPageSize: number): Promise<CommandLimits> {
  const { vsl, wzsl, wusl, dmrl, dmrsl, dmsl } = await admin.identifyNvmController();
  return {
    zeroBytes: pagesLimit(wzsl, minPageSize),
    verifyBytes: pagesLimit(vsl, minPageSize),
    uncorrectableBytes: pagesLimit(wusl, minPageSize),
    ranges: dmrl || NO_LIMITS.ranges,
    rangeBlocks: dmrsl || NO_LIMITS.rangeBlocks,
    blocks: Number(dmsl) || NO_LIMITS.blocks,
  };
}

/**
 * The ranges of each Dataset Management command, one command after the other, since the controller sets the limits. SPDK's
 * target skips what is beyond them, and reports success.
 */
export function* splitRanges(
  ranges: readonly DatasetRange[],
  limits: CommandLimits,
): Generator<DatasetRange[]> {
  let command: DatasetRange[] = [];
  let room = limits.blocks;
  for (let { lba, blocks } of ranges) {
    while (blocks > 0) {
      const part = Math.min(blocks, limits.rangeBlocks, room);
      command.push({ lba, blocks: part });
      lba += part;
      blocks -= part;
      room -= part;
      if (command.length < limits.ranges && room > 0) continue;
      yield command;
      command = [];
      room = limits.blocks;
    }
  }
  if (command.length > 0) yield command;
}
