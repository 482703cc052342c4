// SPDX-License-Identifier: MIT
import { Worker } from 'node:worker_threads';
import { setImmediate as turn } from 'node:timers/promises';
import { join } from 'node:path';
import { VfioUserError } from '../errors';
import { Mapping } from '../native';
import { MappedDoorbells, type Doorbells } from '../nvme/host';
import { Job } from './job';
import type { JobOutcome, JobPlan } from './plan';

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
}

/** How long a job runs before it looks at the clock and the wishes from outside, when completions keep it busy. */
const SLICE_MILLISECONDS = 10;

/** Runs a job on this thread until it is done. The thread maps memory and doorbells for itself. */
export function runJob(plan: JobPlan): JobReport {
  if (plan.doorbells === null) throw new Error('unreachable: a worker needs mapped doorbells');
  const memory = Mapping.map(plan.memory.fd, plan.memory.offset, plan.memory.size);
  const doorbells = Mapping.map(plan.doorbells.fd, plan.doorbells.offset, plan.doorbells.size);
  try {
    const job = new Job(
      plan,
      memory.buffer,
      new MappedDoorbells(new Uint32Array(doorbells.buffer), plan.dstrd),
    );
    while (job.slice(SLICE_MILLISECONDS));
    return reportOf(job);
  } finally {
    doorbells.close();
    memory.close();
  }
}

/** Runs a job on this thread, between turns of its event loop: for doorbells that are written by message. */
export async function runJobHere(
  plan: JobPlan,
  memory: ArrayBuffer,
  doorbells: Doorbells,
): Promise<JobReport> {
  const job = new Job(plan, memory, doorbells);
  try {
    while (job.slice(SLICE_MILLISECONDS)) await turn();
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
  };
}
