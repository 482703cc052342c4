// SPDX-License-Identifier: MIT
import { Fifo } from './fifo';
import { HIGH_WATER } from './limits';
import type { SendQueue } from './send-queue';

/** What waits while a socket takes no more than its {@link SendQueue} already has: senders, in their order. */
export class Backlog {
  readonly #queue: SendQueue;
  #unsent = new Fifo<() => void>();
  #waiting: (() => void)[] = [];
  /** Sends what {@link hold} keeps back. */
  #held: (() => void) | null = null;

  constructor(queue: SendQueue) {
    this.#queue = queue;
  }

  /** Whether messages wait for the socket, so that one sent now would have to wait too. */
  get any(): boolean {
    return this.#queue.bytes > 0 || this.#unsent.length > 0;
  }

  /** Whether so much is queued that senders should wait. */
  get full(): boolean {
    return this.#queue.bytes > HIGH_WATER || this.#unsent.length > 0;
  }

  /** Calls `send` when it is its turn. */
  push(send: () => void): void {
    this.#unsent.push(send);
  }

  /** Resolves when there may be room, or nothing is waited for any more. */
  room(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Keeps a message back; `emit` is called by {@link emitHeld}, or when the socket has taken what waits. */
  hold(emit: () => void): void {
    this.emitHeld();
    this.#held = emit;
  }

  emitHeld(): void {
    const emit = this.#held;
    this.#held = null;
    emit?.();
  }

  /** The socket has taken something. */
  advance(): void {
    while (this.#queue.bytes <= HIGH_WATER && this.#unsent.length > 0) this.#unsent.shift()?.();
    if (!this.any) this.emitHeld();
    if (!this.full) this.#wake();
  }

  /** Forgets what waits. */
  close(): void {
    this.#unsent = new Fifo();
    this.#held = null;
    this.#wake();
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }
}
