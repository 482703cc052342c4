// SPDX-License-Identifier: MIT
import { Worker } from 'node:worker_threads';
import { setImmediate as turn } from 'node:timers/promises';
import { join } from 'node:path';
import { VfioUserError } from '../errors';
import { EventFd, Mapping } from '../native';
import { MappedDoorbells, type Doorbells } from '../nvme/host';
import { NativeQueueLoop } from '../nvme/host/native-queue-loop';
import { MOST_AHEAD } from './entries-ahead';
import { Job } from './job';
import type { CpuUsage } from './results';
import { JobState, type JobOutcome, type JobPlan } from './plan';

/** What a job measured; crosses threads. */
export interface JobReport {
  readonly outcome: JobOutcome;
  readonly reads: number;
  readonly writes: number;
  readonly elapsedMs: number;
  /** Memory of the latency histograms. */
  readonly readLatency: ArrayBufferLike;
  readonly writeLatency: ArrayBufferLike;
  readonly batchCounts: Float64Array;
  /** What the run cost its thread, without the ramp. */
  readonly cpu: CpuUsage;
}

/** How long a job runs before it looks at the wishes from outside, when completions keep it busy. */
const SLICE_MILLISECONDS = 10;
/**
 * A device that completes nothing for so long is slow, or waits for the core that this loop keeps busy: then polling rests
 * for a moment, so that the two do not take turns of a scheduler's time slice, 4 ms each.
 */
const PATIENCE_MILLISECONDS = 1;
/** How often a job that sleeps looks at the clock and the wishes from outside; also mends an interrupt that was lost. */
const WATCH_MILLISECONDS = 50;

/** Runs a job on this thread until it is done. The thread maps memory and doorbells for itself. */
export async function runJob(plan: JobPlan): Promise<JobReport> {
  if (plan.doorbells === null) throw new Error('unreachable: a worker needs mapped doorbells');
  const memory = Mapping.map(plan.memory.fd, plan.memory.offset, plan.memory.size);
  const doorbells = Mapping.map(plan.doorbells.fd, plan.doorbells.offset, plan.doorbells.size);
  try {
    const mapped = new MappedDoorbells(new Uint32Array(doorbells.buffer), plan.dstrd);
    const loop = new NativeQueueLoop({
      memory,
      ...plan.queue,
      doorbells,
      tailIndex: mapped.tailIndex(plan.queue.id),
      headIndex: mapped.headIndex(plan.queue.id),
      depth: plan.depth,
      room: MOST_AHEAD,
    });
    const job = new Job(plan, memory.buffer, mapped, loop);
    if (plan.interruptFd !== null) await runOnInterrupts(job, plan, plan.interruptFd);
    else runPolling(job, new JobState(plan.state));
    return reportOf(job);
  } finally {
    doorbells.close();
    memory.close();
  }
}

function runPolling(job: Job, state: JobState): void {
  for (;;) {
    const end = job.slice(SLICE_MILLISECONDS, PATIENCE_MILLISECONDS);
    if (end === 'done') return;
    if (end === 'quiet') state.rest();
  }
}

/**
 * Runs a job whose queue signals an eventfd, between turns of the event loop.
 *
 * No signal is lost between the last look at the queue and the sleep: it stays in the eventfd's counter.
 */
function runOnInterrupts(job: Job, plan: JobPlan, fd: number): Promise<void> {
  const patience = plan.completion === 'interrupt' ? 0 : plan.spinMicroseconds / 1000;
  // The descriptor is the device's; it is only watched here.
  const event = EventFd.fromFd(fd);
  return new Promise((resolve) => {
    let turn: NodeJS.Immediate | undefined;
    let timer: NodeJS.Timeout | undefined;
    const step = (): void => {
      clearImmediate(turn);
      clearTimeout(timer);
      const end = job.slice(SLICE_MILLISECONDS, patience);
      if (end === 'done') {
        watcher.close();
        clearInterval(watch);
        resolve();
      } else if (end === 'busy') turn = setImmediate(step);
      else if (job.nextSubmission < WATCH_MILLISECONDS) timer = setTimeout(step, job.nextSubmission);
    };
    const watcher = event.watch(step);
    const watch = setInterval(step, WATCH_MILLISECONDS);
    step();
  });
}

/** Runs a job on this thread, between turns of its event loop: for doorbells that are written by message. */
export async function runJobHere(
  plan: JobPlan,
  memory: ArrayBuffer,
  doorbells: Doorbells,
): Promise<JobReport> {
  const job = new Job(plan, memory, doorbells);
  try {
    if (plan.interruptFd !== null) await runOnInterrupts(job, plan, plan.interruptFd);
    else while (job.slice(SLICE_MILLISECONDS, PATIENCE_MILLISECONDS) !== 'done') await turn();
  } catch (error) {
    // A doorbell could not be written, since the device is gone; what was measured before counts.
    if (!(error instanceof VfioUserError) || error.code !== 'ERR_VFIO_USER_DISCONNECTED') throw error;
  }
  return reportOf(job);
}

/** Runs a job on a worker thread of its own. */
export function runJobInWorker(plan: JobPlan): Promise<JobReport> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(join(__dirname, 'job-worker.js'), { workerData: plan });
    worker.once('message', (report: JobReport) => {
      resolve(report);
    });
    worker.once('error', reject);
    worker.once('exit', (code) => {
      reject(
        new Error(
          `the thread of job ${String(plan.index)} ended with code ${String(code)} before it reported`,
        ),
      );
    });
  });
}

function reportOf(job: Job): JobReport {
  return {
    outcome: job.outcome,
    reads: job.reads,
    writes: job.writes,
    elapsedMs: job.elapsedMs,
    readLatency: job.readLatency.buffer,
    writeLatency: job.writeLatency.buffer,
    batchCounts: job.batchCounts,
    cpu: job.cpu,
  };
}
