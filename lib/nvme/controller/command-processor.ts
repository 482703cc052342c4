// SPDX-License-Identifier: MIT
import { NvmOpcode } from '../spec/opcodes';
import { SQE_WORDS, SqeWord } from '../spec/submission-entry';
import type { AdminCommands } from './admin-commands';
import type { DoorbellWatch } from './doorbell-watch';
import type { ErrorLog } from './error-log';
import type { FaultEffects, FaultPlan } from '../faults';
import { FaultyCommands } from './faulty-commands';
import { FUSED_FIRST, FUSED_SECOND } from './fused-commands';
import { DEFERRED, type IoCommands } from './io-commands';
import type { IoContext } from './slow-commands';
import { FUSE, startBlock } from './io-words';
import type { Latencies } from './latencies';
import { type Answer, Outcome, type Reply } from './outcome';
import { type CompletionQueue, SubmissionQueue } from './queue';
import type { QueueSet } from './queue-set';
import type { FetchedCommand, RunningCommands } from './running-commands';
import type { Counters } from './statistics';

/** Commands that are taken from a queue before the next one has its turn. */
const BURST = 32;

/**
 * Bytes that are moved before the event loop has a turn. 64 queues full of commands of 128 KiB could move 256 MiB in a round
 * otherwise, and hold up all else that the process does.
 */
const BYTES_PER_ROUND = 4 << 20;

/** How long a queue with commands may be unmapped, in milliseconds: QEMU maps all RAM anew while a guest boots. */
const UNMAPPED_GRACE = 1000;

/** The I/O commands that name their first block in CDW10 and CDW11. */
const WITH_BLOCKS: ReadonlySet<number> = new Set([
  NvmOpcode.write,
  NvmOpcode.read,
  NvmOpcode.writeUncorrectable,
  NvmOpcode.compare,
  NvmOpcode.writeZeroes,
  NvmOpcode.verify,
  NvmOpcode.copy,
]);

/** Thrown when the controller cannot go on: its owner sets CSTS.CFS. */
export class FatalError extends Error {}

/** What {@link CommandProcessor} works with. */
export interface CommandProcessorParts {
  readonly queues: QueueSet;
  readonly admin: AdminCommands;
  readonly io: IoCommands;
  readonly running: RunningCommands;
  readonly watch: DoorbellWatch;
  readonly errors: ErrorLog;
  readonly counters: Counters;
  /** How long I/O commands take; null when that is not measured. */
  readonly latencies: Latencies | null;
  /** Which commands are struck by faults, and what these do to the controller. */
  readonly plan: FaultPlan;
  readonly effects: FaultEffects;
  /** What {@link io} works with. */
  readonly ioContext: IoContext;
}

/**
 * Fetches the commands from the submission queues in turn (round robin arbitration; NVMe base 2.0, 3.4.4), has them
 * executed, and completes them.
 */
export class CommandProcessor {
  readonly #queues: QueueSet;
  readonly #admin: AdminCommands;
  readonly #io: IoCommands;
  readonly #running: RunningCommands;
  readonly #watch: DoorbellWatch;
  readonly #errors: ErrorLog;
  readonly #counters: Counters;
  readonly #latencies: Latencies | null;
  readonly #faulty: FaultyCommands;
  /** Index of the submission queue that the next round begins with. */
  #next = 0;
  /** Bytes that may have been moved when the round ends. */
  #roundEnd = 0;

