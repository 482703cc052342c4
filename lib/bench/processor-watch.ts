// SPDX-License-Identifier: MIT
import { mergeResults, type JobResult } from './job-result';
import type { WorkloadOptions } from './options';
import { processorUse, type ProcessorUse } from './processors';
import { doubts, type TargetUse } from './trust';

/** Looks at what both sides get of the processors, from its construction on. */
export class ProcessorWatch {
  readonly #pids: readonly (number | undefined)[];
  readonly #before: readonly (ProcessorUse | undefined)[];
  readonly #began = performance.now();

  /** @param pids processes of the targets, in the order of the endpoints */
  constructor(pids: readonly (number | undefined)[]) {
    // A target in this process shares its threads with the jobs.
    this.#pids = pids.map((pid) => (pid === process.pid ? undefined : pid));
    this.#before = this.#pids.map(useOf);
  }

  /**
   * @param results the jobs of a workload at the endpoint
   * @param allJobs number of jobs of the whole run
   */
  doubts(
    endpoint: number,
    results: readonly JobResult[],
    allJobs: number,
    { completion = 'poll', processors }: Pick<WorkloadOptions, 'completion' | 'processors'>,
  ): string[] {
    return doubts({
      completion,
      result: mergeResults(results),
      target: this.#target(endpoint),
      allJobs,
      allTargets: this.#pids.length,
      ownProcessors:
        processors === undefined ? (useOf(process.pid)?.allowed ?? new Set()) : new Set(processors),
    });
  }

  #target(endpoint: number): TargetUse | undefined {
    const before = this.#before[endpoint];
    const after = useOf(this.#pids[endpoint]);
    return before === undefined || after === undefined
      ? undefined
      : {
          allowed: after.allowed,
          runMs: Math.max(0, after.runMs - before.runMs),
          waitedMs: Math.max(0, after.waitedMs - before.waitedMs),
          wallMs: performance.now() - this.#began,
        };
  }
}

function useOf(pid: number | undefined): ProcessorUse | undefined {
  return pid === undefined || pid === 0 ? undefined : processorUse(pid);
}
