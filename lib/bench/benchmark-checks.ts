// SPDX-License-Identifier: MIT
import { VfioUserError, invalidArgument, outOfRange } from '../errors';
import type { NvmeController, NvmeNamespace } from '../nvme/host';
import type { BenchmarkOptions } from './benchmark-types';
import { isRandom, writes, type JobPlan } from './plan';
import { formatSize } from './units';

/** @throws RangeError or TypeError for options that no controller can satisfy */
export function checkOptions(options: BenchmarkOptions): void {
  const { blockSize, depth, jobs, runtime, rampTime = 0, ioSize, rate, readShare, size, workload } = options;
  const whole = (name: string, value: number, most: number): void => {
    if (!Number.isInteger(value) || value < 1 || value > most) {
      throw outOfRange(`${name} is ${String(value)}; it is a whole number from 1 to ${String(most)}`);
    }
  };
  whole('the block size', blockSize, 1 << 30);
  whole('the I/O depth', depth, 65535);
  whole('the number of jobs', jobs, 1024);
  if (runtime !== undefined && !(runtime > 0))
    throw outOfRange(`the run time is ${String(runtime)} s; it must be above 0`);
  if (!(rampTime >= 0)) throw outOfRange(`the ramp time is ${String(rampTime)} s; it must not be negative`);
  if (rampTime > 0 && options.verify)
    throw invalidArgument(
      'a ramp time goes with measuring, not with verifying: what it writes is read back too',
    );
  if (ioSize !== undefined && ioSize < blockSize)
    throw outOfRange(
      `an I/O size of ${String(ioSize)} bytes is less than one block of ${String(blockSize)} bytes`,
    );
  if (rate !== undefined && !(rate > 0)) throw outOfRange('a rate of 0 I/Os per second measures nothing');
  if (options.distribution?.kind === 'zipf' && !isRandom(workload))
    throw invalidArgument(`a Zipf distribution needs a random workload, not ${workload}`);
  if (readShare !== undefined && !(readShare >= 0 && readShare <= 1))
    throw outOfRange('the share of reads is between 0 and 1');
  if (size !== undefined && !(size > 0))
    throw outOfRange('a size of 0 leaves nothing to measure; leave --size out to use the whole namespace');
}

/** @throws VfioUserError ERR_VFIO_USER_UNSUPPORTED */
export function pickNamespace(controller: NvmeController, nsid: number | undefined): NvmeNamespace {
  const namespace = nsid === undefined ? controller.namespaces[0] : controller.namespace(nsid);
  if (namespace === undefined) {
    throw new VfioUserError(
      'ERR_VFIO_USER_UNSUPPORTED',
      `${controller.device.name} has no active namespace to measure; attach one to its subsystem (nvmf_subsystem_add_ns with SPDK)`,
    );
  }
  if (namespace.format.ms > 0) {
    throw new VfioUserError(
      'ERR_VFIO_USER_UNSUPPORTED',
      `namespace ${String(namespace.id)} has ${String(namespace.format.ms)} bytes of metadata per block; only formats without metadata can be measured`,
    );
  }
  return namespace;
}

/** The part of the namespace that each job uses. */
export interface Region {
  share(job: number): Pick<JobPlan, 'firstLba' | 'ioBlocks' | 'startBlock'>;
}

/** @throws RangeError or TypeError for what this controller or namespace cannot do */
export function checkRegion(
  controller: NvmeController,
  namespace: NvmeNamespace,
  options: BenchmarkOptions,
): Region {
  const { blockSize, depth, jobs, verify, workload } = options;
  const lbaSize = namespace.blockSize;
  if (blockSize % lbaSize !== 0) {
    throw invalidArgument(
      `a block size of ${formatSize(blockSize)} is no multiple of the namespace's block of ${String(lbaSize)} bytes`,
    );
  }
  if (blockSize > controller.maxTransferSize) {
    throw outOfRange(
      `a block size of ${formatSize(blockSize)} is above the controller's largest transfer, ${formatSize(controller.maxTransferSize)}`,
    );
  }
  if (depth + 1 > controller.capabilities.maxQueueEntries) {
    throw outOfRange(
      `an I/O depth of ${String(depth)} is too much; the controller's queues hold ${String(controller.capabilities.maxQueueEntries - 1)}`,
    );
  }
  const size = options.size ?? namespace.size;
  if (size > namespace.size) {
    throw outOfRange(
      `a size of ${formatSize(size)} is beyond namespace ${String(namespace.id)}, which has ${formatSize(namespace.size)}`,
    );
  }
  const ioBlocks = Math.floor(size / blockSize);
  if (ioBlocks < jobs) {
    throw outOfRange(
      `a size of ${formatSize(size)} is too small: ${jobs === 1 ? 'a job needs' : `${String(jobs)} jobs need`} at least one block of ${formatSize(blockSize)}${jobs === 1 ? '' : ' each'}`,
    );
  }
  if (verify && !writes(workload)) {
    throw invalidArgument(
      'verifying needs a workload that writes (write, randwrite, randrw): it reads back what the run has written',
    );
  }
  const perJob = Math.floor(ioBlocks / jobs);
  // Jobs that verify must not write over each other, and those that touch every block once share the work;
  // others share the region, sequential ones from different places.
  const split = verify || (options.runtime === undefined && options.ioSize === undefined);
  return {
    share: (job) =>
      split
        ? { firstLba: (job * perJob * blockSize) / lbaSize, ioBlocks: perJob, startBlock: 0 }
        : { firstLba: 0, ioBlocks, startBlock: job * perJob },
  };
}
