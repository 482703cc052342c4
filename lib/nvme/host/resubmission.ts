// SPDX-License-Identifier: MIT
import { invalidArgument } from '../../errors';
import { NvmOpcode } from '../spec/opcodes';

/**
 * Which I/O commands that were in flight when the connection was lost are submitted again to the controller that comes back.
 *
 * - `none`: all fail with ERR_VFIO_USER_DISCONNECTED.
 * - `reads`: Read, Compare and Verify, which change nothing.
 * - `reads-and-writes`: also Write, Write Zeroes, Write Uncorrectable and Dataset Management, which leave the same behind when
 *   they are carried out twice. Only for callers that rely on no order among the commands in flight, as NVMe promises none
 *   (NVMe base 2.0, 3.4.1), and that share the blocks with nobody else: what another host has written since is overwritten.
 *
 * No policy repeats a Flush, whose success would tell of a cache that is gone, or a command of another kind.
 */
export type ResubmitPolicy = 'none' | 'reads' | 'reads-and-writes';

const READS: readonly number[] = [NvmOpcode.read, NvmOpcode.compare, NvmOpcode.verify];
const WRITES: readonly number[] = [
  NvmOpcode.write,
  NvmOpcode.writeZeroes,
  NvmOpcode.writeUncorrectable,
  NvmOpcode.datasetManagement,
];

/**
 * The opcodes that a policy repeats.
 *
 * @throws TypeError ERR_INVALID_ARG_VALUE for what is no policy
 */
export function repeatedOpcodes(policy: ResubmitPolicy): ReadonlySet<number> {
  switch (policy) {
    case 'none':
      return new Set();
    case 'reads':
      return new Set(READS);
    case 'reads-and-writes':
      return new Set([...READS, ...WRITES]);
    default:
      throw invalidArgument(`There is no resubmit ${String(policy)}: none, reads or reads-and-writes`);
  }
}
