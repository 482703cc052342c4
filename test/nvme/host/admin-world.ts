// SPDX-License-Identifier: MIT
import { NvmeAdmin, QueuePair } from '../../../lib/nvme/host';
import { AdminQueue } from '../../../lib/nvme/host/admin-queue';
import { DmaArena } from '../../../lib/nvme/host/dma-arena';
import { unwatched } from './support';

export const IOVA = 0x10_0000_0000;
const ENTRIES = 8;
export const ARENA = 64 << 10;

/** A command as the controller sees it. */
export interface Seen {
  /** All 16 words. */
  readonly words: Uint32Array;
  /** Words by name, those that are not 0; data pointer and command id left out. */
  readonly fields: Record<string, number>;
  /** The memory at an address of the data pointer or of a PRP list. */
  readonly memory: (address: number) => Uint8Array;
}

/** What the controller does: status field and dword 0 of the completion; nothing for a command that is held. */
export type Answer = (command: Seen) => { status?: number; result?: number } | undefined;

/** The admin commands of a controller that is this test. */
export function world(answer: Answer = () => ({})) {
  const buffer = new ArrayBuffer(ARENA);
  const close = (): Promise<void> => Promise.resolve();
  const arena = new DmaArena({ buffer, iova: IOVA, size: buffer.byteLength, fd: -1, fdOffset: 0, close });
  const seen: Seen[] = [];
  let [submitted, head, phase] = [0, 0, 1];
  const complete = (cid: number, { status = 0, result = 0 }): void => {
    pair.completions[head * 4] = result;
    pair.completions[head * 4 + 3] = ((status << 17) | (phase << 16) | cid) >>> 0;
    head = (head + 1) % ENTRIES;
    if (head === 0) phase ^= 1;
  };
  const tail = (_queue: number, end: number): void => {
    for (; submitted !== end; submitted = (submitted + 1) % ENTRIES) {
      const words = pair.submissions.slice(submitted * 16, submitted * 16 + 16);
      const memory = (address: number): Uint8Array => new Uint8Array(buffer, address - IOVA);
      const command = { words, fields: fieldsOf(words), memory };
      seen.push(command);
      const completion = answer(command);
      if (completion !== undefined) complete(words[0]! >>> 16, completion);
    }
  };
  arena.allocate(4096);
  const placement = { id: 0, entries: ENTRIES, submissionOffset: 0, completionOffset: 1024 };
  const pair = new QueuePair(placement, buffer, { tail, head: () => undefined });
  const queue = new AdminQueue('drive', arena, 1000, unwatched());
  queue.start(pair);
  return { admin: new NvmeAdmin(queue), queue, arena, seen, complete };
}

/** NVMe base 2.0, 3.3.3.1. */
function fieldsOf(words: Uint32Array): Record<string, number> {
  const names = ['opcode', 'nsid', 'cdw2', 'cdw3', 'mptr', 'mptr', '', '', '', ''];
  for (let index = 10; index < 16; index++) names.push(`cdw${index}`);
  const values = [words[0]! & 0xffff, ...words.subarray(1)];
  const pairs = names.map((name, index) => [name, values[index]!] as const);
  return Object.fromEntries(pairs.filter(([name, value]) => name !== '' && value !== 0));
}

export const address = (words: Uint32Array, at: number): number => words[at + 1]! * 2 ** 32 + words[at]!;

/** Answers with data, in the first page. */
export function sends(bytes: Record<number, readonly number[] | string>): Answer {
  return ({ words, memory }) => {
    for (const [offset, part] of Object.entries(bytes)) {
      memory(address(words, 6)).set(
        typeof part === 'string' ? Buffer.from(part, 'latin1') : part,
        Number(offset),
      );
    }
    return {};
  };
}
