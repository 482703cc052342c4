// SPDX-License-Identifier: MIT
import { NvmOpcode } from '../spec/opcodes';

/** A command of an I/O queue until it is completed. */
export interface IoCommand {
  readonly opcode: number;
  readonly nsid: number;
  readonly lba: number;
  readonly cdw12: number;
  readonly address: number;
  readonly length: number;
  /** When it was sent, by the seconds of the watchdog. */
  since: number;
  /** Of a Flush: the acknowledged writes that it covers. */
  covered: number;
  /** FUSE: 0, or 1 and 2 for the first and second of two fused commands. */
  readonly fuse: 0 | 1 | 2;
  /** Of the first of two fused commands: the other, which is sent right behind it. */
  readonly second: IoCommand | undefined;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/**
 * A Compare and a Write of the same blocks, which are one operation (NVMe base 2.0, 3.4.2).
 *
 * @param expected device address of what is compared
 * @param replacement device address of what is written
 * @param begin is given the first of them, with the other
 * @returns settled when both are completed, as the first that failed
 */
export async function fusedPair(
  blocks: Pick<IoCommand, 'nsid' | 'lba' | 'cdw12' | 'length'>,
  expected: number,
  replacement: number,
  begin: (first: IoCommand) => void,
): Promise<void> {
  const shared = { ...blocks, since: 0, covered: 0 };
  let compared = Promise.resolve();
  const written = new Promise<void>((resolve, reject) => {
    const opcode = NvmOpcode.write;
    const second: IoCommand = {
      ...shared,
      opcode,
      address: replacement,
      fuse: 2,
      second: undefined,
      resolve,
      reject,
    };
    compared = new Promise((resolveFirst, rejectFirst) => {
      const settle = { resolve: resolveFirst, reject: rejectFirst };
      begin({ ...shared, opcode: NvmOpcode.compare, address: expected, fuse: 1, second, ...settle });
    });
  });
  // Both, also after a failure: the caller may release the buffers afterwards.
  const results = await Promise.allSettled([compared, written]);
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}

/** Rejects a command, and the one that is fused to it. */
export function rejectPair({ second, reject }: IoCommand, error: Error): void {
  reject(error);
  second?.reject(error);
}

/** What a command was about, for its error. */
export function detailOf({ opcode, nsid, lba, cdw12 }: IoCommand): string {
  switch (opcode) {
    case NvmOpcode.read:
    case NvmOpcode.write:
    case NvmOpcode.compare:
    case NvmOpcode.writeZeroes:
      return `LBA ${lba}, ${(cdw12 & 0xffff) + 1} blocks`;
    default:
      return `namespace ${nsid}`;
  }
}
