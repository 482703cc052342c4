// SPDX-License-Identifier: MIT
import { VfioUserError } from '../errors';
import type { Device } from '../pci';
import { NVME_PAGE, NvmeController, type CreatedQueuePair, type NvmeNamespace } from '../nvme/host';
import { CQE_BYTES, SQE_BYTES } from '../nvme/spec';
import { checkOptions, checkRegion, pickNamespace } from './benchmark-checks';
import type { BenchmarkOptions, BenchmarkResult, BenchmarkTarget, EndpointResult } from './benchmark-types';
import { dataShift } from './data-pointers';
import { failureOf, jobResult } from './job-result';
import { runJobHere, runJobInWorker, type JobReport } from './job-runner';
import { queueEntries } from './entries-ahead';
import { JOB_STATE_BYTES, JobState, type JobPlan } from './plan';
import { ProgressWatch } from './progress-watch';

export type * from './benchmark-types';

/** Pages for the admin queue, Identify data and the rounding of queues. */
const SPARE_PAGES = 32;
/** From this size on, memory comes in huge pages where the system has them: a device looks up fewer translations. */
const HUGE_PAGE = 2 << 20;
/** Longer than a completion takes on most devices, and about what waking up costs. */
const DEFAULT_SPIN_MICROSECONDS = 50;

/** A controller that is measured. */
interface Endpoint {
  readonly controller: NvmeController;
  readonly namespace: NvmeNamespace;
  readonly jobs: PreparedJob[];
  /** Why the connection ended during the run, null when this side closed it; undefined when it did not. */
  lost?: Error | null;
}

interface PreparedJob {
  readonly queue: CreatedQueuePair;
  readonly plan: JobPlan;
  readonly state: JobState;
}

/**
 * Measures NVMe controllers, all at the same time: brings them up, runs the jobs, shuts them down. The devices stay open.
 *
 * @throws RangeError or TypeError for options that a controller cannot satisfy, before anything is written
 */
export async function benchmark(
  devices: readonly Device[],
  options: BenchmarkOptions,
): Promise<BenchmarkResult> {
  checkOptions(options);
  const controllers: NvmeController[] = [];
  try {
    for (const device of devices) controllers.push(await attach(device, options));
    const endpoints: Endpoint[] = [];
    for (const controller of controllers) endpoints.push(await prepare(controller, options));
    options.onStart?.();
    return await measure(endpoints, options);
  } finally {
    await Promise.all(controllers.map((controller) => controller.close()));
  }
}

function attach(device: Device, options: BenchmarkOptions): Promise<NvmeController> {
  const { depth, jobs, completion } = options;
  const entries = queueEntries(depth, Infinity);
  const queueBytes = pages(entries * SQE_BYTES) + pages(entries * CQE_BYTES);
  const needed =
    jobs * (queueBytes + pages(dataBytes(options)) + listBytes(options)) + SPARE_PAGES * NVME_PAGE;
  const arenaSize = Math.max(needed, HUGE_PAGE);
  // Vector 0 is the admin queue's.
  const vectors = completion === undefined || completion === 'poll' ? 0 : jobs + 1;
  return NvmeController.attach(device, { arenaSize, vectors, vectorTarget: 'eventfd' });
}

/** Creates the queues of a controller's jobs, and plans the jobs. */
async function prepare(controller: NvmeController, options: BenchmarkOptions): Promise<Endpoint> {
  const { blockSize, depth, runtime, completion = 'poll' } = options;
  const namespace = pickNamespace(controller, options.nsid);
  const region = checkRegion(controller, namespace, options);
  const jobs: PreparedJob[] = [];
  for (let index = 0; index < options.jobs; index++) {
    const entries = queueEntries(depth, controller.capabilities.maxQueueEntries);
    const queue = await controller.createQueuePair(entries, completion === 'poll' ? undefined : 'eventfd');
    const { arena } = controller;
    const share = region.share(index);
    const byIoSize = options.ioSize === undefined ? Infinity : Math.floor(options.ioSize / blockSize);
    const byRegion = runtime === undefined && byIoSize === Infinity ? share.ioBlocks : Infinity;
    const state = new SharedArrayBuffer(JOB_STATE_BYTES);
    const plan: JobPlan = {
      index,
      workload: options.workload,
      readShare: options.readShare ?? 0.5,
      blockSize,
      depth,
      distribution: byRegion < Infinity ? { kind: 'once' } : (options.distribution ?? { kind: 'uniform' }),
      rampMs: (options.rampTime ?? 0) * 1000,
      runtimeMs: runtime === undefined ? Infinity : runtime * 1000,
      ioLimit: Math.min(byIoSize, byRegion),
      rate: options.rate ?? Infinity,
      verify: options.verify,
      seed: options.seed,
      nsid: namespace.id,
      lbaSize: namespace.blockSize,
      ...share,
      queue: queue.placement,
      memory: { fd: arena.memory.fd, offset: arena.memory.fdOffset, size: arena.memory.size },
      iova: arena.memory.iova,
      dataOffset: arena.allocate(dataBytes(options)).offset + dataShift(blockSize, controller.takesSgl),
      sgl: controller.takesSgl,
      listOffset: listBytes(options) === 0 ? 0 : arena.allocate(listBytes(options)).offset,
      completion,
      spinMicroseconds: options.spinMicroseconds ?? DEFAULT_SPIN_MICROSECONDS,
      interruptFd: queue.interruptFd ?? null,
      doorbells: sharedDoorbells(controller),
      dstrd: controller.capabilities.dstrd,
      state,
    };
    jobs.push({ queue, plan, state: new JobState(state) });
  }
  return { controller, namespace, jobs };
}

