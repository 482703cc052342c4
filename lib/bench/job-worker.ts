// SPDX-License-Identifier: MIT
/** Entry point of the worker thread that runs one job. The thread maps memory and doorbells for itself. */
import { parentPort, workerData } from 'node:worker_threads';
import { Mapping } from '../native';
import { MappedDoorbells } from '../nvme/host/doorbells';
import { NativeQueueLoop } from '../nvme/host/native-queue-loop';
import { QueuePair } from '../nvme/host/queue-pair';
import type { Job, QueueLocation, SharedFile } from './job';
import { pointerSets } from './data-pointers';
import { MOST_PREPARED } from './job-entries';
import type { JobResult } from './job-result';
import { runAlone, type JobMessage, type JobStart, type OpenQueuePair } from './job-runner';

async function runStarted({ job, location }: JobStart): Promise<JobResult> {
  using memory = map(job.memory);
  const open = (at: QueueLocation): OpenQueuePair => openQueuePair(job, memory, at);
  // Awaited here: the mapping ends with this function.
  return await runAlone({ job, location }, memory.buffer, open, {
    snapshot: (result) => {
      send({ kind: 'snapshot', result });
    },
    next: (held) =>
      new Promise((resolve) => {
        // Without a listener the port would not keep the thread alive; with one it would for good.
        parentPort?.once('message', resolve);
        send({ kind: 'paused', held });
      }),
  });
}

/** Maps the doorbells, and makes the loop in C++ that rings them. */
function openQueuePair(job: Job, memory: Mapping, { queue, doorbells: file }: QueueLocation): OpenQueuePair {
  if (file === null) throw new Error('unreachable: a worker needs mapped doorbells');
  const doorbells = map(file);
  const mapped = new MappedDoorbells(new Uint32Array(doorbells.buffer), job.dstrd);
  const loop = new NativeQueueLoop({
    memory,
    ...queue,
    doorbells,
    tailIndex: mapped.tailIndex(queue.id),
    headIndex: mapped.headIndex(queue.id),
    depth: job.depth,
    sets: pointerSets(job),
    room: MOST_PREPARED,
  });
  return {
    pair: new QueuePair(queue, memory.buffer, mapped),
    loop,
    close: () => {
      doorbells.close();
    },
  };
}

function map({ fd, offset, size }: SharedFile): Mapping {
  return Mapping.map(fd, offset, size);
}

function send(message: JobMessage): void {
  parentPort?.postMessage(message);
}

void runStarted(workerData as JobStart).then((result) => {
  send({ kind: 'result', result });
});
