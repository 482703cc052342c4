// SPDX-License-Identifier: MIT
import { VfioUserError, invalidArgument, outOfRange } from '../errors';
import type { Device } from '../pci';
import { NVME_PAGE, NvmeController, type CreatedQueuePair, type NvmeNamespace } from '../nvme/host';
import { CQE_BYTES, SQE_BYTES, decodeStatus, nvmOpcodeName, statusText } from '../nvme/spec';
import { LatencyHistogram } from './histogram';
import { runJobHere, runJobInWorker, type JobReport } from './job-runner';
import { JOB_STATE_BYTES, JobState, writes, type JobPlan, type Workload } from './plan';
import type { DirectionResult, JobResult } from './results';
import { DEPTH_SLOTS, depthSlot } from './results';
import { formatSize } from './units';

/** What to run. Sizes are in bytes. */
export interface BenchmarkOptions {
  readonly workload: Workload;
  /** Bytes of one I/O. */
  readonly blockSize: number;
  /** I/Os in flight of each job. */
  readonly depth: number;
  /** Jobs, each with a queue pair and a thread of its own. */
  readonly jobs: number;
  /** Seconds; undefined to run until every block of the region was touched once. */
  readonly runtime?: number | undefined;
  /** Bytes of the namespace to use, from its start. Default: all. */
  readonly size?: number | undefined;
  /** Write a pattern, read back what was written, and compare. */
  readonly verify: boolean;
  /** Share of reads of `randrw`, 0 to 1. Default 0.5. */
  readonly readShare?: number;
  /** Seed of the random order and of the pattern. */
  readonly seed: number;
  /** Namespace id. Default: the first. */
  readonly nsid?: number | undefined;
  /** Ends the run early; what was measured so far is the result. */
  readonly signal?: AbortSignal;
  /** Called once when all options have been checked, before the first I/O. */
  readonly onStart?: () => void;
  /** Called about twice a second. */
  readonly onProgress?: (progress: BenchmarkProgress) => void;
}

/** How a run stands. */
export interface BenchmarkProgress {
  /** Since the last call, in I/Os per second. */
  readonly readIops: number;
  readonly writeIops: number;
  /** Part of the run that is over, 0 to 1. */
  readonly part: number;
  readonly secondsLeft: number;
  /** True while what was written is read back. */
  readonly verifying: boolean;
}

/** Who was measured. */
export interface BenchmarkTarget {
  readonly endpoint: string;
  readonly model: string;
  readonly serial: string;
  readonly firmware: string;
  /** NVMe version. */
  readonly version: string;
  readonly nsid: number;
  readonly lbaSize: number;
  /** Bytes. */
  readonly capacity: number;
  /** True when doorbells are plain stores, false when each is a message. */
  readonly mappedDoorbells: boolean;
}

/** The result of a run, also of one that failed or was ended early. */
export interface BenchmarkResult {
  readonly target: BenchmarkTarget;
  readonly jobs: readonly JobResult[];
  /** I/O-sized blocks read back and compared, and those that differed. */
  readonly verified: number;
  readonly mismatches: number;
  /** Why the run failed; undefined when it did not. */
  readonly failure?: VfioUserError | undefined;
  /** True when {@link BenchmarkOptions.signal} ended the run. */
  readonly interrupted: boolean;
}

const PROGRESS_MILLISECONDS = 500;
/** Pages for the admin queue, Identify data and the rounding of queues. */
const SPARE_PAGES = 32;

/**
 * Measures an NVMe controller behind a device: brings it up, runs the jobs, shuts it down. The device stays open.
 *
 * @throws RangeError or TypeError for options that the controller cannot satisfy, before anything is written
 */
export async function benchmark(device: Device, options: BenchmarkOptions): Promise<BenchmarkResult> {
  const { blockSize, depth, jobs } = options;
  checkCounts(options);
  const queueBytes = pages((depth + 1) * SQE_BYTES) + pages((depth + 1) * CQE_BYTES);
  const dataBytes = pages(depth * blockSize);
  const listBytes = blockSize > NVME_PAGE ? depth * NVME_PAGE : 0;
  const arenaSize = jobs * (queueBytes + dataBytes + listBytes) + SPARE_PAGES * NVME_PAGE;
  const controller = await NvmeController.attach(device, { arenaSize });
  try {
    return await measure(controller, options, dataBytes, listBytes);
  } finally {
    await controller.close();
  }
}

