// SPDX-License-Identifier: MIT
import { VfioUserError, asError, type VfioUserErrorCode } from '../errors';
import type { NvmeController, NvmeNamespace } from '../nvme/host';
import { SentDoorbells } from '../nvme/host/doorbells';
import type { Device } from '../pci';
import type { JobEnd, JobResult } from './job-result';
import { runBetweenTurns, runInWorker } from './job-runner';
import { checkRun, checkWorkload, timeoutOf, type RunOptions, type WorkloadOptions } from './options';
import { attachController, pickNamespace, planJobs, type PlannedJob } from './plan';
import { ProcessorWatch } from './processor-watch';
import { ProgressWatch } from './progress-watch';
import { StatusWatch } from './status-watch';
import { SteadyState, type SteadyOutcome } from './steady-state';

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

/** What a workload has measured at one endpoint. */
export interface PartResult {
  /** The endpoint and the workload, by their index in what was asked for. */
  readonly endpoint: number;
  readonly workload: number;
  readonly target: BenchmarkTarget;
  readonly jobs: readonly JobResult[];
  /** Why the figures are not those of the device, and what to do; empty when there is no doubt. */
  readonly doubts: readonly string[];
}

/** The result of a run, also of one that failed or was ended early. */
export interface BenchmarkResult {
  /** By endpoint, and there by workload, in the order in which they were given. */
  readonly parts: readonly PartResult[];
  /** Why the run failed; undefined when it did not. */
  readonly failure?: VfioUserError | undefined;
  /** True when {@link RunOptions.signal} ended the run. */
  readonly interrupted: boolean;
  /** What has become of {@link RunOptions.steadyState}. */
  readonly steady?: SteadyOutcome | undefined;
}

/** A controller that is measured. */
interface Endpoint {
  readonly controller: NvmeController;
  readonly parts: readonly EndpointPart[];
  /** Why the connection ended during the run, null when this side closed it; undefined when it did not end. */
  lost?: Error | null;
}