async function measure(endpoints: readonly Endpoint[], options: BenchmarkOptions): Promise<BenchmarkResult> {
  const jobs = endpoints.flatMap((endpoint) => endpoint.jobs);
  const stopAll = (): void => {
    for (const { state } of jobs) state.stop();
  };
  let interrupted = false;
  const onAbort = (): void => {
    interrupted = true;
    stopAll();
  };
  const watched = endpoints.map((endpoint) => {
    const onClose = (error: Error | null): void => {
      endpoint.lost = error;
      for (const { state } of endpoint.jobs) state.abandon();
      // The others would be measured under another load than was asked for.
      stopAll();
    };
    return { device: endpoint.controller.device, onClose };
  });
  for (const { device, onClose } of watched) device.once('close', onClose);
  options.signal?.addEventListener('abort', onAbort);
  if (options.signal?.aborted === true) onAbort();
  const watch = new ProgressWatch(jobs, options);
  try {
    const reports = await Promise.all(
      endpoints.flatMap(({ controller, jobs: own }) => own.map(({ plan }) => run(controller, plan))),
    );
    watch.stop();
    const results = reports.map((report, index) => jobResult(report, options, watch.samples(index), index));
    for (const endpoint of endpoints) await deleteQueues(endpoint);
    return {
      endpoints: endpoints.map((endpoint, index): EndpointResult => {
        const first = index * options.jobs;
        return { target: targetOf(endpoint), jobs: results.slice(first, first + options.jobs) };
      }),
      verified: sum(reports.map((report) => report.outcome.verified)),
      mismatches: sum(reports.map((report) => report.outcome.mismatches)),
      failure: firstFailure(endpoints, reports),
      interrupted,
    };
  } finally {
    watch.stop();
    // Where one thread failed, the others run on.
    for (const { state } of jobs) state.abandon();
    for (const { device, onClose } of watched) device.off('close', onClose);
    options.signal?.removeEventListener('abort', onAbort);
  }
}

function run(controller: NvmeController, plan: JobPlan): Promise<JobReport> {
  if (plan.doorbells !== null) return runJobInWorker(plan);
  return runJobHere(plan, controller.arena.memory.buffer, controller.doorbells);
}

/** Queues whose commands never completed cannot be deleted in time; the shutdown that follows ends them too. */
async function deleteQueues({ jobs, lost }: Endpoint): Promise<void> {
  if (lost !== undefined) return;
  try {
    for (const { queue } of jobs) await queue.delete();
  } catch (error) {
    if (!(error instanceof VfioUserError)) throw error;
  }
}

function firstFailure(
  endpoints: readonly Endpoint[],
  reports: readonly JobReport[],
): VfioUserError | undefined {
  for (const { lost, controller } of endpoints) {
    if (lost === undefined) continue;
    return new VfioUserError(
      'ERR_VFIO_USER_DISCONNECTED',
      `${controller.device.name} went away during the run: ${lost?.message ?? 'closed by this side'}`,
      { cause: lost },
    );
  }
  const names = endpoints.flatMap(({ controller, jobs }) => jobs.map(() => controller.device.name));
  for (const [index, report] of reports.entries()) {
    const failure = failureOf(report, names[index] ?? '');
    if (failure !== undefined) return failure;
  }
  return undefined;
}

function sharedDoorbells(controller: NvmeController): JobPlan['doorbells'] {
  const area = controller.doorbellArea;
  return area === null ? null : { fd: area.fd, offset: area.fdOffset, size: area.size };
}

function targetOf({ controller, namespace }: Endpoint): BenchmarkTarget {
  const { identify } = controller;
  return {
    endpoint: controller.device.name,
    model: identify.mn,
    serial: identify.sn,
    firmware: identify.fr,
    version: controller.version,
    nsid: namespace.id,
    lbaSize: namespace.blockSize,
    capacity: namespace.size,
    mappedDoorbells: controller.mappedDoorbells,
  };
}

/** Buffers of the I/Os in flight, and what comes before the first. */
function dataBytes({ blockSize, depth }: BenchmarkOptions): number {
  return dataShift(blockSize, true) + depth * blockSize;
}

/** PRP lists, a page for each I/O in flight. */
function listBytes({ blockSize, depth }: BenchmarkOptions): number {
  return blockSize > NVME_PAGE ? depth * NVME_PAGE : 0;
}

function pages(bytes: number): number {
  return Math.ceil(bytes / NVME_PAGE) * NVME_PAGE;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