async function measure(
  controller: NvmeController,
  options: BenchmarkOptions,
  dataBytes: number,
  listBytes: number,
): Promise<BenchmarkResult> {
  const { device } = controller;
  const namespace = pickNamespace(controller, options.nsid);
  const region = checkRegion(controller, namespace, options);
  const queues: CreatedQueuePair[] = [];
  for (let job = 0; job < options.jobs; job++)
    queues.push(await controller.createQueuePair(options.depth + 1));

  const plans = queues.map((created, index): JobPlan => {
    const share = region.share(index);
    const { memory } = controller.arena;
    return {
      index,
      workload: options.workload,
      readShare: options.readShare ?? 0.5,
      blockSize: options.blockSize,
      depth: options.depth,
      runtimeMs: options.runtime === undefined ? Infinity : options.runtime * 1000,
      verify: options.verify,
      seed: options.seed,
      nsid: namespace.id,
      lbaSize: namespace.blockSize,
      ...share,
      queue: created.placement,
      memory: { fd: memory.fd, offset: memory.fdOffset, size: memory.size },
      iova: memory.iova,
      dataOffset: controller.arena.allocate(dataBytes).offset,
      listOffset: listBytes === 0 ? 0 : controller.arena.allocate(listBytes).offset,
      doorbells: sharedDoorbells(controller),
      dstrd: controller.capabilities.dstrd,
      state: new SharedArrayBuffer(JOB_STATE_BYTES),
    };
  });

  options.onStart?.();
  const states = plans.map((plan) => new JobState(plan.state));
  let lost: Error | null | undefined;
  let interrupted = false;
  const onClose = (error: Error | null): void => {
    lost = error;
    for (const state of states) state.abandon();
  };
  const onAbort = (): void => {
    interrupted = true;
    for (const state of states) state.stop();
  };
  device.once('close', onClose);
  options.signal?.addEventListener('abort', onAbort);
  if (options.signal?.aborted === true) onAbort();
  const watch = new ProgressWatch(states, plans, options);
  const before = process.resourceUsage();
  try {
    const reports = await Promise.all(plans.map((plan) => run(controller, plan)));
    watch.stop();
    if (lost === undefined) for (const created of queues) await deleteQueue(created);
    const results = reports.map((report, index) => jobResult(report, options, watch.samples(index), index));
    return {
      target: targetOf(controller, namespace),
      jobs: withCpu(results, before),
      verified: sum(reports.map((report) => report.outcome.verified)),
      mismatches: sum(reports.map((report) => report.outcome.mismatches)),
      failure: failureOf(reports, lost, device.name),
      interrupted,
    };
  } finally {
    watch.stop();
    // Where one thread failed, the others run on.
    for (const state of states) state.abandon();
    device.off('close', onClose);
    options.signal?.removeEventListener('abort', onAbort);
  }
}

function run(controller: NvmeController, plan: JobPlan): Promise<JobReport> {
  if (plan.doorbells !== null) return runJobInWorker(plan);
  return runJobHere(plan, controller.arena.memory.buffer, controller.doorbells);
}

/** Queues whose commands never completed cannot be deleted in time; the shutdown that follows ends them too. */
async function deleteQueue(created: CreatedQueuePair): Promise<void> {
  try {
    await created.delete();
  } catch (error) {
    if (!(error instanceof VfioUserError)) throw error;
  }
}

function sharedDoorbells(controller: NvmeController): JobPlan['doorbells'] {
  const area = controller.doorbellArea;
  return area === null ? null : { fd: area.fd, offset: area.fdOffset, size: area.size };
}

function checkCounts({ blockSize, depth, jobs, runtime, readShare, size }: BenchmarkOptions): void {
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
  if (readShare !== undefined && !(readShare >= 0 && readShare <= 1))
    throw outOfRange('the share of reads is between 0 and 1');
  if (size !== undefined && !(size > 0))
    throw outOfRange('a size of 0 leaves nothing to measure; leave --size out to use the whole namespace');
}

