// SPDX-License-Identifier: MIT
import { readFileSync, readdirSync } from 'node:fs';

/** What the scheduler tells of threads (proc(5), `/proc/…/schedstat`). */
export interface SchedulerTimes {
  /** Milliseconds on a processor. */
  readonly runMs: number;
  /** Milliseconds in which a thread was ready to run, and had no processor. */
  readonly waitedMs: number;
}

/** How a process had the processors during a run. */
export interface ProcessorUse extends SchedulerTimes {
  /** Numbers of the processors that its threads may run on. */
  readonly allowed: ReadonlySet<number>;
}

/** The calling thread since it started; undefined where `/proc` does not say. */
export function threadTimes(): SchedulerTimes | undefined {
  return readTimes('/proc/thread-self/schedstat');
}

/**
 * All threads of a process since they started, and where they may run.
 *
 * @returns undefined for a process that is gone, or that `/proc` does not show
 */
export function processorUse(pid: number): ProcessorUse | undefined {
  let [runMs, waitedMs] = [0, 0];
  const allowed = new Set<number>();
  try {
    for (const task of readdirSync(`/proc/${pid}/task`)) {
      const times = readTimes(`/proc/${pid}/task/${task}/schedstat`);
      // A thread may end while its process is looked at.
      if (times === undefined) continue;
      runMs += times.runMs;
      waitedMs += times.waitedMs;
      const status = readFileSync(`/proc/${pid}/task/${task}/status`, 'utf8');
      const list = /^Cpus_allowed_list:\s*(\S+)$/m.exec(status)?.[1] ?? '';
      for (const processor of parseProcessors(list)) allowed.add(processor);
    }
  } catch {
    return undefined;
  }
  return allowed.size === 0 ? undefined : { runMs, waitedMs, allowed };
}

/**
 * A list of processors: `0-2,5`. The form is the kernel's (cpuset(7), "List format") and that of fio's `cpus_allowed`.
 *
 * @returns the numbers, ascending, each once; none for a text that is no list
 */
export function parseProcessors(list: string): number[] {
  const numbers = new Set<number>();
  for (const part of list.split(',')) {
    const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(part.trim());
    const first = Number(match?.[1] ?? NaN);
    const last = Number(match?.[2] ?? first);
    if (!(first <= last)) return [];
    for (let number = first; number <= last; number++) numbers.add(number);
  }
  return [...numbers].sort((a, b) => a - b);
}

function readTimes(path: string): SchedulerTimes | undefined {
  try {
    const [run, waited] = readFileSync(path, 'utf8').split(' ').map(Number);
    return run === undefined || waited === undefined || Number.isNaN(run + waited)
      ? undefined
      : { runMs: run / 1e6, waitedMs: waited / 1e6 };
  } catch {
    return undefined;
  }
}
