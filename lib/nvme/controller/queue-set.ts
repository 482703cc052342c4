// SPDX-License-Identifier: MIT
import { AsyncErrorEvent } from '../spec/features';
import { SQE_WORDS, SqeWord } from '../spec/submission-entry';
import type { ClientView } from './client-view';
import type { ErrorLog } from './error-log';
import { DEFERRED, type IoCommands } from './io-commands';
import type { CompletionQueue, SubmissionQueue } from './queue';
import { Outcome } from './outcome';
import type { Counters } from './statistics';
import type { Alive } from './transfer';

/** Constants of this module, since every command uses them: see io-commands.ts. */
const [ENTRY_WORDS, SUCCESS, LATER] = [SQE_WORDS, Outcome.success, DEFERRED];

/** Commands that are taken from a queue before the next one has its turn. */
const BURST = 32;

/** How long a queue with commands may be unmapped, in milliseconds: QEMU maps all RAM anew while a guest boots. */
const UNMAPPED_GRACE = 1000;

/** What a command of the admin queue led to. */
export interface AdminReply {
  readonly outcome: number;
  /** Dword 0 of the completion. Default 0. */
  readonly dw0?: number;
}

/** What {@link QueueSet} needs of the controller. */
export interface QueueEvents {
  /**
   * Executes an admin command, of which `words` is a copy. `'held'` when it completes later by
   * {@link QueueSet.completeHeld}.
   */
  admin(words: Uint32Array, alive: Alive): AdminReply | Promise<AdminReply> | 'held';
  /** A doorbell has a value that makes no sense. */
  badDoorbell(info: number): void;
  /** Signals an MSI-X vector. True when it was delivered. */
  interrupt(vector: number): boolean;
  /** The controller cannot go on. */
  fatal(reason: string): void;
  /** The last command that ran when the queues were dropped has ended. */
  drained(): void;
}

/** All queues of the controller, and the round that serves them. */
export class QueueSet {
  readonly submissions = new Map<number, SubmissionQueue>();
  readonly completions = new Map<number, CompletionQueue>();
  readonly #deleting = new Map<number, SubmissionQueue>();
  /** The submission queues, for the loop. */
  #polled: SubmissionQueue[] = [];
  readonly #view: ClientView;
  readonly #doorbells: Int32Array;
  readonly #io: IoCommands;
  readonly #errors: ErrorLog;
  readonly #counters: Counters;
  readonly #events: QueueEvents;
  /** Counts {@link drop}s: a command that began before the last one is void. */
  #epoch = 0;
  /** Commands that run. */
  #live = 0;
  /** Commands that run, but are void. */
  #stale = 0;
  #unmappedSince = -1;

  constructor(
    view: ClientView,
    doorbells: Int32Array,
    io: IoCommands,
    errors: ErrorLog,
    counters: Counters,
    events: QueueEvents,
  ) {
    this.#view = view;
    this.#doorbells = doorbells;
    this.#io = io;
    this.#errors = errors;
    this.#counters = counters;
    this.#events = events;
  }

  /** Whether commands that were dropped have not ended yet. `drained` tells when they have. */
  get draining(): boolean {
    return this.#stale > 0;
  }

