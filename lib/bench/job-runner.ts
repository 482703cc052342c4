// SPDX-License-Identifier: MIT
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { EventFd, bindThread, duplicateFd } from '../native';
import type { Doorbells } from '../nvme/host';
import { ScriptQueueLoop } from '../nvme/host/script-queue-loop';
import { QueuePair } from '../nvme/host/queue-pair';
import type { Job, QueueLocation } from './job';
import { pointerSets } from './data-pointers';
import { MOST_PREPARED } from './job-entries';
import type { JobResult } from './job-result';
import { JobRun, type SliceEnd } from './job-run';
import { JobState } from './job-state';
import type { JobQueuePair } from './job-submissions';

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

/** What the thread of a job sends to the thread that controls the run. */
export type JobMessage =
  /** What it has done so far, as often as that is asked for. */
  | { readonly kind: 'snapshot'; readonly result: JobResult }
  /** That it has paused, with so many commands in flight. The answer is a {@link QueueLocation}, or null. */
  | { readonly kind: 'paused'; readonly held: number }
  /** Its result, at the end. */
  | { readonly kind: 'result'; readonly result: JobResult };

/** What starts the thread of a job. */
export interface JobStart {
  readonly job: Job;
  readonly location: QueueLocation;
}

/** Who controls a job. */
export interface JobControl {
  /** Takes what the job has done so far. */
  snapshot(result: JobResult): void;
  /**
   * The job does not use its queue pair any more.
   *
   * @param held commands that were in flight
   * @returns where to go on; null to end
   */
  next(held: number): Promise<QueueLocation | null>;
}

/** A queue pair that a thread can drive. */
export interface OpenQueuePair extends JobQueuePair {
  /** Unmaps what was mapped for it. */
  close(): void;
}

/** Runs a job on a worker thread of its own, which needs mapped doorbells. */
export function runInWorker(start: JobStart, control: JobControl): Promise<JobResult> {
  return new Promise((resolve, reject: (error: Error) => void) => {
    const worker = new Worker(join(__dirname, 'job-worker.js'), { workerData: start });
    worker.on('message', (message: JobMessage) => {
      switch (message.kind) {
        case 'snapshot':
          control.snapshot(message.result);
          break;
        case 'paused':
          control.next(message.held).then((location) => {
            worker.postMessage(location);
          }, reject);
          break;
        case 'result':
          resolve(message.result);
      }
    });
    worker.once('error', reject);
    worker.once('exit', (code) => {
      reject(new Error(`the thread of job ${start.job.index} ended with code ${code} before it reported`));
    });
  });
}

/**
 * Runs a job on this thread, between turns of its event loop: for doorbells that are written by message.
 *
 * @param memory the memory of the job
 * @param doorbells makes the doorbells of a connection
 */
export function runBetweenTurns(
  { job, location }: JobStart,
  memory: ArrayBuffer,
  doorbells: () => Doorbells,
  control: JobControl,
): Promise<JobResult> {
  const open = ({ queue }: QueueLocation): OpenQueuePair => {
    const access = doorbells();
    const pair = new QueuePair(queue, memory, access);
    const loop = new ScriptQueueLoop(pair, access, job.depth, pointerSets(job), MOST_PREPARED);
    return { pair, loop, close: () => undefined };
  };
  return runJob({ job, location }, memory, open, control, async (run, answer) => {
    for (;;) {
      const end = run.slice(TURN_MILLISECONDS, PATIENCE_MILLISECONDS);
      if (end === 'done' || end === 'paused') return end;
      answer();
      await turn();
    }
  });
}

/** Runs a job on this thread, which has nothing else to do. */
export function runAlone(
  start: JobStart,
  memory: ArrayBuffer,
  open: (location: QueueLocation) => OpenQueuePair,
  control: JobControl,
): Promise<JobResult> {
  const state = new JobState(start.job.state);
  return runJob(start, memory, open, control, (run, answer) =>
    Promise.resolve(runPolling(run, state, answer)),
  );
}

/** How a job left its queue pair. */
type Leaving = Extract<SliceEnd, 'paused' | 'done'>;

/**
 * Runs a job on one queue pair after the other, until it has ended.
 *
 * @param poll drives a job that polls, until it leaves its queue pair. It calls `answer` about every 10 ms
 */
async function runJob(
  { job, location }: JobStart,
  memory: ArrayBuffer,
  open: (location: QueueLocation) => OpenQueuePair,
  control: JobControl,
  poll: (run: JobRun, answer: () => void) => Promise<Leaving>,
): Promise<JobResult> {
  if (job.processors !== null) bindThread(job.processors);
  const state = new JobState(job.state);
  let queue = open(location);
  try {
    const run = new JobRun(job, memory, queue);
    const answer = (): void => {
      if (state.takeQuestion()) control.snapshot(run.result);
    };
    for (let at: QueueLocation | null = location; ;) {
      const { interruptFd } = at;
      const leaving = await (interruptFd === null
        ? poll(run, answer)
        : runOnInterrupts(run, job, interruptFd, answer));
      if (leaving === 'done') return run.result;
      queue.close();
      control.snapshot(run.result);
      at = await control.next(run.heldCount);
      if (at === null) {
        run.endPaused();
        return run.result;
      }
      queue = open(at);
      run.attach(queue);
    }
  } finally {
    queue.close();
  }
}

function runPolling(run: JobRun, state: JobState, answer: () => void): Leaving {
  for (;;) {
    const end = run.slice(SLICE_MILLISECONDS, PATIENCE_MILLISECONDS);
    if (end === 'done' || end === 'paused') return end;
    answer();
    if (end === 'quiet') state.rest();
  }
}

/**
 * Runs a job whose queue signals an eventfd, between turns of the event loop. A signal that comes between the last look at
 * the queue and the sleep is not lost: it stays in the counter of the eventfd.
 */
function runOnInterrupts(run: JobRun, job: Job, fd: number, answer: () => void): Promise<Leaving> {
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
      if (end === 'done' || end === 'paused') {
        stopWatching();
        resolve(end);
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
