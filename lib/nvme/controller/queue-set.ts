// SPDX-License-Identifier: MIT
import type { ClientView } from './client-view';
import type { Doorbells } from './doorbells';
import { Outcome, type Reply } from './outcome';
import { CompletionQueue, SubmissionQueue } from './queue';
import type { Counters } from './statistics';

/** The signals that reach the host: the interrupt vectors of the PCI function. */
export interface Interrupts {
  /** Signals a vector. False when that does not reach the host now, which is no error: a host may poll. */
  trigger(vector: number): boolean;
}

/** All queues of the controller: where they are, and what leaves by them. Queue id 0 is that of the admin queues. */
export class QueueSet {
  readonly submissions = new Map<number, SubmissionQueue>();
  readonly completions = new Map<number, CompletionQueue>();
  /** The submission queues, for the loop. The admin queue is the first. Replaced when one comes or goes. */
  polled: readonly SubmissionQueue[] = [];
  readonly doorbells: Doorbells;
  readonly #deleting = new Map<number, SubmissionQueue>();
  readonly #view: ClientView;
  readonly #interrupts: Interrupts;
  readonly #counters: Counters;
  /** Whether any queue may know where it is in memory. A client may unmap thousands of ranges one after the other. */
  #resolved = false;

  constructor(view: ClientView, doorbells: Doorbells, interrupts: Interrupts, counters: Counters) {
    this.#view = view;
    this.doorbells = doorbells;
    this.#interrupts = interrupts;
    this.#counters = counters;
  }

  /** Whether the queues can be reached: nothing is taken or completed while the controller is no bus master. */
  get reachable(): boolean {
    return this.#view.reachable;
  }

  /** Whether queues besides those of the admin commands exist. */
  get hasIoQueues(): boolean {
    return this.submissions.size > 1 || this.completions.size > 1;
  }

  /** Whether a queue exists, or is being deleted. */
  hasSubmissionQueue(id: number): boolean {
    return this.submissions.has(id) || this.#deleting.has(id);
  }

  /**
   * Adds a queue.
   * @param vector interrupt vector; -1 for none
   * @returns the queue, or null when it is not in one piece of the client's mapped memory
   */
  createCompletionQueue(id: number, iova: number, entries: number, vector: number): CompletionQueue | null {
    const queue = new CompletionQueue(id, iova, entries, vector, this.doorbells.headWord(id));
    this.refresh();
    if (this.reachable && !this.#find(queue)) return null;
    Atomics.store(this.doorbells.words, queue.doorbell, 0);
    this.completions.set(id, queue);
    return queue;
  }

  /** Adds a queue whose commands complete in `completions`, as {@link createCompletionQueue} does. */
  createSubmissionQueue(
    id: number,
    iova: number,
    entries: number,
    completions: CompletionQueue,
  ): SubmissionQueue | null {
    const queue = new SubmissionQueue(id, iova, entries, completions, this.doorbells.tailWord(id));
    this.refresh();
    if (this.reachable && !this.#find(queue)) return null;
    Atomics.store(this.doorbells.words, queue.doorbell, 0);
    this.submissions.set(id, queue);
    completions.users++;
    this.polled = [...this.submissions.values()];
    return queue;
  }

  /**
   * Takes no more commands of a queue. One that waits for room to run is aborted.
   * @returns success, with the last of its commands when some run
   */
  deleteSubmissionQueue(queue: SubmissionQueue): Reply | Promise<Reply> {
    const success: Reply = { outcome: Outcome.success };
    queue.live = false;
    queue.claim?.cancel();
    this.submissions.delete(queue.id);
    this.polled = [...this.submissions.values()];
    if (queue.inflight === 0) {
      queue.completions.users--;
      return success;
    }
    this.#deleting.set(queue.id, queue);
    return new Promise((resolve) => {
      queue.ended = () => {
        this.#deleting.delete(queue.id);
        queue.completions.users--;
        resolve(success);
      };
    });
  }

  /** Removes a queue, which no submission queue may use any more. */
  deleteCompletionQueue(queue: CompletionQueue): void {
    this.completions.delete(queue.id);
  }

  /** Forgets all queues, and what is under way in them. */
  drop(): void {
    for (const queue of this.polled) queue.live = false;
    for (const queue of this.#deleting.values()) queue.ended?.();
    this.#deleting.clear();
    this.submissions.clear();
    this.completions.clear();
    this.polled = [];
    this.doorbells.clear();
  }

  /** Follows changes of the client's memory, before queues are used. */
  refresh(): void {
    if (this.#view.refresh()) this.unmap();
  }

  /** Forgets where the queues are in memory: they are looked up again when they are used. */
  unmap(): void {
    if (!this.#resolved) return;
    this.#resolved = false;
    for (const queue of this.submissions.values()) queue.words = null;
    for (const queue of this.completions.values()) queue.words = null;
  }

  /** Whether a queue and its completion queue are in mapped memory; looks them up after {@link unmap}. */
  resolve(queue: SubmissionQueue): boolean {
    return this.#find(queue) && this.#find(queue.completions);
  }

  /**
   * Completes a command outside of the loop, and interrupts the host. It is kept while the queue cannot be reached.
   * @param silent whether the host is not interrupted for this
   */
  complete(queue: SubmissionQueue, cid: number, outcome: number, dw0: number, silent = false): void {
    const { posted } = queue.completions;
    this.refresh();
    if (this.reachable) this.#find(queue.completions);
    queue.completions.post(queue.id, queue.head, cid, outcome, dw0);
    if (silent) queue.completions.posted = posted;
    this.interrupt(queue.completions);
  }

  /** Completes an admin command that was held. */
  completeHeld(cid: number, outcome: number, dw0: number): void {
    const queue = this.submissions.get(0);
    if (queue !== undefined) this.complete(queue, cid, outcome, dw0);
  }

  /** Writes completions that waited for a free entry. */
  drain(queue: CompletionQueue): void {
    if (!this.#find(queue)) return;
    queue.drain(this.doorbells.words);
    this.interrupt(queue);
  }

  /** Interrupts the host for completions that it has not taken: their interrupts may have been lost on their way. */
  interruptAgain(): void {
    for (const queue of this.completions.values()) {
      queue.posted ||= queue.unread(this.doorbells.words);
      this.interrupt(queue);
    }
  }

  /** Whether a queue that interrupts by this vector has completions that the host has not taken. */
  unread(vector: number): boolean {
    for (const queue of this.completions.values()) {
      if (queue.vector === vector && queue.unread(this.doorbells.words)) return true;
    }
    return false;
  }

  /** Interrupts the host once for all that was posted since the last time. */
  interrupt(queue: CompletionQueue): void {
    if (!queue.posted) return;
    queue.posted = false;
    if (queue.vector >= 0 && this.#interrupts.trigger(queue.vector)) this.#counters.interrupts++;
  }

  /** Whether a queue is in mapped memory. */
  #find(queue: SubmissionQueue | CompletionQueue): boolean {
    this.#resolved = true;
    return queue.resolve(this.#view);
  }
}
