// SPDX-License-Identifier: MIT
import type { CompletionMode } from './job';
import type { JobResult } from './job-result';
import type { ProcessorUse, SchedulerTimes } from './processors';

/**
 * Part of its time that a thread may wait for a processor before its figures are doubted. A system with a processor for each
 * thread that polls stays below it, with all that runs beside them.
 */
const TOLERATED_WAIT = 0.1;

/** What a judgement of the figures of an endpoint rests on. */
export interface Evidence {
  readonly completion: CompletionMode;
  /** The jobs of the endpoint. */
  readonly result: Pick<JobResult, 'jobs' | 'runtimeMs' | 'cpu'>;
  /** What the process of the target had during the run; undefined when it cannot be seen. */
  readonly target: TargetUse | undefined;
  /** Jobs and targets of the whole run, each of which polls. */
  readonly allJobs: number;
  readonly allTargets: number;
  /** Numbers of the processors that the jobs may run on; none when that is not known. */
  readonly ownProcessors: ReadonlySet<number>;
}

/** How the process of a target had the processors during a run. */
export interface TargetUse extends ProcessorUse {
  /** Length of the run in milliseconds. */
  readonly wallMs: number;
}

/** Share of a processor that threads got while they wanted one, 0 to 1; 1 for those that wanted none. */
export function processorShare({ runMs, waitedMs }: SchedulerTimes): number {
  return runMs + waitedMs > 0 ? runMs / (runMs + waitedMs) : 1;
}

/** True when a share of a processor is so small that the figures are not those of the device. */
export function isDoubtful(share: number): boolean {
  return share < 1 - TOLERATED_WAIT;
}

/** The times of the threads of jobs, for {@link processorShare}. */
export function jobTimes({ cpu }: Pick<JobResult, 'cpu'>): SchedulerTimes {
  return { runMs: cpu.userMs + cpu.systemMs, waitedMs: cpu.waitedMs };
}

/** Why the figures of an endpoint tell about the scheduler rather than about the device, and what to do; nothing when they do not. */
export function doubts(evidence: Evidence): string[] {
  const { completion, result, target } = evidence;
  const told: string[] = [];
  const times = jobTimes(result);
  // Jobs that sleep wait a little each time that they wake up, which is part of their mode.
  if (completion === 'poll' && starved(times, result.runtimeMs * result.jobs)) {
    const who = result.jobs === 1 ? 'this job had' : `these ${result.jobs} jobs had each`;
    told.push(`${who} ${percent(processorShare(times))} of a processor`);
  }
  if (target !== undefined && starved(target, target.wallMs))
    told.push(`the target had ${percent(processorShare(target))} of the processor time that it wanted`);
  if (told.length === 0) return [];
  return [`${told.join(', and ')}; the figures tell about the scheduler. ${advice(evidence)}`];
}

function starved(times: SchedulerTimes, wallMs: number): boolean {
  return times.waitedMs > wallMs * TOLERATED_WAIT;
}

/** What to do, by why there are too few processors. */
function advice({ allJobs, allTargets, ownProcessors: own, target, completion }: Evidence): string {
  const theirs = target?.allowed ?? own;
  const all = new Set([...own, ...theirs]);
  const adaptive = completion === 'poll' ? '--completion adaptive' : undefined;
  const choices = (...words: (string | undefined)[]): string =>
    words.filter((word) => word !== undefined).join(', or ');
  if (all.size === 1)
    return `Both sides have one processor, number ${[...all].join()}: ${choices('give each one of its own (taskset)', adaptive && `use ${adaptive}`)}`;
  if (own.size > 0 && allJobs > own.size)
    return `${count(allJobs, 'job')} may use ${count(own.size, 'processor')}: ${choices('run fewer jobs (--numjobs)', 'allow more processors (taskset)', adaptive && `use ${adaptive}`)}`;
  if (all.size > 0 && allJobs + allTargets > all.size)
    return `${count(allJobs, 'job')} and ${count(allTargets, 'target')} poll on ${count(all.size, 'processor')}: ${choices('run fewer jobs (--numjobs)', adaptive && `use ${adaptive}`)}`;
  return 'Other programs use the processors: end them, or bind both sides to processors of their own (taskset)';
}

function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`;
}

function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}
