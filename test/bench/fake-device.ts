// SPDX-License-Identifier: MIT
import type { Job, Pace } from '../../lib/bench/job';
import { pointerSets } from '../../lib/bench/data-pointers';
import { MOST_PREPARED, queueEntries } from '../../lib/bench/job-entries';
import type { JobResult } from '../../lib/bench/job-result';
import { JobRun } from '../../lib/bench/job-run';
import { JOB_STATE_BYTES, JobState } from '../../lib/bench/job-state';
import type { JobQueuePair } from '../../lib/bench/job-submissions';
import type { Doorbells } from '../../lib/nvme/host/doorbells';
import type { QueueLoop } from '../../lib/nvme/host/queue-loop';
import { ScriptQueueLoop } from '../../lib/nvme/host/script-queue-loop';
import { QueuePair, type QueuePairPlacement } from '../../lib/nvme/host/queue-pair';

const DATASET_MANAGEMENT = 0x09;

/** Device address of the fake memory, and where in it things are. */
export const BASE = 0x2_0000_0000;
export const LBA = 512;
export const LISTS = 0x1_0000;
export const DATA = 0x4_0000;
export const MEMORY_BYTES = 0x20_0000;

export interface Io {
  readonly cid: number;
  readonly opcode: number;
  readonly write: boolean;
  readonly fua: boolean;
  readonly nsid: number;
  readonly lba: number;
  readonly blocks: number;
  /** Words 6 to 9 of the entry, PRP1 and PRP2 or an SGL descriptor, and PSDT. */
  readonly pointer: readonly number[];
  readonly psdt: number;
}

/** As fast as I/Os complete. */
export const PACE: Pace = { iops: Infinity, bandwidth: Infinity, thinkMs: 0, thinkIos: 1 };

/** A device in this thread, which completes what is submitted when its doorbell is rung. */
export class FakeDevice {
  readonly memory: ArrayBuffer;
  readonly log: Io[] = [];
  readonly disk: Uint8Array<ArrayBuffer>;
  /** Most commands that were in flight at once. */
  deepest = 0;
  /** Status of a command; undefined to leave it without an answer. */
  answer: (io: Io, device: FakeDevice) => number | undefined = () => 0;
  /** Where a write really goes. */
  redirect: (lba: number) => number = (lba) => lba;
  /** Commands are kept until so many are there. */
  hold = 1;
  readonly #queue: QueuePairPlacement;
  readonly #words: Uint32Array;
  readonly #kept: Io[] = [];
  #head = 0;
  #completed = 0;

  constructor(
    queue: QueuePairPlacement,
    memory = new ArrayBuffer(MEMORY_BYTES),
    disk = new Uint8Array(0x20_0000),
  ) {
    this.#queue = queue;
    this.memory = memory;
    this.disk = disk;
    this.#words = new Uint32Array(memory);
  }

  readonly head = (): void => undefined;

