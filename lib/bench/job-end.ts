// SPDX-License-Identifier: MIT
import { NvmOpcode, nvmOpcodeName } from '../nvme/spec/opcodes';
import { decodeStatus, statusText } from '../nvme/spec/status';
import type { FailedCommand } from './job-queue';
import type { JobEnd } from './job-result';
import type { Verification } from './verification';

/** A device that has completed nothing for so long at the end of its job has stopped, rather than being slow. */
const SILENCE_MILLISECONDS = 1000;
const ADVICE = 'look at its server, or wait longer with --timeout';
const OPCODES = { read: NvmOpcode.read, write: NvmOpcode.write, trim: NvmOpcode.datasetManagement } as const;

/** The command that failed, where, and how. */
export function failureText({ status, direction, lba }: FailedCommand): string {
  const { sct, sc } = decodeStatus(status);
  const name = nvmOpcodeName(OPCODES[direction]);
  return `${name} at LBA ${lba}: ${statusText(sct, sc)}`;
}

/** A command completed with an error status. */
export function failedEnd(failed: FailedCommand): JobEnd {
  return { reason: 'failed', message: `failed ${failureText(failed)}` };
}

/** Data that was read back is not what was written. */
export function mismatchEnd({
  mismatches,
  verified,
  firstMismatch = '',
}: Pick<Verification, 'mismatches' | 'verified' | 'firstMismatch'>): JobEnd {
  const blocks = `${mismatches} of ${verified} blocks read back`;
  return {
    reason: 'mismatch',
    message: `did not keep what was written: ${blocks} differ; the first: ${firstMismatch}`,
  };
}

/** @param cid the command id that the device completed though it was not in flight */
export function strayEnd(cid: number, depth: number): JobEnd {
  const why = cid < depth ? 'it was completed before, or never sent' : `the ids are 0 to ${depth - 1}`;
  return { reason: 'stray', message: `completed command id ${cid}, which was not in flight: ${why}` };
}

/** @param silentMs milliseconds without a completion */
export function stalledEnd(inFlight: number, silentMs: number): JobEnd {
  const message =
    silentMs < SILENCE_MILLISECONDS
      ? `had ${commands(inFlight)} in flight when the run was given up; ${ADVICE}`
      : `stopped completing commands: none in ${(silentMs / 1000).toFixed(1)} s, with ${inFlight} in flight; ${ADVICE}`;
  return { reason: 'stalled', message };
}

function commands(count: number): string {
  return count === 1 ? '1 command' : `${count} commands`;
}