function pickNamespace(controller: NvmeController, nsid: number | undefined): NvmeNamespace {
  const namespace = nsid === undefined ? controller.namespaces[0] : controller.namespace(nsid);
  if (namespace === undefined) {
    throw new VfioUserError(
      'ERR_VFIO_USER_UNSUPPORTED',
      `${controller.device.name} has no active namespace to measure; attach one to its subsystem (nvmf_subsystem_add_ns with SPDK)`,
    );
  }
  if (namespace.format.metadataSize > 0) {
    throw new VfioUserError(
      'ERR_VFIO_USER_UNSUPPORTED',
      `namespace ${String(namespace.id)} has ${String(namespace.format.metadataSize)} bytes of metadata per block; only formats without metadata can be measured`,
    );
  }
  return namespace;
}

/** The part of the namespace that each job uses. */
interface Region {
  share(job: number): Pick<JobPlan, 'firstLba' | 'ioBlocks' | 'startBlock'>;
}

function checkRegion(
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
      `a size of ${formatSize(size)} is too small: ${String(jobs)} jobs need at least one block of ${formatSize(blockSize)} each`,
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
  const split = verify || options.runtime === undefined;
  return {
    share: (job) =>
      split
        ? { firstLba: (job * perJob * blockSize) / lbaSize, ioBlocks: perJob, startBlock: 0 }
        : { firstLba: 0, ioBlocks, startBlock: job * perJob },
  };
}

/** Counts the progress of the jobs while they run. */
class ProgressWatch {
  readonly #states: readonly JobState[];
  readonly #plans: readonly JobPlan[];
  readonly #options: BenchmarkOptions;
  readonly #samples: { reads: number[]; writes: number[] }[];
  readonly #last: { reads: number; writes: number }[];
  readonly #timer: NodeJS.Timeout;
  #time = performance.now();