/** A workload at an endpoint. */
interface EndpointPart {
  readonly workload: number;
  readonly options: WorkloadOptions;
  readonly namespace: NvmeNamespace;
  readonly jobs: readonly PlannedJob[];
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
 * Measures NVMe controllers, all at the same time: brings them up, runs the jobs of all workloads, and shuts them down. The
 * devices stay open, but for those that do not shut down in time: these are closed.
 *
 * @throws RangeError or TypeError for options that a controller cannot satisfy, before anything is written; VfioUserError
 *   when a controller does not start
 */
export async function benchmark(
  devices: readonly Device[],
  workloads: readonly WorkloadOptions[],
  options: RunOptions = {},
): Promise<BenchmarkResult> {
  checkRun(options);
  for (const workload of workloads) checkWorkload(workload);
  const controllers: NvmeController[] = [];
  const shutDownAll = (run?: Run): Promise<(VfioUserError | undefined)[]> =>
    orGiveUp(devices, options, () =>
      Promise.all(
        controllers.map((controller, index) => {
          const endpoint = run?.endpoints[index];
          const jobs = endpoint === undefined ? [] : jobsOf(endpoint);
          const parts = run?.result.parts.filter((part) => part.endpoint === index) ?? [];
          const stalled = parts.some((part) => part.jobs.some(({ ended }) => ended.reason === 'stalled'));
          return shutDown(controller, jobs, stalled, options);
        }),
      ),
    );
  try {
    const endpoints = await orGiveUp(devices, options, () =>
      prepare(devices, workloads, options, controllers),
    );
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

function jobsOf({ parts }: Endpoint): PlannedJob[] {
  return parts.flatMap(({ jobs }) => jobs);
}

/** Runs an action that waits for devices. The wish to give up closes them, which ends it. */
async function orGiveUp<T>(
  devices: readonly Device[],
  { giveUp }: RunOptions,
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
  workloads: readonly WorkloadOptions[],
  run: RunOptions,
  controllers: NvmeController[],
): Promise<Endpoint[]> {
  const at = (endpoint: number): WorkloadOptions[] =>
    workloads.filter(({ endpoints }) => endpoints?.includes(endpoint) !== false);
  for (const [index, device] of devices.entries())
    controllers.push(await answering(device, () => attachController(device, at(index), run)));
  const endpoints: Endpoint[] = [];
  for (const [index, controller] of controllers.entries()) {
    const parts: EndpointPart[] = [];
    let jobs = 0;
    for (const options of at(index)) {
      const namespace = pickNamespace(controller, options.nsid);
      const plan = (): Promise<PlannedJob[]> => planJobs(controller, namespace, options, run, jobs);
      const planned = await answering(controller.device, plan);
      jobs += planned.length;
      parts.push({ workload: workloads.indexOf(options), options, namespace, jobs: planned });
    }
    endpoints.push({ controller, parts });
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
  options: RunOptions,
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

async function measure(endpoints: readonly Endpoint[], options: RunOptions): Promise<BenchmarkResult> {
  const { signal, giveUp, targetPids = [] } = options;
  const jobs = endpoints.flatMap(jobsOf);
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
  const steady = options.steadyState && new SteadyState(options.steadyState);
  const watch = new ProgressWatch(jobs, (progress) => {
    options.onProgress?.(progress);
    const { elapsedMs, ios, bytes } = progress;
    if (progress.phase === 'run' && steady?.look(elapsedMs, ios, bytes) === true)
      for (const { state } of jobs) state.finish();
  });
  const allParts = endpoints.flatMap((endpoint, index) =>
    endpoint.parts.map((part) => ({ endpoint, index, part })),
  );
  const told = (results: readonly (readonly JobResult[])[]): Omit<PartResult, 'doubts'>[] =>
    allParts.map(({ endpoint, index, part }, place) => ({
      ...partResult(endpoint, part, results[place] ?? []),
      endpoint: index,
    }));
  const status = new StatusWatch(
    allParts.map(({ part }) => part.jobs),
    options.statusInterval,
    (results) => {
      options.onStatus?.(told(results).map((part) => ({ ...part, doubts: [] })));
    },
  );
  try {
    const use = new ProcessorWatch(targetPids);
    const results = (await Promise.all(endpoints.map((endpoint) => runJobs(endpoint, status)))).flat();
    const parts = told(results).map((part, place) => {
      const allJobs = results.flat().length;
      const { completion, processors } = allParts[place]?.part.options ?? {};
      const doubts = use.doubts(part.endpoint, part.jobs, allJobs, {
        ...(completion === undefined ? {} : { completion }),
        ...(processors === undefined ? {} : { processors }),
      });
      return { ...part, doubts };
    });
    return {
      parts,
      failure: firstFailure(endpoints, parts),
      interrupted: signal?.aborted === true,
      steady: steady?.outcome,
    };
  } finally {
    watch.stop();
    status.stop();
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
    for (const { state } of jobsOf(endpoint)) state.abandon();
    // The others would be measured under another load than was asked for.
    stopAll();
  };
  device.once('close', onClose);
  return () => device.off('close', onClose);
}

/** The results of the jobs of each part. */
async function runJobs({ controller, parts }: Endpoint, status: StatusWatch): Promise<JobResult[][]> {
  const { arena, device, capabilities } = controller;
  const bar = await device.region('bar0');
  return Promise.all(
    parts.map(({ jobs }) =>
      Promise.all(
        jobs.map((planned) => {
          const { job } = planned;
          const onSnapshot = (result: JobResult): void => {
            status.take(planned, result);
          };
          const doorbells = new SentDoorbells(bar, capabilities.dstrd);
          const run =
            job.doorbells === null
              ? runBetweenTurns(job, arena.memory.buffer, doorbells, onSnapshot)
              : runInWorker(job, onSnapshot);
          return run.then((result) => {
            status.ended(planned, result);
            return result;
          });
        }),
      ),
    ),
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

function partResult(
  endpoint: Endpoint,
  { workload, namespace }: EndpointPart,
  results: readonly JobResult[],
): Omit<PartResult, 'endpoint' | 'doubts'> {
  const { controller, lost } = endpoint;
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
  if (lost === undefined) return { workload, target, jobs: results };
  const message = `went away during the run: ${lost?.message ?? 'closed by this side'}`;
  const ended: JobEnd = { reason: 'lost', message };
  return { workload, target, jobs: results.map((result) => ({ ...result, ended })) };
}

/** An endpoint that went away comes first, since it ends the jobs of all. */
function firstFailure(
  endpoints: readonly Endpoint[],
  results: readonly Omit<PartResult, 'doubts'>[],
): VfioUserError | undefined {
  const failures = results.flatMap(({ endpoint, target, jobs }) =>
    jobs.flatMap(({ ended }) => {
      const code = ERROR_CODES[ended.reason];
      const cause = endpoints[endpoint]?.lost ?? undefined;
      return code === undefined
        ? []
        : [new VfioUserError(code, `${target.endpoint} ${ended.message}`, { cause })];
    }),
  );
  return failures.find(({ code }) => code === ERROR_CODES.lost) ?? failures[0];
}