  constructor(parts: CommandProcessorParts) {
    const { queues, admin, io, running, watch, errors, counters, latencies, plan, effects, ioContext } =
      parts;
    this.#queues = queues;
    this.#admin = admin;
    this.#io = io;
    this.#running = running;
    running.onReply = (command, reply) => {
      this.#complete(command, reply);
    };
    this.#watch = watch;
    this.#errors = errors;
    this.#counters = counters;
    this.#latencies = latencies;
    this.#faulty = new FaultyCommands(plan, effects, ioContext, running, {
      fetched: (queue, words) => this.#fetched(queue, words),
      execute: (command) => this.#execute(command),
      settle: (command, answer) => {
        this.#settle(command, answer);
      },
    });
  }

  /**
   * Looks at all doorbells once, unless so much was moved that the event loop should have a turn.
   * @returns the number of commands that were taken; Infinity when it should
   * @throws FatalError when the controller cannot go on
   */
  round(): number {
    if (this.#running.failure !== null) throw new FatalError(this.#running.failure);
    const queues = this.#queues;
    if (!queues.reachable) {
      queues.restartGrace();
      return 0;
    }
    queues.refresh();
    let commands = 0;
    this.#roundEnd = this.#io.bytesMoved + BYTES_PER_ROUND;
    // A command of the admin queue may create or delete others: that replaces the list.
    const { polled } = queues;
    let index = this.#next < polled.length ? this.#next : 0;
    this.#next = 0;
    for (let left = polled.length; left > 0; left--) {
      const queue = polled[index] as SubmissionQueue;
      index = index + 1 === polled.length ? 0 : index + 1;
      if (queue.live && queue.claim === null) commands += this.#serve(queue);
      if (this.#io.bytesMoved < this.#roundEnd) continue;
      // The others have their turn first.
      this.#next = index;
      commands = Infinity;
      break;
    }
    for (const queue of queues.completions.values()) {
      if (queue.congested && this.#found(queue)) queues.drain(queue);
    }
    return commands;
  }

  /** The submission queues, when nothing but their doorbells can bring work to {@link round}; null otherwise. */
  bells(): readonly SubmissionQueue[] | null {
    const queues = this.#queues;
    const { polled } = queues;
    if (!this.#running.idle || !queues.reachable) return null;
    if (polled.some((queue) => queue.tail() !== queue.head || queue.completions.congested)) return null;
    return polled;
  }

  /** Forgets all queues, and makes all commands that run void. */
  drop(): void {
    this.#running.drop();
    this.#faulty.drop();
    this.#queues.drop();
  }

  #serve(queue: SubmissionQueue): number {
    const tail = queue.tail();
    if (tail === queue.head) return 0;
    if (tail < 0 || tail >= queue.entries) {
      this.#watch.badTail(queue, tail);
      return 0;
    }
    queue.badTail = null;
    const completions = queue.completions;
    if (!this.#found(queue) || !this.#found(completions)) return 0;
    let count = tail - queue.head;
    if (count < 0) count += queue.entries;
    if (count > BURST) count = BURST;
    const room = completions.room();
    if (completions.badHead) this.#watch.badHead(completions);
    if (room < count) count = room;
    let taken = 0;
    this.#latencies?.begin();
    while (taken < count && queue.claim === null && this.#io.bytesMoved < this.#roundEnd) {
      // What came before has dropped the queue, or its next part is not mapped.
      if (queue.words === null || !queue.live) break;
      taken += this.#take(queue, queue.words);
    }
    if (completions.posted) this.#queues.interrupt(completions);
    return taken;
  }

  /** Executes the command at the head of a queue. Returns how many were taken: two, if they are fused. */
  #take(queue: SubmissionQueue, words: Int32Array): number {
    const at = queue.take();
    if (this.#faulty.armed && this.#faulty.take(queue, words.slice(at, at + SQE_WORDS))) return 1;
    const cdw0 = words[at] as number;
    if (queue.id === 0) {
      this.#takeAdmin(this.#fetched(queue, words.slice(at, at + SQE_WORDS)));
      return 1;
    }
    const outcome = this.#io.execute(words, at);
    if (outcome === Outcome.success) {
      queue.completions.post(queue.id, queue.head, cdw0 >>> 16, 0, 0);
      if (this.#latencies !== null) this.#latencies.completed(cdw0 & 0xff);
      return 1;
    }
    const command = this.#fetched(queue, words.slice(at, at + SQE_WORDS));
    if (outcome === DEFERRED) this.#settle(command, this.#io.slow.deferred(command.words, command.alive));
    else if (((command.words[0] as number) & FUSE) !== 0) return this.#takeFused(command);
    else this.#post(command, { outcome });
    return 1;
  }

  /** @param words a copy of the entry that was fetched last */
  #fetched(queue: SubmissionQueue, words: Int32Array): FetchedCommand {
    const since = this.#latencies?.since ?? 0;
    this.#latencies?.begin();
    return this.#running.fetched(queue, words, since);
  }

  /** Completes a command within the loop, which interrupts for all that it has taken. */
  #post(command: FetchedCommand, { outcome, dw0 = 0 }: Reply): void {
    const { queue, words } = command;
    this.#record(queue, words, outcome);
    queue.completions.post(queue.id, queue.head, commandId(words), outcome, dw0);
    this.#measure(command);
  }

  #measure({ queue, words, since }: FetchedCommand): void {
    if (queue.id !== 0) this.#latencies?.record((words[SqeWord.cdw0] as number) & 0xff, since);
  }

  /** Executes a command of a fused operation, with the one behind it, if that is the other (NVMe base 2.0, 3.4.2). */
  #takeFused(first: FetchedCommand): 1 | 2 {
    const { queue, words, alive } = first;
    const fuse = (words[0] as number) & FUSE;
    const second = fuse === FUSED_FIRST ? this.#takeSecond(queue) : null;
    if (second === null) {
      this.#post(first, { outcome: fuse === FUSE ? Outcome.invalidField : Outcome.abortedMissingFused });
      return 1;
    }
    const other = this.#running.fetched(queue, second, first.since);
    // Neither can be taken back without the other.
    first.committed = true;
    other.committed = true;
    const reply = this.#running.run(first, this.#io.slow.fused(words, second, alive));
    const rest = reply.then(({ outcome, second: last = outcome }): Reply => ({ outcome: last }));
    this.#running.follow(other, rest);
    return 2;
  }

  /** Takes the command at the head of a queue if it is the second of a fused operation; null when it is not. */
  #takeSecond(queue: SubmissionQueue): Int32Array | null {
    const { words } = queue;
    if (words === null || queue.tail() === queue.head) return null;
    const at = (queue.head - queue.first) * SQE_WORDS;
    if (((words[at] as number) & FUSE) !== FUSED_SECOND) return null;
    return words.slice(queue.take(), at + SQE_WORDS);
  }

  #takeAdmin(command: FetchedCommand): void {
    const answer = this.#execute(command);
    if (answer === 'held' || answer instanceof Promise || 'run' in answer) this.#settle(command, answer);
    else this.#post(command, answer);
  }

  /** Executes a command of any queue, as if there were no faults. */
  #execute({ queue, words, alive }: FetchedCommand): Answer {
    if (queue.id === 0) {
      this.#counters.adminCommands++;
      return this.#admin.execute(new Uint32Array(words), alive);
    }
    const outcome = this.#io.execute(words, 0);
    return outcome === DEFERRED ? this.#io.slow.deferred(words, alive) : { outcome };
  }

  /** Completes a command when its answer is there. */
  #settle(command: FetchedCommand, answer: Answer): void {
    if (answer === 'held') return;
    if (answer instanceof Promise) {
      // It has begun with what cannot be taken back, such as the deletion of a queue.
      command.committed = true;
      this.#running.follow(command, answer);
    } else if ('run' in answer) void this.#running.run(command, answer);
    else this.#complete(command, answer);
  }

  /** Completes a command outside of the loop. */
  #complete(command: FetchedCommand, { outcome, dw0 = 0, lba, specific }: Reply): void {
    const { queue, words, ending } = command;
    this.#record(queue, words, outcome, lba, specific);
    const { cid = commandId(words), twice = false, silent = false } = ending ?? {};
    this.#queues.complete(queue, cid, outcome, dw0, silent);
    if (twice) this.#queues.complete(queue, cid, outcome, dw0, silent);
    this.#measure(command);
  }

  /** Counts and logs a command that ended with an error. */
  #record(queue: SubmissionQueue, words: Int32Array, outcome: number, lba?: number, specific?: number): void {
    if (outcome === Outcome.success) return;
    this.#counters.errors++;
    if (queue.id !== 0) this.#io.failed(words[SqeWord.nsid] as number);
    if (outcome === Outcome.writeFault || outcome === Outcome.unrecoveredReadError)
      this.#counters.mediaErrors++;
    const opcode = (words[SqeWord.cdw0] as number) & 0xff;
    const hasBlocks = queue.id !== 0 && WITH_BLOCKS.has(opcode);
    this.#errors.add(
      queue.id,
      commandId(words),
      outcome,
      (words[SqeWord.nsid] as number) >>> 0,
      lba ?? (hasBlocks ? startBlock(words, 0) : 0),
      specific,
    );
  }

  /** Whether the next entry of a queue that is needed is in mapped memory. It may be missing for a while. */
  #found(queue: SubmissionQueue | CompletionQueue): boolean {
    if (queue.words !== null) return true;
    if (this.#queues.find(queue)) return true;
    const now = performance.now();
    if (queue.missingSince < 0) queue.missingSince = now;
    if (now - queue.missingSince < UNMAPPED_GRACE) return false;
    const which = queue instanceof SubmissionQueue ? 'Submission' : 'Completion';
    throw new FatalError(
      `${which} queue ${queue.id} is in use, but its entry ${queue.position} at 0x${queue.address(queue.position).toString(16)} ` +
        'is not in memory that the client shares',
    );
  }
}

function commandId(words: Int32Array): number {
  return (words[SqeWord.cdw0] as number) >>> 16;
}