  tail(_queueId: number, value: number): void {
    for (; this.#head !== value; this.#head = (this.#head + 1) % this.#queue.entries) {
      const at = (this.#queue.submissionOffset + this.#head * 64) / 4;
      const word = (index: number): number => this.#words[at + index]!;
      const io = {
        cid: word(0) >>> 16,
        opcode: word(0) & 0xff,
        write: (word(0) & 0xff) === 1,
        fua: (word(12) & 0x4000_0000) !== 0,
        nsid: word(1),
        lba: word(10) + word(11) * 2 ** 32,
        blocks: (word(12) & 0xffff) + 1,
        pointer: [word(6), word(7), word(8), word(9)],
        psdt: (word(0) >>> 14) & 3,
      };
      const told = io.opcode === DATASET_MANAGEMENT ? { ...io, ...this.#range(io) } : io;
      this.log.push(told);
      this.#kept.push(told);
      if (io.opcode !== DATASET_MANAGEMENT) this.#transfer(io);
    }
    this.deepest = Math.max(this.deepest, this.#kept.length);
    if (this.#kept.length < this.hold) return;
    for (const io of this.#kept.splice(0)) {
      const status = this.answer(io, this);
      if (status !== undefined) this.complete(io.cid, status);
    }
  }

  /** NVMe base 2.0, 3.3.3.2: dword 3 has the command id, the phase tag in bit 16, the status from bit 17. */
  complete(cid: number, status = 0): void {
    const { entries, completionOffset } = this.#queue;
    const phase = 1 - (Math.floor(this.#completed / entries) % 2);
    const at = (completionOffset + (this.#completed++ % entries) * 16) / 4;
    this.#words[at + 3] = ((status << 17) | (phase << 16) | cid) >>> 0;
  }

  /** Parts of the memory, address and length: NVMe base 2.0, 4.1.1 (PRP1, then PRP2 as a page or a list), or 4.1.2. */
  #parts({ pointer, psdt, blocks }: Io): (readonly [number, number])[] {
    const [low, high, third, fourth] = pointer as [number, number, number, number];
    const length = blocks * LBA;
    const first = low + high * 2 ** 32;
    if (psdt === 1) return [[first, third]];
    const pages = [first];
    const second = third + fourth * 2 ** 32;
    const more = Math.ceil((length - (4096 - (first % 4096))) / 4096);
    for (let index = 0; index < more; index++) {
      const at = (second - BASE) / 4 + index * 2;
      pages.push(more === 1 ? second : this.#words[at]! + this.#words[at + 1]! * 2 ** 32);
    }
    let done = 0;
    return pages.map((page) => {
      const part = Math.min(length - done, 4096 - (page % 4096));
      done += part;
      return [page, part];
    });
  }

  /** The only range of Dataset Management (NVM command set 1.0, 3.2.3): attributes, length, first LBA. */
  #range({ pointer, psdt, lba }: Io): Pick<Io, 'lba' | 'blocks'> {
    const [low, high, length] = pointer as [number, number, number, number];
    const at = (low + high * 2 ** 32 - BASE) / 4;
    const [attributes, blocks, first, firstHigh] = this.#words.subarray(at, at + 4);
    // Dword 10 is the number of ranges less 1, dword 11 has AD in bit 2; an SGL descriptor has the length of the data.
    if (lba !== 4 * 2 ** 32 || attributes !== 0 || (psdt === 1 && length !== 16))
      throw new Error('a bad trim');
    return { lba: first! + firstHigh! * 2 ** 32, blocks: blocks! };
  }

  #transfer(io: Io): void {
    const at = (io.write ? this.redirect(io.lba) : io.lba) * LBA;
    let done = 0;
    for (const [address, part] of this.#parts(io)) {
      const memory = new Uint8Array(this.memory, address - BASE, part);
      if (io.write) this.disk.set(memory, at + done);
      else memory.set(this.disk.subarray(at + done, at + done + part));
      done += part;
    }
  }
}

/**
 * A job over 64 blocks of 4 KiB, to the end of them; and its device. The queues have room for prepared entries, so that the
 * queue loop runs, or only for those in flight, so that the job goes one turn at a time.
 */
export function world(changes: Partial<Job> = {}, way: 'loop' | 'each turn' = 'loop') {
  const depth = changes.depth ?? 4;
  const entries = way === 'loop' ? queueEntries(depth, 256) : depth + 1;
  const job: Job = {
    index: 0,
    workload: 'read',
    readShare: 0.5,
    blockSize: 4096,
    depth,
    distribution: { kind: 'once' },
    rampMs: 0,
    runtimeMs: Infinity,
    ioLimit: changes.runtimeMs === undefined ? (changes.ioBlocks ?? 64) : Infinity,
    drainMs: 4000,
    split: null,
    unit: changes.blockSize ?? 4096,
    fua: { read: false, write: false },
    byteLimit: Infinity,
    pace: PACE,
    latencyTarget: null,
    sampleMs: 500,
    processors: null,
    verify: false,
    seed: 42,
    nsid: 7,
    lbaSize: LBA,
    firstLba: 80,
    ioBlocks: 64,
    startBlock: 0,
    memory: { fd: -1, offset: 0, size: 0 },
    iova: BASE,
    dataOffset: DATA,
    bufferBytes: changes.blockSize ?? 4096,
    sgl: false,
    listOffset: LISTS,
    completion: 'poll',
    spinMicroseconds: 0,
    dstrd: 0,
    state: new SharedArrayBuffer(JOB_STATE_BYTES),
    ...changes,
  };
  const queue = { id: 1, entries, submissionOffset: 0, completionOffset: 0x8000 };
  const device = new FakeDevice(queue);
  const run = new JobRun(job, device.memory, queuePair(job, queue, device));
  return { job, queue, device, run, state: new JobState(job.state) };
}

/**
 * The queue pair of a job.
 *
 * @param loop what keeps it full. Default: the loop in TypeScript
 */
export function queuePair(
  job: Job,
  queue: QueuePairPlacement,
  device: FakeDevice,
  { doorbells = device, loop }: { doorbells?: Doorbells; loop?: QueueLoop } = {},
): JobQueuePair {
  const pair = new QueuePair(queue, device.memory, doorbells);
  return {
    pair,
    loop: loop ?? new ScriptQueueLoop(pair, doorbells, job.depth, pointerSets(job), MOST_PREPARED),
  };
}

/** Runs a job to its end, which must come. */
export function finish(run: JobRun): JobResult {
  for (let slices = 0; run.slice(1) !== 'done'; slices++)
    if (slices > 5000) throw new Error('the job does not end');
  return run.result;
}

/** The end of a job in which a command failed. */
export function failure(text: string): Pick<JobResult, 'ended'> {
  return { ended: { reason: 'failed', message: `failed ${text}` } };
}

/** The end of a job whose device completed a command that was not in flight. */
export function stray(cid: number, depth: number): Pick<JobResult, 'ended'> {
  const why = cid < depth ? 'it was completed before, or never sent' : `the ids are 0 to ${depth - 1}`;
  const message = `completed command id ${cid}, which was not in flight: ${why}`;
  return { ended: { reason: 'stray', message } };
}