  constructor(states: readonly JobState[], plans: readonly JobPlan[], options: BenchmarkOptions) {
    this.#states = states;
    this.#plans = plans;
    this.#options = options;
    this.#samples = states.map(() => ({ reads: [], writes: [] }));
    this.#last = states.map(() => ({ reads: 0, writes: 0 }));
    this.#timer = setInterval(() => {
      this.#tick();
    }, PROGRESS_MILLISECONDS);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** I/Os per second of a job in each interval. */
  samples(job: number): { reads: number[]; writes: number[] } {
    return this.#samples[job] ?? { reads: [], writes: [] };
  }

  #tick(): void {
    const now = performance.now();
    const seconds = (now - this.#time) / 1000;
    this.#time = now;
    let readIops = 0;
    let writeIops = 0;
    this.#states.forEach((state, job) => {
      const last = this.#last[job];
      const samples = this.#samples[job];
      if (last === undefined || samples === undefined) return;
      const [reads, written] = [state.reads, state.writes];
      const rates = [(reads - last.reads) / seconds, (written - last.writes) / seconds] as const;
      last.reads = reads;
      last.writes = written;
      readIops += rates[0];
      writeIops += rates[1];
      if (state.verifying) return;
      samples.reads.push(rates[0]);
      samples.writes.push(rates[1]);
    });
    this.#options.onProgress?.({ readIops, writeIops, ...this.#part(readIops + writeIops) });
  }

  #part(iops: number): Pick<BenchmarkProgress, 'part' | 'secondsLeft' | 'verifying'> {
    const verifying = this.#states.some((state) => state.verifying);
    if (this.#options.runtime !== undefined) {
      const elapsed = Math.max(0, ...this.#states.map((state) => state.elapsedMs)) / 1000;
      return {
        part: elapsed / this.#options.runtime,
        secondsLeft: Math.max(0, this.#options.runtime - elapsed),
        verifying,
      };
    }
    const all = sum(this.#plans.map((plan) => plan.ioBlocks));
    const done = sum(this.#states.map((state) => state.reads + state.writes));
    return { part: done / all, secondsLeft: iops > 0 ? (all - done) / iops : 0, verifying };
  }
}

function jobResult(
  report: JobReport,
  options: BenchmarkOptions,
  samples: { reads: number[]; writes: number[] },
  index: number,
): JobResult {
  const direction = (ios: number, latency: ArrayBufferLike, rates: number[]): DirectionResult => ({
    ios,
    bytes: ios * options.blockSize,
    runtimeMs: ios > 0 ? report.elapsedMs : 0,
    latency: new LatencyHistogram(latency),
    iopsSamples: rates,
    bandwidthSamples: rates.map((rate) => rate * options.blockSize),
  });
  const depthCounts = new Float64Array(DEPTH_SLOTS);
  depthCounts[depthSlot(options.depth)] = report.reads + report.writes;
  return {
    name: `job${String(index)}`,
    jobs: 1,
    read: direction(report.reads, report.readLatency, samples.reads),
    write: direction(report.writes, report.writeLatency, samples.writes),
    runtimeMs: report.elapsedMs,
    errors: report.outcome.mismatches + (report.outcome.status === 0 ? 0 : 1),
    firstError: report.outcome.firstMismatch ?? statusOf(report),
    cpu: { userMs: 0, systemMs: 0, contextSwitches: 0, majorFaults: 0, minorFaults: 0 },
    depthCounts,
    submitCounts: report.batchCounts,
    completeCounts: report.batchCounts,
  };
}

/** The processor time is known for the process only; it goes to the first job, since merging adds. */
function withCpu(results: readonly JobResult[], before: NodeJS.ResourceUsage): JobResult[] {
  const after = process.resourceUsage();
  const cpu = {
    userMs: (after.userCPUTime - before.userCPUTime) / 1000,
    systemMs: (after.systemCPUTime - before.systemCPUTime) / 1000,
    contextSwitches:
      after.voluntaryContextSwitches +
      after.involuntaryContextSwitches -
      before.voluntaryContextSwitches -
      before.involuntaryContextSwitches,
    majorFaults: after.majorPageFault - before.majorPageFault,
    minorFaults: after.minorPageFault - before.minorPageFault,
  };
  return results.map((result, index) => (index === 0 ? { ...result, cpu } : result));
}

function statusOf({ outcome }: JobReport): string | undefined {
  if (outcome.status === 0) return undefined;
  const { sct, sc } = decodeStatus(outcome.status);
  return `${nvmOpcodeName(outcome.failedOpcode)} at LBA ${String(outcome.failedLba)}: ${statusText(sct, sc)}`;
}

function failureOf(
  reports: readonly JobReport[],
  lost: Error | null | undefined,
  name: string,
): VfioUserError | undefined {
  if (lost !== undefined) {
    return new VfioUserError(
      'ERR_VFIO_USER_DISCONNECTED',
      `${name} went away during the run: ${lost?.message ?? 'closed by this side'}`,
      { cause: lost },
    );
  }
  for (const report of reports) {
    const status = statusOf(report);
    if (status !== undefined)
      return new VfioUserError('ERR_VFIO_USER_NVME_STATUS', `${name} failed ${status}`);
    const { mismatches, verified, firstMismatch, stalled } = report.outcome;
    if (mismatches > 0) {
      return new VfioUserError(
        'ERR_VFIO_USER_VERIFY',
        `${String(mismatches)} of ${String(verified)} blocks read back differ from what was written; the first: ${firstMismatch ?? ''}`,
      );
    }
    if (stalled) {
      return new VfioUserError(
        'ERR_VFIO_USER_TIMEOUT',
        `${name} stopped completing commands; look at the log of its server`,
      );
    }
  }
  return undefined;
}

function targetOf(controller: NvmeController, namespace: NvmeNamespace): BenchmarkTarget {
  const { identify } = controller;
  return {
    endpoint: controller.device.name,
    model: identify.modelNumber,
    serial: identify.serialNumber,
    firmware: identify.firmwareRevision,
    version: controller.version,
    nsid: namespace.id,
    lbaSize: namespace.blockSize,
    capacity: namespace.size,
    mappedDoorbells: controller.mappedDoorbells,
  };
}

function pages(bytes: number): number {
  return Math.ceil(bytes / NVME_PAGE) * NVME_PAGE;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
