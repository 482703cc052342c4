// SPDX-License-Identifier: MIT
import { Budget, type Claim } from '../../async';
import { SqeWord } from '../spec/submission-entry';
import type { BusyTime } from './busy-time';
import { type Deferred, type Ending, Outcome, type Reply } from './outcome';
import type { SubmissionQueue } from './queue';
import type { Alive } from './transfer';

/**
 * Most memory of commands that run, in bytes, unless one command alone needs more: 64 queues full of commands of 128 KiB would
 * take 8 GiB while the client does not answer. Half a hundred of these run at a time, which keep a socket busy. A command that
 * finds no room waits, and its queue with it.
 */
const RUNNING_BYTES = 16 << 20;

/** A command that was fetched from its queue, and is not completed yet. */
export class FetchedCommand {
  readonly queue: SubmissionQueue;
  /** A copy of its entry. */
  readonly words: Int32Array;
  /** When it was fetched, by `performance.now()`; 0 when latencies are not measured. */
  readonly since: number;
  /** Whether it still matters. */
  readonly alive: Alive;
  /** How it completes, if a fault says so. */
  ending: Ending | undefined;
  /** How it waits for room to run. */
  claim: Claim | null = null;
  /** Nobody waits for it any more: it was aborted. */
  aborted = false;
  /** It changes what is stored, or the client's memory, and cannot be aborted. */
  committed = false;

  /** @param current whether the queues are those that it was taken from */
  constructor(queue: SubmissionQueue, words: Int32Array, since: number, current: () => boolean) {
    this.queue = queue;
    this.words = words;
    this.since = since;
    this.alive = Object.assign(() => !this.aborted && current(), {
      commit: () => {
        if (this.aborted || !current()) return false;
        this.committed = true;
        return true;
      },
    });
  }

  get cid(): number {
    return (this.words[SqeWord.cdw0] as number) >>> 16;
  }
}

/** The commands that go on as promises: while they run, or wait to, and until they are completed. */
export class RunningCommands {
  /** Completes a command. */
  onReply: (command: FetchedCommand, reply: Reply) => void = () => undefined;
  /** What went wrong when a command was completed. */
  failure: string | null = null;
  readonly #busy: BusyTime;
  readonly #budget = new Budget(RUNNING_BYTES);
  readonly #running = new Set<FetchedCommand>();
  /** Counts {@link drop}s: a command that began before the last one is void. */
  #epoch = 0;
  /** Commands that run, but are void. */
  #stale = 0;
  /** What waits for the end of the void commands. */
  #drained: (() => void)[] = [];

  constructor(busy: BusyTime) {
    this.#busy = busy;
  }

  /** Whether no command takes its time, and nothing went wrong. */
  get idle(): boolean {
    return this.#running.size === 0 && this.failure === null;
  }

  /** A command that was fetched just now, and may turn out to take its time. */
  fetched(queue: SubmissionQueue, words: Int32Array, since: number): FetchedCommand {
    const epoch = this.#epoch;
    return new FetchedCommand(queue, words, since, () => this.#epoch === epoch);
  }

  /** A command takes its time from now on. It keeps room for its completion, and its queue is not deleted under it. */
  begin(command: FetchedCommand): void {
    const { queue } = command;
    queue.inflight++;
    queue.completions.reserved++;
    this.#running.add(command);
    if (queue.id !== 0) this.#busy.begin();
  }

  /**
   * A command has ended.
   * @returns whether anybody waits for it; then {@link leave} is called when it is completed
   */
  end(command: FetchedCommand): boolean {
    if (this.#running.has(command)) {
      this.#release(command);
      return true;
    }
    this.#staleEnded();
    return false;
  }

  /** A command that has ended was completed, or goes on otherwise. */
  leave({ queue }: FetchedCommand): void {
    if (queue.inflight === 0) queue.ended?.();
  }

  /**
   * Runs a command once there is room for it, and completes it. Until then its queue is not looked at, so that queues get room in turn.
   * @returns its reply
   */
  run(command: FetchedCommand, { bytes, run }: Deferred): Promise<Reply> {
    const claim = this.#budget.take(bytes);
    const end = (): void => {
      this.#budget.give(bytes);
    };
    if (claim === null) {
      const reply = run().finally(end);
      this.follow(command, reply);
      return reply;
    }
    const { queue } = command;
    queue.claim = claim;
    command.claim = claim;
    const reply = claim.granted.then((granted): Reply | Promise<Reply> => {
      queue.claim = null;
      return granted ? run().finally(end) : { outcome: Outcome.abortedQueueDeletion };
    });
    this.follow(command, reply);
    return reply;
  }

  /** Completes a command when its reply is there. */
  follow(command: FetchedCommand, reply: Promise<Reply>): void {
    this.begin(command);
    reply
      .catch((): Reply => ({ outcome: Outcome.internalError }))
      .then((settled) => {
        if (!this.end(command)) return;
        this.onReply(command, settled);
        this.leave(command);
      })
      .catch(() => {
        this.failure = `The completion of a command of queue ${command.queue.id} failed`;
      });
  }

  /**
   * Completes a command as aborted, unless it is done, or can change something already.
   * @returns whether it was aborted
   */
  abort(sqId: number, cid: number): boolean {
    for (const command of this.#running) {
      if (command.queue.id !== sqId || command.cid !== cid || command.committed) continue;
      command.aborted = true;
      this.#stale++;
      this.#release(command);
      command.claim?.cancel();
      this.onReply(command, { outcome: Outcome.abortRequested });
      this.leave(command);
      return true;
    }
    return false;
  }

  /** Makes all commands void. */
  drop(): void {
    this.#epoch++;
    this.#stale += this.#running.size;
    this.#running.clear();
    this.#busy.endAll();
    this.failure = null;
    this.#budget.cancelAll();
  }

  /** Calls `next` when no void command touches the client's memory any more: now, or once the last has ended. */
  whenDrained(next: () => void): void {
    if (this.#stale === 0) next();
    else this.#drained.push(next);
  }

  #release(command: FetchedCommand): void {
    const { queue } = command;
    this.#running.delete(command);
    queue.inflight--;
    queue.completions.reserved--;
    if (queue.id !== 0) this.#busy.end();
  }

  #staleEnded(): void {
    if (--this.#stale > 0) return;
    const drained = this.#drained;
    this.#drained = [];
    for (const next of drained) next();
  }
}
