// SPDX-License-Identifier: MIT
import type { ClientView } from './client-view';
import type { Doorbells } from './doorbells';
import { Outcome, type Reply } from './outcome';
import { CompletionQueue, SubmissionQueue } from './queue';
import { ShadowDoorbells } from './shadow-doorbells';
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
  readonly #shadow: ShadowDoorbells;
  /** Whether the host is to ring a doorbell when there is something new: nobody looks at the shadows all the time. */
  #wanted = false;
  readonly #deleting = new Map<number, SubmissionQueue>();
  readonly #view: ClientView;
  readonly #interrupts: Interrupts;
  readonly #counters: Counters;
  /** Whether any queue may know where it is in memory. A client may unmap thousands of ranges one after the other. */
  #resolved = false;

  constructor(view: ClientView, doorbells: Doorbells, interrupts: Interrupts, counters: Counters) {
    this.#view = view;
    this.#shadow = new ShadowDoorbells(view, doorbells.dstrd);
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
   * @returns the queue, or the address of its first entry that is not in the client's mapped memory
   */
  createCompletionQueue(id: number, iova: number, entries: number, vector: number): CompletionQueue | number {
    const place = { view: this.#view, iova, entries };
    const queue = new CompletionQueue(id, place, vector);
    const missing = this.#missing(queue);
    if (missing >= 0) return queue.address(missing);
    this.#begin(queue, this.doorbells.headWord(id), this.#shadow.headWord(id));
    this.completions.set(id, queue);
    return queue;
  }

  /** Adds a queue whose commands complete in `completions`, as {@link createCompletionQueue} does. */
  createSubmissionQueue(
    id: number,
    iova: number,
    entries: number,
    completions: CompletionQueue,
  ): SubmissionQueue | number {
    const place = { view: this.#view, iova, entries };
    const queue = new SubmissionQueue(id, place, completions);
    const missing = this.#missing(queue);
    if (missing >= 0) return queue.address(missing);
    this.#begin(queue, this.doorbells.tailWord(id), this.#shadow.tailWord(id));
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
    this.doorbells.retire(2 * queue.id);
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
    this.doorbells.retire(2 * queue.id + 1);
  }

  /** Forgets all queues, and what is under way in them. */
  drop(): void {
    for (const queue of this.polled) queue.live = false;
    for (const queue of this.#deleting.values()) queue.ended?.();
    this.#deleting.clear();
    this.submissions.clear();
    this.completions.clear();
    this.polled = [];
    this.#shadow.stop();
    this.doorbells.clear();
  }

  /** Follows changes of the client's memory, before queues are used. */
  refresh(): void {
    if (this.#view.refresh()) this.unmap();
    if (this.#shadow.active && this.#shadow.words === null && this.#findShadows()) this.#followShadows();
  }

  /** Forgets where the queues are in memory: they are looked up again when they are used. */
  unmap(): void {
    if (!this.#resolved) return;
    this.#resolved = false;
    for (const queue of this.submissions.values()) queue.words = null;
    for (const queue of this.completions.values()) queue.words = null;
    if (!this.#shadow.active) return;
    this.#shadow.forget();
    // Until the pages are found again, there is nothing new.
    for (const queue of this.#ioQueues()) queue.listen(Int32Array.of(queue.head), 0);
  }

  /** Whether the next entry of a queue is in mapped memory; looks it up after {@link unmap}. */
  find(queue: SubmissionQueue | CompletionQueue): boolean {
    if (queue.words !== null) return true;
    this.#resolved = true;
    return queue.locate(queue.position);
  }

  /** Nobody can tell whether entries are missing, while the controller is no bus master. */
  restartGrace(): void {
    for (const queue of this.submissions.values()) queue.missingSince = -1;
    for (const queue of this.completions.values()) queue.missingSince = -1;
  }

  /** Whether a doorbell belongs to a queue that exists. See `Doorbells.index`. */
  hasDoorbell(index: number): boolean {
    const id = index >>> 1;
    return (index & 1) === 0 ? this.submissions.has(id) : this.completions.has(id);
  }

  /**
   * Takes the ends of all queues but the admin queues from the host's memory from now on.
   * @param shadow address of the page with the ends
   * @param events address of the page where the host finds what it has to ring a doorbell for
   * @returns false when the pages are not mapped here, for reading and writing; then nothing has changed
   */
  useShadows(shadow: number, events: number): boolean {
    this.refresh();
    this.#resolved = true;
    if (!this.#shadow.start(shadow, events)) return false;
    // The host goes on from what it has written to the doorbells.
    const { words } = this.#shadow;
    for (const queue of this.#ioQueues()) {
      if (words !== null) Atomics.store(words, this.#shadowWord(queue), queue.bell[queue.bellWord] as number);
    }
    this.#followShadows();
    return true;
  }

  /** Whether the host is to ring doorbells when there is something new, or the shadows are looked at all the time. */
  wantDoorbells(wanted: boolean): void {
    this.#wanted = wanted;
    if (this.#shadow.active) this.#followShadows();
  }

  /**
   * Completes a command outside of the loop, and interrupts the host. It is kept while the queue cannot be reached.
   * @param silent whether the host is not interrupted for this
   */
  complete(queue: SubmissionQueue, cid: number, outcome: number, dw0: number, silent = false): void {
    const { posted } = queue.completions;
    this.refresh();
    if (this.reachable) this.find(queue.completions);
    queue.completions.post(queue.id, queue.head, cid, outcome, dw0);
    if (silent) queue.completions.posted = posted;
    this.interrupt(queue.completions);
  }

  /** Completes an admin command that was held. */
  completeHeld(cid: number, outcome: number, dw0: number): void {
    const queue = this.submissions.get(0);
    if (queue !== undefined) this.complete(queue, cid, outcome, dw0);
  }

  /** Writes completions that waited for a free entry, once {@link find} has found the queue. */
  drain(queue: CompletionQueue): void {
    queue.drain();
    this.interrupt(queue);
  }

  /** Interrupts the host for completions that it has not taken: their interrupts may have been lost on their way. */
  interruptAgain(): void {
    for (const queue of this.completions.values()) {
      queue.posted ||= queue.unread();
      this.interrupt(queue);
    }
  }

  /** Whether a queue that interrupts by this vector has completions that the host has not taken. */
  unread(vector: number): boolean {
    for (const queue of this.completions.values()) {
      if (queue.vector === vector && queue.unread()) return true;
    }
    return false;
  }

  /** Interrupts the host once for all that was posted since the last time. */
  interrupt(queue: CompletionQueue): void {
    if (!queue.posted) return;
    queue.posted = false;
    if (queue.vector >= 0 && this.#interrupts.trigger(queue.vector)) this.#counters.interrupts++;
  }

  /** The queues that may have shadows of their doorbells. */
  #ioQueues(): (SubmissionQueue | CompletionQueue)[] {
    return [...this.submissions.values(), ...this.completions.values()].filter(({ id }) => id !== 0);
  }

  /** The doorbell of a new queue, or its shadow, is 0. */
  #begin(queue: SubmissionQueue | CompletionQueue, doorbell: number, shadow: number): void {
    const { words } = this.doorbells;
    Atomics.store(words, doorbell, 0);
    queue.listen(words, doorbell);
    if (queue.id === 0 || !this.#shadow.active) return;
    // Without the page, the queue listens to it once it is found.
    if (this.#shadow.words !== null) Atomics.store(this.#shadow.words, shadow, 0);
    this.#follow(queue);
  }

  #shadowWord(queue: SubmissionQueue | CompletionQueue): number {
    return queue instanceof SubmissionQueue
      ? this.#shadow.tailWord(queue.id)
      : this.#shadow.headWord(queue.id);
  }

  #findShadows(): boolean {
    this.#resolved = true;
    return this.#shadow.find();
  }

  #followShadows(): void {
    for (const queue of this.#ioQueues()) this.#follow(queue);
  }

  /** Takes the end of a queue from its shadow, and tells the host for what it has to ring. */
  #follow(queue: SubmissionQueue | CompletionQueue): void {
    const { words } = this.#shadow;
    if (words === null) return;
    const word = this.#shadowWord(queue);
    queue.listen(words, word);
    // That entries were taken only matters to one who waits for that.
    const wanted = this.#wanted && (queue instanceof SubmissionQueue || queue.congested);
    this.#shadow.want(word, wanted ? queue.head : null);
  }

  /** The first entry of a new queue that is not in mapped memory; -1 when there is none, or when nobody can tell. */
  #missing(queue: SubmissionQueue | CompletionQueue): number {
    this.refresh();
    if (!this.reachable) return -1;
    this.#resolved = true;
    return queue.missing();
  }
}
