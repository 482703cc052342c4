// SPDX-License-Identifier: MIT
import { VfioUserError, type VfioUserErrorCode } from '../errors';
import type { Device } from '../pci';
import { Endpoint } from './endpoint';
import type { JobEnd, JobResult } from './job-result';
import { checkRun, checkWorkload, type RunOptions, type WorkloadOptions } from './options';
import type { PartResult } from './part-result';
import { ProcessorWatch } from './processor-watch';
import { ProgressWatch } from './progress-watch';
import { StatusWatch } from './status-watch';
import { SteadyState, type SteadyOutcome } from './steady-state';

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

/** The code of the error for each way in which a job can fail. */
const ERROR_CODES: Readonly<Partial<Record<JobEnd['reason'], VfioUserErrorCode>>> = {
  failed: 'ERR_VFIO_USER_NVME_STATUS',
  mismatch: 'ERR_VFIO_USER_VERIFY',
  stray: 'ERR_VFIO_USER_NVME_CONTROLLER',
  stalled: 'ERR_VFIO_USER_TIMEOUT',
  lost: 'ERR_VFIO_USER_DISCONNECTED',
  replaced: 'ERR_VFIO_USER_IDENTITY',
  broken: 'ERR_VFIO_USER_NVME_CONTROLLER',
};

/** Ways in which an endpoint ends for all of its jobs. */
const GONE: ReadonlySet<JobEnd['reason']> = new Set(['lost', 'replaced', 'broken']);

/**
 * Measures NVMe controllers, all at the same time: brings them up, runs the jobs of all workloads, and shuts them down. The
 * devices stay open, but for those that do not shut down in time: these are closed. A device that comes back when its server has
 * gone is waited for in the run, and its jobs go on.
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
  const endpoints: Endpoint[] = [];
  const shutDownAll = (result?: BenchmarkResult): Promise<(VfioUserError | undefined)[]> =>
    orGiveUp(devices, options, () =>
      Promise.all(
        endpoints.map((endpoint, index) => {
          const parts = result?.parts.filter((part) => part.endpoint === index) ?? [];
          const stalled = parts.some((part) => part.jobs.some(({ ended }) => ended.reason === 'stalled'));
          return endpoint.shutDown(stalled);
        }),
      ),
    );
  try {
    await orGiveUp(devices, options, () => prepare(devices, workloads, options, endpoints));
    options.onStart?.();
    const result = await measure(endpoints, options);
    const failures = await shutDownAll(result);
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
  endpoints: Endpoint[],
): Promise<void> {
  const at = (endpoint: number): WorkloadOptions[] =>
    workloads.filter(({ endpoints: places }) => places?.includes(endpoint) !== false);
  for (const [index, device] of devices.entries())
    endpoints.push(await Endpoint.open(device, at(index), run));
  for (const [index, endpoint] of endpoints.entries())
    for (const options of at(index)) await endpoint.add(workloads.indexOf(options), options);
}

async function measure(endpoints: readonly Endpoint[], options: RunOptions): Promise<BenchmarkResult> {
  const { targetPids = [] } = options;
  const jobs = endpoints.flatMap((endpoint) => endpoint.jobs);
  const heedNoMore = heed(endpoints, options);
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
      ...endpoint.result(part, results[place] ?? []),
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
    const results = (await Promise.all(endpoints.map((endpoint) => endpoint.run(status)))).flat();
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
      interrupted: options.signal?.aborted === true,
      steady: steady?.outcome,
    };
  } finally {
    watch.stop();
    status.stop();
    // If one thread has failed, the others still run.
    for (const { supply } of endpoints) supply.abandon();
    heedNoMore();
  }
}

/**
 * Ends the jobs when the caller wants that, or an endpoint is gone.
 *
 * @returns what ends to heed it
 */
function heed(endpoints: readonly Endpoint[], { signal, giveUp }: RunOptions): () => void {
  const stopAll = (): void => {
    for (const { supply } of endpoints) supply.stop();
  };
  // The memory of jobs on this thread is the devices', so these are not closed before the jobs have ended.
  const giveUpAll = (): void => {
    for (const { supply } of endpoints) supply.giveUp();
  };
  // The others would be measured under another load than was asked for.
  for (const endpoint of endpoints) endpoint.onLost = stopAll;
  signal?.addEventListener('abort', stopAll);
  giveUp?.addEventListener('abort', giveUpAll);
  if (signal?.aborted === true || endpoints.some(({ supply }) => supply.lost !== undefined)) stopAll();
  if (giveUp?.aborted === true) giveUpAll();
  return () => {
    signal?.removeEventListener('abort', stopAll);
    giveUp?.removeEventListener('abort', giveUpAll);
  };
}

/** An endpoint that went away comes first, since it ends the jobs of all. */
function firstFailure(
  endpoints: readonly Endpoint[],
  results: readonly Omit<PartResult, 'doubts'>[],
): VfioUserError | undefined {
  const failures = results.flatMap(({ endpoint, target, jobs }) =>
    jobs.flatMap(({ ended }) => {
      const code = ERROR_CODES[ended.reason];
      const cause = endpoints[endpoint]?.supply.lost;
      return code === undefined
        ? []
        : [
            {
              reason: ended.reason,
              error: new VfioUserError(code, `${target.endpoint} ${ended.message}`, { cause }),
            },
          ];
    }),
  );
  const gone = failures.find(({ reason }) => GONE.has(reason));
  return (gone ?? failures[0])?.error;
}
