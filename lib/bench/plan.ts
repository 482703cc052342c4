// SPDX-License-Identifier: MIT
import { VfioUserError, invalidArgument, outOfRange } from '../errors';
import { NvmeController, type CreatedQueuePair, type NvmeNamespace } from '../nvme/host';
import { NVME_PAGE } from '../nvme/host/dma-arena';
import { CQE_BYTES, SQE_BYTES } from '../nvme/spec';
import type { Device } from '../pci';
import { writes, type Job } from './job';
import { dataShift, queueEntries } from './job-entries';
import { JOB_STATE_BYTES, JobState } from './job-state';
import { timeoutOf, type BenchmarkOptions } from './options';
import { formatSize } from './units';

/** Pages for the admin queue, Identify data and the rounding of queues. */
const SPARE_PAGES = 32;
/** From this size on, memory comes in huge pages where the system has them. A device looks up fewer translations then. */
const HUGE_PAGE = 2 << 20;
/** Longer than a completion takes on most devices, and about what waking up costs. */
const DEFAULT_SPIN_MICROSECONDS = 50;

/** A job that is ready to run, with what the controlling thread holds of it. */
export interface PlannedJob {
  readonly job: Job;
  readonly state: JobState;
  readonly queue: CreatedQueuePair;
}

/** Brings the controller of a device up, with memory for the jobs of these options. */
export function attachController(device: Device, options: BenchmarkOptions): Promise<NvmeController> {
  const { depth, jobs, completion } = options;
  const entries = queueEntries(depth, Infinity);
  const queueBytes = wholePages(entries * SQE_BYTES) + wholePages(entries * CQE_BYTES);
  const perJob = queueBytes + wholePages(dataBytes(options)) + listBytes(options);
  const arenaSize = Math.max(jobs * perJob + SPARE_PAGES * NVME_PAGE, HUGE_PAGE);
  // Vector 0 is the admin queue's.
  const vectors = completion === undefined || completion === 'poll' ? 0 : jobs + 1;
  return NvmeController.attach(device, {
    arenaSize,
    adminTimeout: timeoutOf(options),
    vectors,
    vectorTarget: 'eventfd',
  });
}

/**
 * The namespace that is measured.
 *
 * @throws RangeError when there is no such namespace; VfioUserError ERR_VFIO_USER_UNSUPPORTED when it cannot be measured
 */
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
      `namespace ${namespace.id} has ${namespace.format.ms} bytes of metadata per block; only formats without metadata can be measured`,
    );
  }
  return namespace;
}

/**
 * Plans the jobs of a controller, and creates their queues.
 *
 * @throws RangeError or TypeError for what this controller or namespace cannot do
 */
export async function planJobs(
  controller: NvmeController,
  namespace: NvmeNamespace,
  options: BenchmarkOptions,
): Promise<PlannedJob[]> {
  const { blockSize, depth, runtime, ioSize, completion = 'poll' } = options;
  const { arena, doorbellArea, takesSgl, capabilities } = controller;
  const shares = checkRegion(controller, namespace, options);
  const planned: PlannedJob[] = [];
  for (const [index, share] of shares.entries()) {
    const entries = queueEntries(depth, capabilities.maxQueueEntries);
    const queue = await controller.createQueuePair(entries, completion === 'poll' ? undefined : 'eventfd');
    const byIoSize = ioSize === undefined ? Infinity : Math.floor(ioSize / blockSize);
    const byRegion = runtime === undefined && ioSize === undefined ? share.ioBlocks : Infinity;
    const state = new SharedArrayBuffer(JOB_STATE_BYTES);
    const job: Job = {
      index,
      workload: options.workload,
      readShare: options.readShare ?? 0.5,
      blockSize,
      depth,
      distribution: byRegion < Infinity ? { kind: 'once' } : (options.distribution ?? { kind: 'uniform' }),
      rampMs: (options.rampTime ?? 0) * 1000,
      runtimeMs: runtime === undefined ? Infinity : runtime * 1000,
      ioLimit: Math.min(byIoSize, byRegion),
      drainMs: timeoutOf(options),
      rate: options.rate ?? Infinity,
      verify: options.verify,
      seed: options.seed,
      nsid: namespace.id,
      lbaSize: namespace.blockSize,
      ...share,
      queue: queue.placement,
      memory: { fd: arena.memory.fd, offset: arena.memory.fdOffset, size: arena.memory.size },
      iova: arena.memory.iova,
      dataOffset: arena.allocate(dataBytes(options)).offset + dataShift(blockSize, takesSgl),
      sgl: takesSgl,
      listOffset: listBytes(options) === 0 ? 0 : arena.allocate(listBytes(options)).offset,
      completion,
      spinMicroseconds: options.spinMicroseconds ?? DEFAULT_SPIN_MICROSECONDS,
      interruptFd: queue.interruptFd ?? null,
      doorbells: doorbellArea && {
        fd: doorbellArea.fd,
        offset: doorbellArea.fdOffset,
        size: doorbellArea.size,
      },
      dstrd: capabilities.dstrd,
      state,
    };
    planned.push({ queue, job, state: new JobState(state) });
  }
  return planned;
}

