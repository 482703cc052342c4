// SPDX-License-Identifier: MIT
/** Entry point of the worker thread that runs one job. The thread maps memory and doorbells for itself. */
import { parentPort, workerData } from 'node:worker_threads';
import { Mapping } from '../native';
import { MappedDoorbells } from '../nvme/host/doorbells';
import { NativeQueueLoop } from '../nvme/host/native-queue-loop';
import type { Job, SharedFile } from './job';
import { MOST_PREPARED, pointerSets } from './job-entries';
import type { JobResult } from './job-result';
import { JobRun } from './job-run';
import { runAlone, type JobMessage } from './job-runner';

async function runJob(job: Job): Promise<JobResult> {
  if (job.doorbells === null) throw new Error('unreachable: a worker needs mapped doorbells');
  using memory = map(job.memory);
  using doorbells = map(job.doorbells);
  const mapped = new MappedDoorbells(new Uint32Array(doorbells.buffer), job.dstrd);
  const loop = new NativeQueueLoop({
    memory,
    ...job.queue,
    doorbells,
    tailIndex: mapped.tailIndex(job.queue.id),
    headIndex: mapped.headIndex(job.queue.id),
    depth: job.depth,
    sets: pointerSets(job),
    room: MOST_PREPARED,
  });
  // Awaited here: the mappings end with this function.
  return await runAlone(new JobRun(job, memory.buffer, mapped, loop), job, (result) => {
    send({ kind: 'snapshot', result });
  });
}

function map({ fd, offset, size }: SharedFile): Mapping {
  return Mapping.map(fd, offset, size);
}

function send(message: JobMessage): void {
  parentPort?.postMessage(message);
}

void runJob(workerData as Job).then((result) => {
  send({ kind: 'result', result });
});
