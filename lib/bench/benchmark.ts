// SPDX-License-Identifier: MIT
import { VfioUserError, asError, type VfioUserErrorCode } from '../errors';
import type { NvmeController, NvmeNamespace } from '../nvme/host';
import { SentDoorbells } from '../nvme/host/doorbells';
import type { Device } from '../pci';
import type { JobEnd, JobResult } from './job-result';
import { runBetweenTurns, runInWorker } from './job-runner';
import { checkOptions, timeoutOf, type BenchmarkOptions } from './options';
import { attachController, pickNamespace, planJobs, type PlannedJob } from './plan';
import { ProcessorWatch } from './processor-watch';
import { ProgressWatch } from './progress-watch';

/** Who was measured. */
export interface BenchmarkTarget {
  /** Name of the device. */
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

/** What was measured at one endpoint. */
export interface EndpointResult {
  readonly target: BenchmarkTarget;
  readonly jobs: readonly JobResult[];
  /** Why the figures are not those of the device, and what to do; empty when there is no doubt. */
  readonly doubts: readonly string[];
}

/** The result of a run, also of one that failed or was ended early. */
export interface BenchmarkResult {
  /** In the order in which the devices were given. */
  readonly endpoints: readonly EndpointResult[];
  /** Why the run failed; undefined when it did not. */
  readonly failure?: VfioUserError | undefined;
  /** True when {@link BenchmarkOptions.signal} ended the run. */
  readonly interrupted: boolean;
}

/** A controller that is measured. */
interface Endpoint {
  readonly controller: NvmeController;
  readonly namespace: NvmeNamespace;
  readonly jobs: readonly PlannedJob[];
  /** Why the connection ended during the run, null when this side closed it; undefined when it did not end. */
  lost?: Error | null;
}

/** A run that is over. */
interface Run {
  readonly endpoints: readonly Endpoint[];
  readonly result: BenchmarkResult;
}

/** A controller has so long to shut down, also when its jobs have used up the time-out. */
const LEAST_SHUTDOWN_MILLISECONDS = 250;

/** The code of the error for each way in which a job can fail. */
const ERROR_CODES: Readonly<Partial<Record<JobEnd['reason'], VfioUserErrorCode>>> = {
  failed: 'ERR_VFIO_USER_NVME_STATUS',
  mismatch: 'ERR_VFIO_USER_VERIFY',
  stray: 'ERR_VFIO_USER_NVME_CONTROLLER',
  stalled: 'ERR_VFIO_USER_TIMEOUT',
  lost: 'ERR_VFIO_USER_DISCONNECTED',
};

/**
 * Measures NVMe controllers, all at the same time: brings them up, runs the jobs, and shuts them down. The devices stay open,
 * but for those that do not shut down in time: these are closed.
 *
 * @throws RangeError or TypeError for options that a controller cannot satisfy, before anything is written; VfioUserError
 *   when a controller does not start
 */
export async function benchmark(
  devices: readonly Device[],
  options: BenchmarkOptions,
): Promise<BenchmarkResult> {
  checkOptions(options);
  const controllers: NvmeController[] = [];
  const shutDownAll = (run?: Run): Promise<(VfioUserError | undefined)[]> =>
    orGiveUp(devices, options, () =>
      Promise.all(
        controllers.map((controller, index) => {
          const jobs = run?.endpoints[index]?.jobs ?? [];
          const results = run?.result.endpoints[index]?.jobs ?? [];
          const stalled = results.some(({ ended }) => ended.reason === 'stalled');
          return shutDown(controller, jobs, stalled, options);
        }),
      ),
    );
  try {
    const endpoints = await orGiveUp(devices, options, () => prepare(devices, options, controllers));
    options.onStart?.();
    const result = await measure(endpoints, options);
    const failures = await shutDownAll({ endpoints, result });
    return { ...result, failure: result.failure ?? failures.find((failure) => failure !== undefined) };
  } catch (error) {
    // What went wrong first is told.
    await shutDownAll();
    throw error;
  }
}

/** Runs an action that waits for devices. The wish to give up closes them, which ends it. */
async function orGiveUp<T>(
  devices: readonly Device[],
  { giveUp }: BenchmarkOptions,
  action: () => Promise<T>,
): Promise<T> {
  const closeAll = (): void => {
    for (const device of devices) void device.close();
  };
  if (giveUp?.aborted === true) closeAll();
  giveUp?.addEventListener('abort', closeAll);
  try {
    return await action();
  } finally {
    giveUp?.removeEventListener('abort', closeAll);
  }
}

/** Brings the controllers up, which are put into a list one by one, and plans their jobs. */
async function prepare(
  devices: readonly Device[],
  options: BenchmarkOptions,
  controllers: NvmeController[],
): Promise<Endpoint[]> {
  for (const device of devices)
    controllers.push(await answering(device, () => attachController(device, options)));
  const endpoints: Endpoint[] = [];
  for (const controller of controllers) {
    const namespace = pickNamespace(controller, options.nsid);
    const plan = (): Promise<PlannedJob[]> => planJobs(controller, namespace, options);
    endpoints.push({ controller, namespace, jobs: await answering(controller.device, plan) });
  }
  return endpoints;
}

/** Names the device that has not answered in time: messages and commands tell of themselves alone. */
async function answering<T>(device: Device, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    if (!(error instanceof VfioUserError) || error.code !== 'ERR_VFIO_USER_TIMEOUT') throw error;
    throw silent(device, 'before the run', error);
  }
}

function silent({ name }: Device, when: string, cause?: Error): VfioUserError {
  const text = `${name} stopped answering ${when}; look at its server, or wait longer with --timeout`;
  return new VfioUserError('ERR_VFIO_USER_TIMEOUT', text, { cause });
}

