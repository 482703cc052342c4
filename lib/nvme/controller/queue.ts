// SPDX-License-Identifier: MIT
import type { Claim } from '../../async';
import { CQE_BYTES, CQE_PHASE_SHIFT, CQE_STATUS_SHIFT, CQE_WORDS, CqeWord } from '../spec/completion-entry';
import { SQE_BYTES, SQE_WORDS } from '../spec/submission-entry';
import { QueueMemory, type QueuePlace } from './queue-memory';

/** x86 keeps the order of loads and the order of stores. Elsewhere an atomic access does, which takes about 9 ns. */
const ORDERED = process.arch === 'x64' || process.arch === 'ia32';

/** A completion that waits for a free entry. */
interface Waiting {
  readonly cid: number;
  readonly sqId: number;
  readonly sqHead: number;
  readonly status: number;
  readonly dw0: number;
}

/** A completion queue (NVMe base 2.0, 3.3.1): the controller writes entries, and the host moves the head. */
export class CompletionQueue extends QueueMemory {
  readonly id: number;
  /** MSI-X vector; -1 when interrupts are disabled. */
  readonly vector: number;
  /** Number of submission queues whose commands complete here. */
  users = 0;
  /** Number of commands that run and will need an entry. */
  reserved = 0;
  /** Set by {@link post}: the host has not been interrupted for it. */
  posted = false;
  /** The host wrote a head that makes no sense. Whoever reports that sets this back. */
  badHead = false;
  #head = 0;
  #tail = 0;
  #phase = 1;
  /** The last head that made no sense. */
  #refusedHead: number | null = null;
  readonly #waiting: Waiting[] = [];

  constructor(id: number, place: QueuePlace, vector: number) {
    super(place, CQE_BYTES, true);
    this.id = id;
    this.vector = vector;
  }

  /** Index of the entry that is written next. */
  get position(): number {
    return this.#tail;
  }

  /** The head as it was read last. */
  get head(): number {
    return this.#head;
  }

  /** Whether the host has entries that it has not taken yet. */
  unread(): boolean {
    this.#readHead();
    return this.#head !== this.#tail;
  }

  /** Entries that new commands may use. The doorbell is only read when the head that is known leaves none. */
  room(): number {
    const free = this.#free() - this.reserved;
    if (free > 0) return free;
    this.#readHead();
    return this.#free() - this.reserved;
  }

  /** Whether completions wait for a free entry. */
  get congested(): boolean {
    return this.#waiting.length > 0;
  }

  /** Writes a completion, or keeps it when the queue is full or not mapped. */
  post(sqId: number, sqHead: number, cid: number, status: number, dw0: number): void {
    if (this.words === null || this.#free() <= 0 || this.#waiting.length > 0) {
      this.#waiting.push({ cid, sqId, sqHead, status, dw0 });
      return;
    }
    this.#write(this.words, sqId, sqHead, cid, status, dw0);
  }

  /** Writes the completions that wait, as far as there is room. */
  drain(): void {
    this.#readHead();
    while (this.words !== null && this.#free() > 0) {
      const next = this.#waiting.shift();
      if (next === undefined) return;
      this.#write(this.words, next.sqId, next.sqHead, next.cid, next.status, next.dw0);
    }
  }

  #free(): number {
    const used = this.#tail - this.#head;
    return this.entries - 1 - (used < 0 ? used + this.entries : used);
  }

  #write(words: Int32Array, sqId: number, sqHead: number, cid: number, status: number, dw0: number): void {
    const at = (this.#tail - this.first) * CQE_WORDS;
    const last = (status << CQE_STATUS_SHIFT) | (this.#phase << CQE_PHASE_SHIFT) | cid;
    words[at + CqeWord.dw0] = dw0;
    words[at + CqeWord.dw1] = 0;
    words[at + CqeWord.queue] = (sqId << 16) | sqHead;
    if (ORDERED) words[at + CqeWord.status] = last;
    else Atomics.store(words, at + CqeWord.status, last);
    this.posted = true;
    if (++this.#tail === this.end) {
      this.#tail = this.beyond();
      if (this.#tail === 0) this.#phase ^= 1;
    }
  }

  /** Takes over the head from the doorbell, unless the host claims entries that it was not given. */
  #readHead(): void {
    const head = this.bell[this.bellWord] as number;
    if (head === this.#head) return;
    const used = (this.#tail - this.#head + this.entries) % this.entries;
    const freed = (head - this.#head + this.entries) % this.entries;
    if (head < 0 || head >= this.entries || freed > used) {
      if (head !== this.#refusedHead) this.badHead = true;
      this.#refusedHead = head;
      return;
    }
    this.#refusedHead = null;
    this.#head = head;
  }
}

/** A submission queue (NVMe base 2.0, 3.3.1): the host writes entries and moves the tail. */
export class SubmissionQueue extends QueueMemory {
  readonly id: number;
  readonly completions: CompletionQueue;
  /** Entry to be fetched next. */
  head = 0;
  /** False once the queue is deleted or dropped: no more commands are taken. */
  live = true;
  /** Number of commands that run, or wait to. */
  inflight = 0;
  /** How the command that was taken last waits for room to run. No command is taken meanwhile. */
  claim: Claim | null = null;
  /** Set while the queue is being deleted: called when the last of its commands has ended, or is void. */
  ended: (() => void) | null = null;
  /** The last tail that makes no sense. It has been reported. */
  badTail: number | null = null;

  constructor(id: number, place: QueuePlace, completions: CompletionQueue) {
    super(place, SQE_BYTES, false);
    this.id = id;
    this.completions = completions;
  }

  /** Index of the entry that is read next. */
  get position(): number {
    return this.head;
  }

  /** Takes the entry at the head. Returns its first word in {@link words}, which may be another part of the queue afterwards. */
  take(): number {
    const at = (this.head - this.first) * SQE_WORDS;
    if (++this.head === this.end) this.head = this.beyond();
    return at;
  }

  /** The tail as the host wrote it, which may be any 32-bit value. Entries before it may be read after this. */
  tail(): number {
    return ORDERED ? (this.bell[this.bellWord] as number) : Atomics.load(this.bell, this.bellWord);
  }
}
