// SPDX-License-Identifier: MIT
import { constants } from 'node:os';
import { VfioUserError, errnoName } from '../errors';
import { commandName } from '../protocol/commands';
import { HeaderFlag } from '../protocol/constants';
import { isNoReply } from '../protocol/header';
import type { FdList, Message } from './incoming';
import { LaneQueue, type Lane, type Turn } from './lanes';
import type { OutgoingMessage } from './outgoing';

/** A command of the peer. */
export interface IncomingCommand {
  readonly command: number;
  readonly payload: Uint8Array;
  /** Descriptors that came with it; those that the handler does not take are closed when it is done. */
  readonly fds: FdList;
  /** True when the peer does not want a reply (No_reply). */
  readonly posted: boolean;
}

/** What a handler answers: payload, bulk data that follows it, and descriptors, which stay the handler's. */
export interface CommandReply {
  readonly payload: Uint8Array;
  readonly data?: Uint8Array | undefined;
  readonly fds?: readonly number[] | undefined;
  /** Called when the reply has been handed to the socket: close descriptors that were made for it here. */
  readonly sent?: (() => void) | undefined;
}

/**
 * Serves a command: returns its reply, `undefined` for a reply without payload, or throws a {@link CommandError} whose
 * errno goes into the reply. Any other error is answered with EIO.
 */
export type CommandHandler = (
  command: IncomingCommand,
) => CommandReply | undefined | Promise<CommandReply | undefined>;

/** Tells what a command overlaps with while its handler is at work; null for nothing. Must not throw. */
export type CommandLane = (command: number, payload: Uint8Array) => Lane | null;

/** How {@link Commands} reaches its connection. */
export interface CommandOutlet {
  /** So many replies wait for the socket that no more should be made. */
  readonly congested: boolean;
  reply(message: OutgoingMessage): void;
  /** The peer cannot be served any longer. */
  fail(error: VfioUserError): void;
}

/** Errno values by name, as `os.constants.errno` has them. */
export const Errno = constants.errno;

/**
 * Thrown by the handler of a peer's command to answer it with an errno.
 *
 * @example throw new CommandError(Errno.EINVAL, 'offset beyond the region');
 */
export class CommandError extends Error {
  /** Name of the class, as stack traces show it. */
  override readonly name = 'CommandError';
  /** Positive errno value that goes into the reply header. */
  readonly errno: number;

  /**
   * @param errno positive errno value, such as `Errno.EINVAL`
   * @param message says what was wrong, for the log of this side; the peer sees only the errno
   */
  constructor(errno: number, message: string) {
    super(`${errnoName(errno)}: ${message}`);
    this.errno = errno;
  }
}

const EMPTY = new Uint8Array(0);
/** Most weight of the commands that wait or are at work, about their bytes. A peer that sends more is disconnected. */
const MAX_WAITING = 64 << 20;
/** Memory that a message takes beside its bytes. */
const MESSAGE_WEIGHT = 256;
/** Weight of a descriptor. They are scarcer than memory: 1024 of them may wait. */
const FD_WEIGHT = 64 << 10;

/** A command that waits, or is at work. */
class MessageTurn implements Turn {
  readonly message: Message;
  readonly lane: Lane | null;
  readonly holdsOthers: boolean;
  /** Why it is not served; null when it is. */
  refusal: CommandError | null = null;
  readonly #begin: (turn: MessageTurn) => boolean;

  constructor(message: Message, lane: Lane | null, begin: (turn: MessageTurn) => boolean) {
    this.message = message;
    this.lane = lane;
    this.holdsOthers = isNoReply(message.header.flags);
    this.#begin = begin;
  }

  start(): boolean {
    return this.#begin(this);
  }

  drop(): void {
    this.message.fds.close();
  }
}

/**
 * The peer's commands. They are started in the order they came, and overlap while their handlers are at work as far as
 * their lanes allow; a posted one is done before anything later starts (vfio-user, "Command Concurrency"). Replies to our
 * own requests do not pass through here, so a handler may wait for one.
 */