/**
 * Deletes the queues of a controller, unless it has stalled, and shuts it down, in the time that its jobs have left of the time-out. The device is
 * closed when that is over, so that nothing waits for it any more.
 *
 * @returns why it failed; undefined when it did not, or the device is gone
 */
async function shutDown(
  controller: NvmeController,
  jobs: readonly PlannedJob[],
  stalled: boolean,
  options: BenchmarkOptions,
): Promise<VfioUserError | undefined> {
  const { device } = controller;
  const waited = Math.max(0, ...jobs.map(({ state }) => state.waitedMs));
  const expiry = new AbortController();
  const timer = setTimeout(
    () => {
      expiry.abort();
      void device.close();
    },
    Math.max(timeoutOf(options) - waited, LEAST_SHUTDOWN_MILLISECONDS),
  );
  try {
    // With doorbells by message, a device that has stopped would block the thread at the first command.
    if (!stalled) await deleteQueues(jobs);
    await controller.close();
    return expiry.signal.aborted ? silent(device, 'while it was shut down') : undefined;
  } catch (error) {
    if (!(error instanceof VfioUserError)) throw asError(error);
    return error.code === 'ERR_VFIO_USER_TIMEOUT' ? silent(device, 'while it was shut down', error) : error;
  } finally {
    clearTimeout(timer);
  }
}

async function measure(endpoints: readonly Endpoint[], options: BenchmarkOptions): Promise<BenchmarkResult> {
  const { signal, giveUp, onProgress } = options;
  const jobs = endpoints.flatMap((endpoint) => endpoint.jobs);
  const stopAll = (): void => {
    for (const { state } of jobs) state.stop();
  };
  const undo = endpoints.map((endpoint) => watchDevice(endpoint, stopAll));
  signal?.addEventListener('abort', stopAll);
  if (signal?.aborted === true) stopAll();
  // The memory of jobs on this thread is the devices', so these are not closed before the jobs have ended.
  const giveUpAll = (): void => {
    for (const { state } of jobs) state.giveUp();
  };
  giveUp?.addEventListener('abort', giveUpAll);
  if (giveUp?.aborted === true) giveUpAll();
  const watch = onProgress && new ProgressWatch(jobs, onProgress);
  try {
    const use = new ProcessorWatch(options.targetPids ?? []);
    const results = await Promise.all(endpoints.map(runJobs));
    const told = endpoints.map((endpoint, index) => {
      const ended = endpointResult(endpoint, results[index] ?? []);
      return { ...ended, doubts: use.doubts(index, results, options) };
    });
    return { endpoints: told, failure: firstFailure(endpoints, told), interrupted: signal?.aborted === true };
  } finally {
    watch?.stop();
    // If one thread has failed, the others still run.
    for (const { state } of jobs) state.abandon();
    for (const stopWatching of undo) stopWatching();
    signal?.removeEventListener('abort', stopAll);
    giveUp?.removeEventListener('abort', giveUpAll);
  }
}

/** Ends the jobs when the device of an endpoint goes away. Returns a function that stops watching. */
function watchDevice(endpoint: Endpoint, stopAll: () => void): () => void {
  const { device } = endpoint.controller;
  const onClose = (error: Error | null): void => {
    endpoint.lost = error;
    for (const { state } of endpoint.jobs) state.abandon();
    // The others would be measured under another load than was asked for.
    stopAll();
  };
  device.once('close', onClose);
  return () => device.off('close', onClose);
}

async function runJobs({ controller, jobs }: Endpoint): Promise<JobResult[]> {
  const { arena, device, capabilities } = controller;
  const bar = await device.region('bar0');
  return Promise.all(
    jobs.map(({ job }) => {
      if (job.doorbells !== null) return runInWorker(job);
      return runBetweenTurns(job, arena.memory.buffer, new SentDoorbells(bar, capabilities.dstrd));
    }),
  );
}

/** Where that fails, the shutdown that follows ends the queues too. */
async function deleteQueues(jobs: readonly PlannedJob[]): Promise<void> {
  try {
    for (const { queue } of jobs) await queue.delete();
  } catch (error) {
    if (!(error instanceof VfioUserError)) throw error;
  }
}

function endpointResult(endpoint: Endpoint, results: readonly JobResult[]): Omit<EndpointResult, 'doubts'> {
  const { controller, namespace, lost } = endpoint;
  const { identify, device } = controller;
  const target: BenchmarkTarget = {
    endpoint: device.name,
    model: identify.mn,
    serial: identify.sn,
    firmware: identify.fr,
    version: controller.version,
    nsid: namespace.id,
    lbaSize: namespace.blockSize,
    capacity: namespace.size,
    mappedDoorbells: controller.mappedDoorbells,
  };
  if (lost === undefined) return { target, jobs: results };
  const message = `went away during the run: ${lost?.message ?? 'closed by this side'}`;
  const ended: JobEnd = { reason: 'lost', message };
  return { target, jobs: results.map((result) => ({ ...result, ended })) };
}

/** An endpoint that went away comes first, since it ends the jobs of all. */
function firstFailure(
  endpoints: readonly Endpoint[],
  results: readonly Pick<EndpointResult, 'target' | 'jobs'>[],
): VfioUserError | undefined {
  const failures = results.flatMap(({ target, jobs }, index) =>
    jobs.flatMap(({ ended }) => {
      const code = ERROR_CODES[ended.reason];
      const cause = endpoints[index]?.lost ?? undefined;
      return code === undefined
        ? []
        : [new VfioUserError(code, `${target.endpoint} ${ended.message}`, { cause })];
    }),
  );
  return failures.find(({ code }) => code === ERROR_CODES.lost) ?? failures[0];
}
