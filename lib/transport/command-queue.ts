// SPDX-License-Identifier: MIT
import { VfioUserError } from '../errors';
import { HeaderFlag, commandName, isNoReply } from '../protocol';
import { CommandError, Errno } from './command-error';
import type { FdList } from './fd-list';
import { Fifo } from './fifo';
import type { Message } from './message-reader';

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

/** How a {@link CommandQueue} reaches its connection. */
export interface CommandOutlet {
  reply(
    id: number,
    command: number,
    flags: number,
    errno: number,
    payload: Uint8Array,
    data: Uint8Array | undefined,
    fds: readonly number[] | undefined,
  ): void;
  fail(error: VfioUserError): void;
}

const EMPTY = new Uint8Array(0);
/** Weight of the commands that may wait behind a slow handler before the connection is given up, about their bytes. */
const MAX_WAITING = 64 << 20;
/** What a small message takes beside its bytes. */
const MESSAGE_WEIGHT = 256;
/** Descriptors are scarcer than memory: 1024 of them may wait. */
const FD_WEIGHT = 64 << 10;

/**
 * The peer's commands, served one after the other in the order they came (vfio-user, "Command Concurrency").
 * Replies to our own requests do not pass through here, so a handler may wait for one.
 */
export class CommandQueue {
  readonly #handler: CommandHandler;
  readonly #outlet: CommandOutlet;
  readonly #waiting = new Fifo<Message>();
  #weight = 0;
  #busy = false;
  #closed = false;

  constructor(handler: CommandHandler, outlet: CommandOutlet) {
    this.#handler = handler;
    this.#outlet = outlet;
  }

  add(message: Message): void {
    if (!this.#busy) {
      this.#serve(message);
      return;
    }
    this.#waiting.push(message);
    this.#weight += weightOf(message);
    if (this.#weight > MAX_WAITING) {
      this.#outlet.fail(
        new VfioUserError(
          'ERR_VFIO_USER_PROTOCOL',
          `the peer sent too much while a command was still being served: ${String(this.#waiting.length)} commands wait, the last is ${commandName(message.header.command)}`,
        ),
      );
    }
  }

  /** Drops what waits. A handler that is at work may finish; its reply goes nowhere. */
  close(): void {
    this.#closed = true;
    for (let message; (message = this.#waiting.shift()) !== undefined;) message.fds.close();
  }

  #serve(message: Message): void {
    const { header, payload, fds } = message;
    const posted = isNoReply(header.flags);
    let result;
    try {
      result = this.#handler({ command: header.command, payload, fds, posted });
    } catch (error) {
      this.#finish(message, undefined, error);
      return;
    }
    if (!(result instanceof Promise)) {
      this.#finish(message, result, undefined);
      return;
    }
    this.#busy = true;
    result.then(
      (reply) => {
        this.#finish(message, reply, undefined);
        this.#serveNext();
      },
      (error: unknown) => {
        this.#finish(message, undefined, error ?? new Error('the handler rejected without a reason'));
        this.#serveNext();
      },
    );
  }

  #serveNext(): void {
    this.#busy = false;
    while (!this.#isBusy() && !this.#closed) {
      const next = this.#waiting.shift();
      if (next === undefined) return;
      this.#weight -= weightOf(next);
      this.#serve(next);
    }
  }

  #isBusy(): boolean {
    return this.#busy;
  }

  #finish(message: Message, reply: CommandReply | undefined, error: unknown): void {
    const { id, command, flags } = message.header;
    message.fds.close();
    if (!isNoReply(flags) && !this.#closed) {
      if (error !== undefined) {
        this.#outlet.reply(
          id,
          command,
          HeaderFlag.reply | HeaderFlag.error,
          errnoOf(error),
          EMPTY,
          undefined,
          undefined,
        );
      } else {
        this.#outlet.reply(
          id,
          command,
          HeaderFlag.reply,
          0,
          reply?.payload ?? EMPTY,
          reply?.data,
          reply?.fds,
        );
      }
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
