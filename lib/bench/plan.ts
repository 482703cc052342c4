// SPDX-License-Identifier: MIT
import { constants } from 'node:buffer';
import { VfioUserError, invalidArgument, outOfRange } from '../errors';
import { NvmeController, type NvmeNamespace } from '../nvme/host';
import { NVME_PAGE } from '../nvme/host/dma-arena';
import { CQE_BYTES, OptionalNvmCommands, SQE_BYTES } from '../nvme/spec';
import type { Device } from '../pci';
import { directionsOf, trims, type Distribution, type Job, type LatencyTarget } from './job';
import { TRIM_RANGE_BYTES, dataShift } from './data-pointers';
import { queueEntries } from './job-entries';
import { SAMPLE_MILLISECONDS } from './job-result';
import { JOB_STATE_BYTES, JobState } from './job-state';
import { endsWithRegion, sizesOf, timeoutOf, unitOf, type RunOptions, type WorkloadOptions } from './options';
import { formatSize } from './units';

/** Pages for the admin queue, Identify data and the rounding of queues. */
const SPARE_PAGES = 32;
/** From this size on, memory comes in huge pages where the system has them. A device looks up fewer translations then. */
const HUGE_PAGE = 2 << 20;
/** Longer than a completion takes on most devices, and about what waking up costs. */
const DEFAULT_SPIN_MICROSECONDS = 50;

/** A job that is ready to run, but for its queue pair. */
export interface PlannedJob {
  readonly job: Job;
  readonly state: JobState;
  /** Entries of each of its queues. */
  readonly entries: number;
}

/**
 * Brings the controller of a device up, with memory for the jobs of these workloads.
 *
 * @throws RangeError when they need more memory than can be mapped, before the device is asked for anything
 */
