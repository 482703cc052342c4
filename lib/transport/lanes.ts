// SPDX-License-Identifier: MIT
import { Fifo } from './fifo';

/** Work of one lane is done one at a time, except for shared work, which overlaps. Work of different lanes overlaps. */
export interface Lane {
  /** Two lanes are the same when their keys are. */
  readonly key: unknown;
  /** Whether the work overlaps with other shared work of the lane. */
  readonly shared: boolean;
}

/** Work that waits for its turn. */
export interface Turn {
  /** Null for a barrier: it starts when all before it is done, and nothing starts before it is done. */
  readonly lane: Lane | null;
  /** Whether nothing that came later starts before it is done. */
  readonly holdsOthers: boolean;
  /** Begins the work. Returns true when it goes on; then {@link LaneQueue.done} has to be called at its end. */
  start(): boolean;
  /** Called instead of {@link start} when the queue is closed. */
  drop(): void;
}

/** Most pieces of work that overlap, which bounds their memory. */
const MAX_RUNNING = 64;
const EXCLUSIVE = -1;

/**
 * Starts work strictly in the order in which it came, overlapping as far as its lanes allow. What may not start yet holds
 * back all that came later.
 */
export class LaneQueue {
  readonly #paused: () => boolean;
  readonly #waiting = new Fifo<Turn>();
  /** Number of shared turns at work by the lane's key, or EXCLUSIVE. */
  readonly #lanes = new Map<unknown, number>();
  #running = 0;
  /** Whether what is at work lets nothing else start. */
  #alone = false;
  #closed = false;

  /** @param paused returns true while nothing may be started; call {@link advance} when that ends */
  constructor(paused: () => boolean) {
    this.#paused = paused;
  }

  /** Whether nothing is at work and nothing waits, so that work that comes now may start at once. */
  get idle(): boolean {
    return this.#running === 0 && this.#waiting.length === 0;
  }

  /** Number of turns that wait. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /** Starts work when its turn has come, perhaps at once. */
  add(turn: Turn): void {
    if (this.#closed) {
      turn.drop();
      return;
    }
    this.#waiting.push(turn);
    this.advance();
  }

  /** Enters work that was started while the queue was {@link idle}, and turned out to take time. */
  begun(turn: Turn): void {
    const { lane } = turn;
    this.#running++;
    if (lane === null || turn.holdsOthers) this.#alone = true;
    else this.#lanes.set(lane.key, lane.shared ? (this.#lanes.get(lane.key) ?? 0) + 1 : EXCLUSIVE);
  }

  /** Ends work whose `start` returned true. */
  done(turn: Turn): void {
    const { lane } = turn;
    this.#running--;
    if (lane === null || turn.holdsOthers) this.#alone = false;
    else {
      const held = this.#lanes.get(lane.key) ?? 0;
      if (held > 1) this.#lanes.set(lane.key, held - 1);
      else this.#lanes.delete(lane.key);
    }
    this.advance();
  }

  /** Starts all work that may start. */
  advance(): void {
    for (let next; (next = this.#waiting.peek()) !== undefined && this.#mayStart(next);) {
      this.#waiting.shift();
      if (next.start()) this.begun(next);
    }
  }

  /** Drops what waits. What is at work may finish. */
  close(): void {
    this.#closed = true;
    for (let turn; (turn = this.#waiting.shift()) !== undefined;) turn.drop();
  }

  #mayStart({ lane }: Turn): boolean {
    if (this.#alone || this.#running >= MAX_RUNNING || this.#paused()) return false;
    if (lane === null) return this.#running === 0;
    const held = this.#lanes.get(lane.key);
    return held === undefined || (lane.shared && held !== EXCLUSIVE);
  }
}
