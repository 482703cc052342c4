// SPDX-License-Identifier: MIT
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { EventFd, bindThread, duplicateFd } from '../native';
import type { Doorbells } from '../nvme/host';
import type { Job } from './job';
import type { JobResult } from './job-result';
import { JobRun } from './job-run';
import { JobState } from './job-state';

/** How long a job runs before it looks at the wishes from outside, when completions keep it busy. */
const SLICE_MILLISECONDS = 10;
/** The same between turns of the event loop, which takes the answers to doorbells that are messages. */
const TURN_MILLISECONDS = 1;
/**
 * After so long without a completion, polling rests for a moment. The device may be slow, or may wait for the core that this
 * loop keeps busy; without the rest the two would take turns of a scheduler's time slice, 4 ms each.
 */
const PATIENCE_MILLISECONDS = 1;
/** How often a job that sleeps looks at the clock and at the wishes from outside, and whether an interrupt was lost. */
const WATCH_MILLISECONDS = 50;

/** What the thread of a job sends: what it has done so far, as often as that is asked for, and at the end its result. */
export interface JobMessage {
  readonly kind: 'snapshot' | 'result';
  readonly result: JobResult;
}

/** Takes what a job has done so far. */
export type SnapshotHandler = (result: JobResult) => void;

/** Runs a job on a worker thread of its own, which needs mapped doorbells. */
export function runInWorker(job: Job, onSnapshot: SnapshotHandler): Promise<JobResult> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(join(__dirname, 'job-worker.js'), { workerData: job });
    worker.on('message', ({ kind, result }: JobMessage) => {
      if (kind === 'result') resolve(result);
      else onSnapshot(result);
    });
    worker.once('error', reject);
    worker.once('exit', (code) => {
      reject(new Error(`the thread of job ${job.index} ended with code ${code} before it reported`));
    });
  });
}

/** Runs a job on this thread, between turns of its event loop: for doorbells that are written by message. */
export async function runBetweenTurns(
  job: Job,
  memory: ArrayBuffer,
  doorbells: Doorbells,
  onSnapshot: SnapshotHandler,
): Promise<JobResult> {
  if (job.processors !== null) bindThread(job.processors);
  const run = new JobRun(job, memory, doorbells);
  const answer = answerer(run, job, onSnapshot);
  if (job.interruptFd !== null) await runOnInterrupts(run, job, job.interruptFd, answer);
  else {
    while (run.slice(TURN_MILLISECONDS, PATIENCE_MILLISECONDS) !== 'done') {
      answer();
      await turn();
    }
  }
  return run.result;
}

/** Runs a job on this thread, which has nothing else to do. */
export async function runAlone(run: JobRun, job: Job, onSnapshot: SnapshotHandler): Promise<JobResult> {
  if (job.processors !== null) bindThread(job.processors);
  const answer = answerer(run, job, onSnapshot);
  if (job.interruptFd !== null) await runOnInterrupts(run, job, job.interruptFd, answer);
  else runPolling(run, new JobState(job.state), answer);
  return run.result;
}

/** A function that tells what the job has done so far, if somebody has asked. */
function answerer(run: JobRun, job: Job, onSnapshot: SnapshotHandler): () => void {
  const state = new JobState(job.state);
  return () => {
    if (state.takeQuestion()) onSnapshot(run.result);
  };
}

function runPolling(run: JobRun, state: JobState, answer: () => void): void {
  for (;;) {
    const end = run.slice(SLICE_MILLISECONDS, PATIENCE_MILLISECONDS);
    if (end === 'done') return;
    answer();
    if (end === 'quiet') state.rest();
  }
}

/**
 * Runs a job whose queue signals an eventfd, between turns of the event loop. A signal that comes between the last look at
 * the queue and the sleep is not lost: it stays in the counter of the eventfd.
 */
function runOnInterrupts(run: JobRun, job: Job, fd: number, answer: () => void): Promise<void> {
  const patience = job.completion === 'interrupt' ? 0 : job.spinMicroseconds / 1000;
  // The descriptor belongs to the device, so a duplicate is watched.
  const event = EventFd.fromFd(duplicateFd(fd));
  return new Promise((resolve, reject: (error: Error) => void) => {
    let next: NodeJS.Immediate | undefined;
    let timer: NodeJS.Timeout | undefined;
    const step = (): void => {
      clearImmediate(next);
      clearTimeout(timer);
      let end;
      try {
        end = run.slice(SLICE_MILLISECONDS, patience);
        answer();
      } catch (error) {
        stopWatching();
        reject(error as Error);
        return;
      }
      if (end === 'done') {
        stopWatching();
        resolve();
      } else if (end === 'busy') next = setImmediate(step);
      else if (run.nextSubmission < WATCH_MILLISECONDS) timer = setTimeout(step, run.nextSubmission);
    };
    event.watch(step);
    const watch = setInterval(step, WATCH_MILLISECONDS);
    const stopWatching = (): void => {
      event.close();
      clearInterval(watch);
    };
    step();
  });
}
