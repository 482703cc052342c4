// SPDX-License-Identifier: MIT
import {
  type DataAction,
  type FaultEffects,
  type FaultPlan,
  type Strike,
  act,
  isControllerAction,
} from '../faults';
import { SqeWord } from '../spec/submission-entry';
import { Delays } from './delays';
import { faultyBackend } from './faulty-backend';
import { DEFERRED, IoCommands } from './io-commands';
import type { IoContext } from './slow-commands';
import { startBlock } from './io-words';
import { type Answer, Outcome } from './outcome';
import type { SubmissionQueue } from './queue';
import type { FetchedCommand, RunningCommands } from './running-commands';

/** What {@link FaultyCommands} needs of those who execute commands without faults. */
export interface CommandPath {
  /** A command that was fetched just now. */
  fetched(queue: SubmissionQueue, words: Int32Array): FetchedCommand;
  /** Executes a command. */
  execute(command: FetchedCommand): Answer;
  /** Completes a command, now or when its answer is there. */
  settle(command: FetchedCommand, answer: Answer): void;
}

/** Commands that faults strike: they are late, are not executed as they should be, or do not complete as they should. */
export class FaultyCommands {
  readonly #plan: FaultPlan;
  readonly #effects: FaultEffects;
  readonly #io: IoContext;
  readonly #running: RunningCommands;
  readonly #path: CommandPath;
  readonly #delays = new Delays();

  /** @param io what I/O commands work with */
  constructor(
    plan: FaultPlan,
    effects: FaultEffects,
    io: IoContext,
    running: RunningCommands,
    path: CommandPath,
  ) {
    this.#plan = plan;
    this.#effects = effects;
    this.#io = io;
    this.#running = running;
    this.#path = path;
  }

  /** Whether a command may be struck: only then {@link take} need be asked. */
  get armed(): boolean {
    return this.#plan.strikesCommands;
  }

  /**
   * Takes over a command, unless no fault strikes it.
   * @param words a copy of the command
   * @returns whether it was taken over
   */
  take(queue: SubmissionQueue, words: Int32Array): boolean {
    const strike = this.#plan.command(queue.id, words, 0);
    if (strike === null) return false;
    const command = this.#path.fetched(queue, words);
    if (strike.delay === 0) this.#begin(command, strike);
    else void this.#beginLater(command, strike);
    return true;
  }

  /** The queues are dropped, and with them the commands that are late. */
  drop(): void {
    this.#delays.cancel();
  }

  /** The command counts as one that runs, so that its queue is not deleted under it, and it can be aborted. */
  async #beginLater(command: FetchedCommand, strike: Strike): Promise<void> {
    this.#running.begin(command);
    await this.#delays.wait(strike.delay);
    if (!this.#running.end(command)) return;
    this.#begin(command, strike);
    this.#running.leave(command);
  }

  #begin(command: FetchedCommand, strike: Strike): void {
    const { action, silent } = strike;
    if (action?.kind === 'hang') return;
    if (isControllerAction(action)) {
      act(action, this.#effects);
      if (!command.alive()) return;
    }
    const { cid } = command;
    command.ending = {
      cid: action?.kind === 'cid' ? (action.cid ?? ~cid & 0xffff) : cid,
      twice: action?.kind === 'twice',
      silent,
    };
    this.#path.settle(command, this.#answer(command, strike));
  }

  #answer(command: FetchedCommand, { action, seed }: Strike): Answer {
    if (action?.kind === 'status') return { outcome: action.status };
    if (action?.kind === 'lost') return { outcome: Outcome.success };
    if (action?.kind === 'flip' || action?.kind === 'torn')
      return this.#executeDamaged(command, action, seed);
    return this.#path.execute(command);
  }

  /** Executes an I/O command whose data is damaged between the host's memory and the backend. */
  #executeDamaged({ words, alive }: FetchedCommand, action: DataAction, seed: number): Answer {
    const { namespaces } = this.#io;
    const find = (nsid: number): ReturnType<typeof namespaces.find> => {
      const namespace = namespaces.find(nsid);
      if (namespace === null) return null;
      const { backend, blockSize } = namespace;
      const offset = startBlock(words, 0) * blockSize;
      const length = (((words[SqeWord.cdw12] as number) & 0xffff) + 1) * blockSize;
      return namespace.over(faultyBackend(backend, action, { offset, length }, blockSize, seed));
    };
    const io = new IoCommands({
      ...this.#io,
      namespaces: {
        find,
        absence: (nsid) => namespaces.absence(nsid),
        addressed: (nsid) => namespaces.addressed(nsid),
      },
    });
    const outcome = io.execute(words, 0);
    return outcome === DEFERRED ? io.slow.deferred(words, alive) : { outcome };
  }
}
