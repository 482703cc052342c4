// SPDX-License-Identifier: MIT
import { AsyncErrorEvent } from '../spec/features';
import type { AsyncEvents } from './async-events';
import type { CompletionQueue, SubmissionQueue } from './queue';
import type { QueueSet } from './queue-set';
import type { Counters } from './statistics';

/**
 * Tells the host of doorbells that it has written wrongly, each once (NVMe over PCIe transport 1.0, 3.1.2: the controller may
 * raise an event).
 */
export class DoorbellWatch {
  readonly #queues: QueueSet;
  readonly #events: AsyncEvents;
  readonly #counters: Counters;

  constructor(queues: QueueSet, events: AsyncEvents, counters: Counters) {
    this.#queues = queues;
    this.#events = events;
    this.#counters = counters;
  }

  /** A queue has no entry at the tail that the host has written. */
  badTail(queue: SubmissionQueue, tail: number): void {
    if (queue.badTail === tail) return;
    queue.badTail = tail;
    this.#tell(AsyncErrorEvent.invalidDoorbellValue);
  }

  /** The host has been found to have written a head that makes no sense. */
  badHead(queue: CompletionQueue): void {
    queue.badHead = false;
    this.#tell(AsyncErrorEvent.invalidDoorbellValue);
  }

  /** A doorbell was written whose queue there is not. */
  noQueue(): void {
    this.#tell(AsyncErrorEvent.invalidDoorbellRegister);
  }

  /**
   * Looks at what nobody looks at otherwise: the heads of queues that have room, and, since hosts may map all doorbells, those of queues
   * that do not exist.
   */
  look(): void {
    const { completions, doorbells } = this.#queues;
    for (const queue of completions.values()) {
      queue.unread();
      if (queue.badHead) this.badHead(queue);
    }
    for (let index = 0; index < doorbells.count; index++) {
      if (!this.#queues.hasDoorbell(index) && doorbells.takeUnused(index)) this.noQueue();
    }
  }

  #tell(info: number): void {
    this.#counters.badDoorbells++;
    this.#events.raiseError(info);
  }
}