export class Commands {
  /** The order of the commands; work that comes by other ways may take its turn among them. */
  readonly turns: LaneQueue;
  readonly #handler: CommandHandler;
  readonly #lane: CommandLane;
  readonly #maxDescriptor: number;
  readonly #outlet: CommandOutlet;
  /** Starts a command whose turn has come. */
  readonly #begin = (turn: MessageTurn): boolean => {
    const result = this.#start(turn.message, turn.refusal);
    if (result === undefined) this.#weight -= weightOf(turn.message);
    else this.#await(turn, result);
    return result !== undefined;
  };
  #weight = 0;
  #closed = false;

  /** @param maxDescriptor a command that has to wait does not keep a descriptor with this number, or a greater one */
  constructor(handler: CommandHandler, lane: CommandLane, maxDescriptor: number, outlet: CommandOutlet) {
    this.#maxDescriptor = maxDescriptor;
    this.#handler = handler;
    this.#lane = lane;
    this.#outlet = outlet;
    this.turns = new LaneQueue(() => outlet.congested);
  }

  add(message: Message): void {
    // Most handlers return at once: then there is no turn to keep.
    if (this.turns.idle) {
      const result = this.#start(message, null);
      if (result !== undefined) {
        const turn = this.#turn(message);
        this.#await(turn, result);
        this.turns.begun(turn);
      }
      return;
    }
    const turn = this.#turn(message);
    if (message.fds.reaches(this.#maxDescriptor)) {
      // Closed now, since there may be many such commands; answered in its turn.
      message.fds.close();
      turn.refusal = new CommandError(
        Errno.EMFILE,
        `${this.#maxDescriptor} descriptors are open, no more are kept for commands that wait`,
      );
    }
    this.turns.add(turn);
    if (this.#weight > MAX_WAITING) {
      this.#outlet.fail(
        new VfioUserError(
          'ERR_VFIO_USER_PROTOCOL',
          `the peer sent too much while a command was still being served: ${this.turns.waiting} commands wait, the last is ${commandName(message.header.command)}`,
        ),
      );
    }
  }

  /** Drops what waits. Handlers that are at work may finish; their replies go nowhere. */
  close(): void {
    this.#closed = true;
    this.turns.close();
  }

  #turn(message: Message): MessageTurn {
    this.#weight += weightOf(message);
    const { header, payload } = message;
    return new MessageTurn(message, this.#lane(header.command, payload), this.#begin);
  }

  /** Calls the handler, and answers unless it returns a promise. */
  #start(message: Message, refusal: CommandError | null): Promise<CommandReply | undefined> | undefined {
    const { header, payload, fds } = message;
    let result;
    try {
      if (refusal !== null) throw refusal;
      result = this.#handler({ command: header.command, payload, fds, posted: isNoReply(header.flags) });
    } catch (error) {
      this.#finish(message, undefined, error);
      return undefined;
    }
    if (result instanceof Promise) return result;
    this.#finish(message, result, undefined);
    return undefined;
  }

  #await(turn: MessageTurn, result: Promise<CommandReply | undefined>): void {
    const { message } = turn;
    const done = (reply: CommandReply | undefined, error: unknown): void => {
      this.#finish(message, reply, error);
      this.#weight -= weightOf(message);
      this.turns.done(turn);
    };
    result.then(
      (reply) => {
        done(reply, undefined);
      },
      (error: unknown) => {
        done(undefined, error ?? new Error('the handler rejected without a reason'));
      },
    );
  }

  #finish(message: Message, reply: CommandReply | undefined, error: unknown): void {
    const { id, command, flags } = message.header;
    message.fds.close();
    if (!isNoReply(flags) && !this.#closed) {
      this.#outlet.reply(
        error === undefined
          ? {
              id,
              command,
              flags: HeaderFlag.reply,
              errno: 0,
              payload: reply?.payload ?? EMPTY,
              data: reply?.data,
              fds: reply?.fds,
            }
          : {
              id,
              command,
              flags: HeaderFlag.reply | HeaderFlag.error,
              errno: errnoOf(error),
              payload: EMPTY,
            },
      );
    }
    reply?.sent?.();
  }
}

function weightOf({ header, fds }: Message): number {
  return header.size + MESSAGE_WEIGHT + fds.length * FD_WEIGHT;
}

function errnoOf(error: unknown): number {
  if (error instanceof CommandError) return error.errno;
  // A command that does not decode is the peer's mistake, anything else ours.
  if (error instanceof VfioUserError)
    return error.code === 'ERR_VFIO_USER_PROTOCOL' ? Errno.EINVAL : Errno.EIO;
  return Errno.EIO;
}