  /** Adds a queue. False when it is not mapped here in one piece; then nothing was added. */
  addCompletionQueue(queue: CompletionQueue): boolean {
    this.#refresh();
    if (!queue.resolve(this.#view)) return false;
    Atomics.store(this.#doorbells, queue.doorbell, 0);
    this.completions.set(queue.id, queue);
    return true;
  }

  /** As {@link addCompletionQueue}. */
  addSubmissionQueue(queue: SubmissionQueue): boolean {
    this.#refresh();
    if (!queue.resolve(this.#view)) return false;
    Atomics.store(this.#doorbells, queue.doorbell, 0);
    this.submissions.set(queue.id, queue);
    queue.completions.users++;
    this.#polled = [...this.submissions.values()];
    return true;
  }

  /** Whether a queue exists, or is being deleted. */
  hasSubmissionQueue(id: number): boolean {
    return this.submissions.has(id) || this.#deleting.has(id);
  }

  /** Takes no more commands of a queue. When commands of it run, the deletion ends with the last of them. */
  deleteSubmissionQueue(queue: SubmissionQueue): Promise<AdminReply> | undefined {
    queue.live = false;
    this.submissions.delete(queue.id);
    this.#polled = [...this.submissions.values()];
    if (queue.inflight === 0) {
      queue.completions.users--;
      return undefined;
    }
    this.#deleting.set(queue.id, queue);
    return new Promise((resolve) => {
      queue.ended = () => {
        this.#deleting.delete(queue.id);
        queue.completions.users--;
        resolve({ outcome: Outcome.success });
      };
    });
  }

  deleteCompletionQueue(queue: CompletionQueue): void {
    this.completions.delete(queue.id);
  }

  /** Forgets all queues, and all commands that run. */
  drop(): void {
    this.#epoch++;
    this.#stale += this.#live;
    this.#live = 0;
    for (const queue of this.#polled) queue.live = false;
    for (const queue of this.#deleting.values()) queue.ended?.();
    this.#deleting.clear();
    this.submissions.clear();
    this.completions.clear();
    this.#polled = [];
    this.#unmappedSince = -1;
    this.#doorbells.fill(0);
  }

  /** Forgets where the queues are in memory: they are looked up again when they are used. */
  unmap(): void {
    for (const queue of this.submissions.values()) queue.words = null;
    for (const queue of this.completions.values()) queue.words = null;
  }

  /** Looks at all doorbells once. Returns the number of commands that were taken. */
  round(): number {
    this.#refresh();
    let commands = 0;
    // The admin queue is the first; its commands may delete others, which replaces the list.
    for (const queue of this.#polled) {
      if (queue.live) commands += this.#serve(queue);
    }
    for (const queue of this.completions.values()) {
      if (queue.congested) this.#drain(queue);
    }
    return commands;
  }

  /** Completes a command of the admin queue that was held. */
  completeHeld(cid: number, outcome: number, dw0: number): void {
    const queue = this.submissions.get(0);
    if (queue === undefined) return;
    this.#refresh();
    queue.completions.resolve(this.#view);
    queue.completions.post(0, queue.head, cid, outcome, dw0);
    this.#interrupt(queue.completions);
  }

  #refresh(): void {
    if (this.#view.refresh()) this.unmap();
  }

  #serve(queue: SubmissionQueue): number {
    const tail = queue.tail(this.#doorbells);
    if (tail === queue.head) return 0;
    if (tail < 0 || tail >= queue.entries) {
      this.#badTail(queue, tail);
      return 0;
    }
    queue.badTail = null;
    const completions = queue.completions;
    if (!queue.resolve(this.#view) || !completions.resolve(this.#view)) {
      this.#unmapped(queue);
      return 0;
    }
    this.#unmappedSince = -1;
    let count = tail - queue.head;
    if (count < 0) count += queue.entries;
    if (count > BURST) count = BURST;
    const room = completions.room(this.#doorbells);
    if (completions.badHead) this.#badHead(completions);
    if (room < count) count = room;
    for (let i = 0; i < count; i++) this.#take(queue);
    if (completions.posted) this.#interrupt(completions);
    return count > 0 ? count : 0;
  }

  /** Executes the command at the head of a queue. */
  #take(queue: SubmissionQueue): void {
    const words = queue.words;
    if (words === null || !queue.live) return; // What came before this command has dropped the queue.
    const at = queue.head * ENTRY_WORDS;
    queue.head = queue.head + 1 === queue.entries ? 0 : queue.head + 1;
    const cid = (words[at] as number) >>> 16;
    if (queue.id === 0) {
      this.#takeAdmin(queue, new Uint32Array(words.slice(at, at + ENTRY_WORDS)));
      return;
    }
    const outcome = this.#io.execute(words, at);
    if (outcome === SUCCESS) {
      queue.completions.post(queue.id, queue.head, cid, 0, 0);
    } else if (outcome === LATER) {
      const copy = words.slice(at, at + ENTRY_WORDS);
      this.#start(queue, copy, async (alive) => ({ outcome: await this.#io.executeSlowly(copy, alive) }));
    } else {
      this.#complete(queue, words.slice(at, at + ENTRY_WORDS), outcome, 0);
    }
  }

  #takeAdmin(queue: SubmissionQueue, words: Uint32Array): void {
    this.#counters.adminCommands++;
    const epoch = this.#epoch;
    const reply = this.#events.admin(words, () => this.#epoch === epoch);
    if (reply === 'held') return;
    if (reply instanceof Promise) this.#start(queue, words, () => reply);
    else this.#complete(queue, words, reply.outcome, reply.dw0 ?? 0);
  }

  /** Runs a command that takes its time. It keeps room for its completion. */
  #start(
    queue: SubmissionQueue,
    words: Int32Array | Uint32Array,
    job: (alive: Alive) => Promise<AdminReply>,
  ): void {
    const epoch = this.#epoch;
    const alive = (): boolean => this.#epoch === epoch;
    queue.inflight++;
    queue.completions.reserved++;
    this.#live++;
    const end = (reply: AdminReply): void => {
      if (!alive()) {
        if (--this.#stale === 0) this.#events.drained();
        return;
      }
      this.#live--;
      queue.inflight--;
      queue.completions.reserved--;
      this.#refresh();
      queue.completions.resolve(this.#view);
      this.#complete(queue, words, reply.outcome, reply.dw0 ?? 0);
      this.#interrupt(queue.completions);
      if (queue.inflight === 0) queue.ended?.();
    };
    job(alive)
      .catch((): AdminReply => ({ outcome: Outcome.internalError }))
      .then(end)
      .catch(() => {
        this.#events.fatal(`The completion of a command of queue ${queue.id} failed`);
      });
  }

  #complete(queue: SubmissionQueue, words: Int32Array | Uint32Array, outcome: number, dw0: number): void {
    const cid = (words[SqeWord.cdw0] as number) >>> 16;
    if (outcome !== Outcome.success) {
      this.#counters.errors++;
      this.#errors.add(queue.id, cid, outcome, (words[SqeWord.nsid] as number) >>> 0);
    }
    queue.completions.post(queue.id, queue.head, cid, outcome, dw0);
  }

  #drain(queue: CompletionQueue): void {
    if (!queue.resolve(this.#view)) return;
    queue.drain(this.#doorbells);
    this.#interrupt(queue);
  }

  #interrupt(queue: CompletionQueue): void {
    if (!queue.posted) return;
    queue.posted = false;
    if (queue.vector >= 0 && this.#events.interrupt(queue.vector)) this.#counters.interrupts++;
  }

  #badTail(queue: SubmissionQueue, tail: number): void {
    if (queue.badTail === tail) return;
    queue.badTail = tail;
    this.#counters.badDoorbells++;
    this.#events.badDoorbell(AsyncErrorEvent.invalidDoorbellValue);
  }

  #badHead(queue: CompletionQueue): void {
    queue.badHead = false;
    this.#counters.badDoorbells++;
    this.#events.badDoorbell(AsyncErrorEvent.invalidDoorbellValue);
  }

  #unmapped(queue: SubmissionQueue): void {
    const now = performance.now();
    if (this.#unmappedSince < 0) this.#unmappedSince = now;
    if (now - this.#unmappedSince < UNMAPPED_GRACE) return;
    this.#events.fatal(
      `Queue ${queue.id} has commands, but it or its completion queue is not in mapped memory of the client`,
    );
  }
}