export async function attachController(
  device: Device,
  workloads: readonly WorkloadOptions[],
  run: RunOptions,
): Promise<NvmeController> {
  const perJob = (options: WorkloadOptions): number => {
    const entries = queueEntries(options.depth, Infinity);
    const queueBytes = wholePages(entries * SQE_BYTES) + wholePages(entries * CQE_BYTES);
    return queueBytes + wholePages(dataBytes(options)) + listBytes(options);
  };
  const bytes = workloads.reduce((sum, options) => sum + options.jobs * perJob(options), 0);
  if (bytes > constants.MAX_LENGTH - SPARE_PAGES * NVME_PAGE)
    throw outOfRange(
      `the I/Os in flight need ${formatSize(bytes)} of memory, and ${formatSize(constants.MAX_LENGTH)} can be mapped; ` +
        'lower the block size (--bs), the I/O depth (--iodepth) or the number of jobs (--numjobs)',
    );
  const sleeping = workloads.some(({ completion = 'poll' }) => completion !== 'poll');
  const jobs = workloads.reduce((sum, options) => sum + options.jobs, 0);
  return await NvmeController.attach(device, {
    arenaSize: Math.max(bytes + SPARE_PAGES * NVME_PAGE, HUGE_PAGE),
    adminTimeout: timeoutOf(run),
    // Vector 0 is the admin queue's.
    vectors: sleeping ? jobs + 1 : 0,
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
 * Plans the jobs of a workload at a controller.
 *
 * @param firstIndex number of the first of the jobs at its endpoint
 * @throws RangeError or TypeError for what this controller or namespace cannot do
 */
export function planJobs(
  controller: NvmeController,
  namespace: NvmeNamespace,
  options: WorkloadOptions,
  run: RunOptions,
  firstIndex: number,
): PlannedJob[] {
  const { depth, runtime, completion = 'poll' } = options;
  const { arena, takesSgl, capabilities } = controller;
  const shares = checkRegion(controller, namespace, options);
  return shares.map((share, index) => {
    const state = new SharedArrayBuffer(JOB_STATE_BYTES);
    const job: Job = {
      index: firstIndex + index,
      workload: options.workload,
      readShare: options.readShare ?? 0.5,
      blockSize: Math.max(...sizesOf(options)),
      split: options.split ?? null,
      unit: unitOf(options),
      fua: options.fua ?? { read: false, write: false },
      depth,
      distribution: distributionOf(options),
      rampMs: (options.rampTime ?? 0) * 1000,
      runtimeMs: runtime === undefined ? Infinity : runtime * 1000,
      ...limits(options, share.ioBlocks),
      drainMs: timeoutOf(run),
      pace: {
        iops: options.rateIops ?? Infinity,
        bandwidth: options.rate ?? Infinity,
        thinkMs: (options.thinkTime ?? 0) * 1000,
        thinkIos: options.thinkBlocks ?? 1,
      },
      latencyTarget: latencyTarget(options),
      sampleMs: run.sampleMs ?? SAMPLE_MILLISECONDS,
      verify: options.verify,
      seed: options.seed,
      nsid: namespace.id,
      lbaSize: namespace.blockSize,
      ...share,
      memory: { fd: arena.memory.fd, offset: arena.memory.fdOffset, size: arena.memory.size },
      iova: arena.memory.iova,
      dataOffset: arena.allocate(dataBytes(options)).offset + dataShift(bufferBytes(options), takesSgl),
      bufferBytes: bufferBytes(options),
      sgl: takesSgl,
      listOffset: listBytes(options) === 0 ? 0 : arena.allocate(listBytes(options)).offset,
      processors: options.processors ?? null,
      completion,
      spinMicroseconds: options.spinMicroseconds ?? DEFAULT_SPIN_MICROSECONDS,
      dstrd: capabilities.dstrd,
      state,
    };
    return { job, state: new JobState(state), entries: queueEntries(depth, capabilities.maxQueueEntries) };
  });
}

/** Each block once, where the run ends with the region and nothing else is asked for. */
function distributionOf(options: WorkloadOptions): Distribution {
  const { distribution = { kind: 'uniform' }, split } = options;
  const once = endsWithRegion(options) && split === undefined && distribution.kind === 'uniform';
  return once ? { kind: 'once' } : distribution;
}

/** After how many I/Os or bytes a job ends. */
function limits(options: WorkloadOptions, ioBlocks: number): Pick<Job, 'ioLimit' | 'byteLimit'> {
  const { ioSize, split, blockSize } = options;
  const regionBytes = endsWithRegion(options) ? ioBlocks * unitOf(options) : Infinity;
  const bytes = Math.min(ioSize ?? Infinity, regionBytes);
  return split === undefined
    ? { ioLimit: Math.floor(bytes / blockSize), byteLimit: Infinity }
    : { ioLimit: Infinity, byteLimit: bytes };
}

function latencyTarget({ latencyTarget: target }: WorkloadOptions): LatencyTarget | null {
  if (target === undefined) return null;
  return { ns: target.latency * 1e9, percentile: target.percentile, windowMs: target.window * 1000 };
}

/** The part of the namespace that each job uses. */
function checkRegion(
  controller: NvmeController,
  namespace: NvmeNamespace,
  options: WorkloadOptions,
): Pick<Job, 'firstLba' | 'ioBlocks' | 'startBlock'>[] {
  const { depth, jobs, verify, workload, offset = 0 } = options;
  const lbaSize = namespace.blockSize;
  const sizes = sizesOf(options);
  const unit = unitOf(options);
  const largest = Math.max(...sizes);
  for (const bytes of sizes) {
    if (bytes % lbaSize !== 0)
      throw invalidArgument(
        `a block size of ${formatSize(bytes)} is no multiple of the namespace's block of ${lbaSize} bytes`,
      );
  }
  if (offset % lbaSize !== 0)
    throw invalidArgument(
      `an offset of ${offset} bytes is no multiple of the namespace's block of ${lbaSize} bytes`,
    );
  if (moves(options) && largest > controller.maxTransferSize) {
    throw outOfRange(
      `a block size of ${formatSize(largest)} is above the controller's largest transfer, ${formatSize(controller.maxTransferSize)}`,
    );
  }
  if (trims(workload) && (controller.identify.oncs & OptionalNvmCommands.datasetManagement) === 0)
    throw new VfioUserError(
      'ERR_VFIO_USER_UNSUPPORTED',
      `${controller.device.name} does not take trims: its ONCS is without Dataset Management`,
    );
  const mostInFlight = controller.capabilities.maxQueueEntries - 1;
  if (depth > mostInFlight) {
    throw outOfRange(`an I/O depth of ${depth} is too much; the controller's queues hold ${mostInFlight}`);
  }
  if (offset >= namespace.size)
    throw outOfRange(
      `an offset of ${formatSize(offset)} is beyond namespace ${namespace.id}, which has ${formatSize(namespace.size)}`,
    );
  const size = options.size ?? namespace.size - offset;
  if (offset + size > namespace.size) {
    const from = offset === 0 ? '' : ` from offset ${formatSize(offset)} on`;
    throw outOfRange(
      `a size of ${formatSize(size)}${from} is beyond namespace ${namespace.id}, which has ${formatSize(namespace.size)}`,
    );
  }
  const ioBlocks = Math.floor(size / unit);
  const perJob = Math.floor(ioBlocks / jobs);
  if (perJob * unit < largest) {
    const [need, each] = jobs === 1 ? ['a job needs', ''] : [`${jobs} jobs need`, ' each'];
    throw outOfRange(
      `a size of ${formatSize(size)} is too small: ${need} at least one block of ${formatSize(largest)}${each}`,
    );
  }
  // Jobs that verify must not overwrite each other's blocks, and jobs that touch every block once share the work. Others
  // share the region; sequential ones begin at different places.
  const split = verify || endsWithRegion(options);
  const firstLba = offset / lbaSize;
  return Array.from({ length: jobs }, (_, job) =>
    split
      ? { firstLba: firstLba + (job * perJob * unit) / lbaSize, ioBlocks: perJob, startBlock: 0 }
      : { firstLba, ioBlocks, startBlock: job * perJob },
  );
}

/** True when data is transferred. */
function moves({ workload }: WorkloadOptions): boolean {
  return directionsOf(workload).some((direction) => direction !== 'trim');
}

/** Bytes of the buffer of an I/O. */
function bufferBytes(options: WorkloadOptions): number {
  return moves(options) ? Math.max(...sizesOf(options)) : TRIM_RANGE_BYTES;
}

/** Buffers of the I/Os in flight, and what comes before the first. */
function dataBytes(options: WorkloadOptions): number {
  const bytes = bufferBytes(options);
  return dataShift(bytes, true) + options.depth * bytes;
}

/** PRP lists, a page for each I/O in flight. */
function listBytes(options: WorkloadOptions): number {
  return bufferBytes(options) > NVME_PAGE ? options.depth * NVME_PAGE : 0;
}

function wholePages(bytes: number): number {
  return Math.ceil(bytes / NVME_PAGE) * NVME_PAGE;
}
