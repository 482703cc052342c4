// SPDX-License-Identifier: MIT
import { mergeResults, type JobResult } from './job-result';
import type { BenchmarkOptions } from './options';
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

  /** @param results the jobs of all endpoints */
  doubts(
    endpoint: number,
    results: readonly (readonly JobResult[])[],
    { completion = 'poll' }: Pick<BenchmarkOptions, 'completion'>,
  ): string[] {
    return doubts({
      completion,
      result: mergeResults(results[endpoint] ?? []),
      target: this.#target(endpoint),
      allJobs: results.flat().length,
      allTargets: results.length,
      ownProcessors: useOf(process.pid)?.allowed ?? new Set(),
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
