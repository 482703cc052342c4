// SPDX-License-Identifier: MIT
import { readFileSync } from 'node:fs';
import type { CpuUsage } from './job-result';
import { threadTimes, type SchedulerTimes } from './processors';

/** Ticks of `/proc/…/stat` per second: fixed for user space (proc(5), `sysconf(_SC_CLK_TCK)`). */
const MILLISECONDS_PER_TICK = 10;

export const NO_USAGE: CpuUsage = {
  userMs: 0,
  systemMs: 0,
  waitedMs: 0,
  contextSwitches: 0,
  majorFaults: 0,
  minorFaults: 0,
};

/** What the calling thread has cost the processor since it started (proc(5)); all 0 where `/proc` does not say. */
export function threadUsage(): CpuUsage {
  const scheduled = threadTimes();
  if (scheduled === undefined) return NO_USAGE;
  try {
    return {
      ...times(readFileSync('/proc/thread-self/stat', 'utf8'), scheduled),
      contextSwitches: switches(readFileSync('/proc/thread-self/status', 'utf8')),
    };
  } catch {
    return NO_USAGE;
  }
}

/** `later` less `earlier`. */
export function usageBetween(earlier: CpuUsage, later: CpuUsage): CpuUsage {
  return {
    userMs: later.userMs - earlier.userMs,
    systemMs: later.systemMs - earlier.systemMs,
    waitedMs: later.waitedMs - earlier.waitedMs,
    contextSwitches: later.contextSwitches - earlier.contextSwitches,
    majorFaults: later.majorFaults - earlier.majorFaults,
    minorFaults: later.minorFaults - earlier.minorFaults,
  };
}

function times(stat: string, { runMs, waitedMs }: SchedulerTimes): Omit<CpuUsage, 'contextSwitches'> {
  // The second field is the name of the thread in parentheses, which may hold anything. A state and numbers follow it.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const field = (number: number): number => Number(fields[number - 3] ?? 0);
  const system = field(15) * MILLISECONDS_PER_TICK;
  // The sum is exact to the nanosecond, while user and system time are sampled.
  return {
    userMs: Math.max(0, runMs - system),
    systemMs: Math.min(system, runMs),
    waitedMs,
    minorFaults: field(10),
    majorFaults: field(12),
  };
}

function switches(status: string): number {
  const matches = status.matchAll(/^(?:non)?voluntary_ctxt_switches:\s*(\d+)$/gm);
  return Array.from(matches, (match) => Number(match[1])).reduce((sum, count) => sum + count, 0);
}
