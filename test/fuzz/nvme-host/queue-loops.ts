// SPDX-License-Identifier: MIT
import { isDeepStrictEqual } from 'node:util';
import { Mapping, closeFd, createSharedMemory } from '../../../lib/native';
import { MappedDoorbells } from '../../../lib/nvme/host/doorbells';
import { NativeQueueLoop } from '../../../lib/nvme/host/native-queue-loop';
import type { QueueLoop } from '../../../lib/nvme/host/queue-loop';
import { ScriptQueueLoop } from '../../../lib/nvme/host/script-queue-loop';
import { QueuePair } from '../../../lib/nvme/host/queue-pair';
import { CQE_BYTES, SQE_BYTES } from '../../../lib/nvme/spec';
import { Violation } from '../role';
import type { Loop } from './steps';

/** What a run of a queue loop leaves: the number of completions, their command ids, the submission entries, the doorbells. */
type LoopResult = readonly [
  count: number,
  cids: Uint32Array,
  submissions: Uint32Array,
  doorbells: Uint32Array,
];

/** The form in C++ and the form in TypeScript do the same with the same queue. */
export function compareLoops(step: Loop): void {
  const script = runLoop(step, false);
  const native = runLoop(step, true);
  const same = script.every((part, index) => isDeepStrictEqual(part, native[index]));
  if (!same)
    throw new Violation(
      `the queue loop in C++ takes ${native[0]} completions (${native[1].join(' ')}), the one in TypeScript ${script[0]} (${script[1].join(' ')})`,
    );
}

const PAGE = 4096;
const SETS = 2;
const pages = (bytes: number): number => Math.ceil(bytes / PAGE) * PAGE;

function runLoop({ entries, depth, room, completions, ...from }: Loop, native: boolean): LoopResult {
  const completionOffset = pages(entries * SQE_BYTES);
  const doorbellOffset = completionOffset + pages(entries * CQE_BYTES);
  const fd = createSharedMemory(doorbellOffset + PAGE);
  const memory = Mapping.map(fd, 0, doorbellOffset);
  const doorbells = Mapping.map(fd, doorbellOffset, PAGE);
  try {
    const placement = { id: 1, entries, submissionOffset: 0, completionOffset };
    const rung = new MappedDoorbells(new Uint32Array(doorbells.buffer), 0);
    const pair = new QueuePair(placement, memory.buffer, rung);
    const words = new Uint32Array(completions.slice().buffer);
    for (const [index, word] of words.entries()) pair.completions[index * 4 + 3] = word;
    pair.submissions.fill(0x0102_0304);
    const loop: QueueLoop = native
      ? new NativeQueueLoop({
          ...placement,
          memory,
          doorbells,
          tailIndex: rung.tailIndex(1),
          headIndex: rung.headIndex(1),
          depth,
          sets: SETS,
          room,
        })
      : new ScriptQueueLoop(pair, rung, depth, SETS, room);
    for (const index of loop.pointers.keys()) loop.pointers[index] = index + 1;
    // Entries take turns between the sets of data pointers.
    for (const entry of loop.sets.keys()) loop.sets[entry] = (entry % SETS) * (loop.pointers.length / SETS);
    const ready = Math.min(from.ready, entries - 1);
    const count = loop.run(from.tail, from.head, from.phase, ready, 0);
    const most = Math.min(ready, room);
    if (count < 0 || count > most)
      throw new Violation(`a queue loop takes ${count} completions, at most ${most} may be`);
    return [
      count,
      loop.cids.slice(0, count),
      pair.submissions.slice(),
      new Uint32Array(doorbells.buffer, 0, 16).slice(),
    ];
  } finally {
    memory.close();
    doorbells.close();
    closeFd(fd);
  }
}