/** The part of the namespace that each job uses. */
function checkRegion(
  controller: NvmeController,
  namespace: NvmeNamespace,
  options: BenchmarkOptions,
): Pick<Job, 'firstLba' | 'ioBlocks' | 'startBlock'>[] {
  const { blockSize, depth, jobs, verify, workload } = options;
  const lbaSize = namespace.blockSize;
  if (blockSize % lbaSize !== 0) {
    throw invalidArgument(
      `a block size of ${formatSize(blockSize)} is no multiple of the namespace's block of ${lbaSize} bytes`,
    );
  }
  if (blockSize > controller.maxTransferSize) {
    throw outOfRange(
      `a block size of ${formatSize(blockSize)} is above the controller's largest transfer, ${formatSize(controller.maxTransferSize)}`,
    );
  }
  const mostInFlight = controller.capabilities.maxQueueEntries - 1;
  if (depth > mostInFlight) {
    throw outOfRange(`an I/O depth of ${depth} is too much; the controller's queues hold ${mostInFlight}`);
  }
  const size = options.size ?? namespace.size;
  if (size > namespace.size) {
    throw outOfRange(
      `a size of ${formatSize(size)} is beyond namespace ${namespace.id}, which has ${formatSize(namespace.size)}`,
    );
  }
  const ioBlocks = Math.floor(size / blockSize);
  if (ioBlocks < jobs) {
    const [need, each] = jobs === 1 ? ['a job needs', ''] : [`${jobs} jobs need`, ' each'];
    throw outOfRange(
      `a size of ${formatSize(size)} is too small: ${need} at least one block of ${formatSize(blockSize)}${each}`,
    );
  }
  if (verify && !writes(workload)) {
    throw invalidArgument(
      'verifying needs a workload that writes (write, randwrite, randrw): it reads back what the run has written',
    );
  }
  const perJob = Math.floor(ioBlocks / jobs);
  // Jobs that verify must not overwrite each other's blocks, and jobs that touch every block once share the work. Others
  // share the region; sequential ones begin at different places.
  const split = verify || (options.runtime === undefined && options.ioSize === undefined);
  return Array.from({ length: jobs }, (_, job) =>
    split
      ? { firstLba: (job * perJob * blockSize) / lbaSize, ioBlocks: perJob, startBlock: 0 }
      : { firstLba: 0, ioBlocks, startBlock: job * perJob },
  );
}

/** Buffers of the I/Os in flight, and what comes before the first. */
function dataBytes({ blockSize, depth }: BenchmarkOptions): number {
  return dataShift(blockSize, true) + depth * blockSize;
}

/** PRP lists, a page for each I/O in flight. */
function listBytes({ blockSize, depth }: BenchmarkOptions): number {
  return blockSize > NVME_PAGE ? depth * NVME_PAGE : 0;
}

function wholePages(bytes: number): number {
  return Math.ceil(bytes / NVME_PAGE) * NVME_PAGE;
}
