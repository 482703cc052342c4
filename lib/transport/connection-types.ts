// SPDX-License-Identifier: MIT
import type { VfioUserError } from '../errors';
import type { CommandHandler, CommandLane } from './command-queue';

/** How a `Connection` behaves. Sizes are in bytes, times in milliseconds. */
export interface ConnectionOptions {
  /** Name of the endpoint, for messages. */
  readonly name: string;
  /** Serves the commands of the peer. */
  readonly onCommand: CommandHandler;
  /** What commands of the peer overlap with. Default: nothing, they are served one after the other. */
  readonly lane?: CommandLane;
  /**
   * True: the peer sends descriptors only with replies that bring them by the specification, as servers do, so that other
   * messages may be read several at a time. Descriptors at other messages are closed. Default false.
   */
  readonly readAhead?: boolean;
  /** Called once when the connection has ended; null after `Connection.close`. */
  readonly onClose?: (error: VfioUserError | null) => void;
  /** Time-out of a request unless its own says otherwise. Default 5000. */
  readonly messageTimeout?: number;
  /** Largest message accepted, with its header. Default 1 MiB and 64 KiB. */
  readonly maxMessageSize?: number;
}

/** What is expected of a reply. */
export interface Expectation {
  readonly command: number;
  /** Milliseconds; Infinity for none. */
  readonly timeout?: number | undefined;
  /** Largest reply payload accepted, in bytes. Default: what fits into a message. */
  readonly maxReply?: number | undefined;
}

/** One request. */
export interface Request extends Expectation {
  /** The fixed part of the payload. May be reused when the call returns. */
  readonly payload: Uint8Array;
  /** Bulk data that follows it; not copied unless the socket is full. */
  readonly data?: Uint8Array | undefined;
  /** Descriptors that go with the message. They stay the caller's. */
  readonly fds?: readonly number[] | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** A request whose payload is a few 32-bit words of this machine, which are little-endian as those on the wire. */
export interface WordsRequest extends Expectation {
  readonly words: Uint32Array;
  readonly maxReply: number;
}

/** What a connection has seen so far. */
export interface ConnectionStatistics {
  messagesSent: number;
  messagesReceived: number;
  /** Replies that came after their request had timed out or was aborted; dropped. */
  lateReplies: number;
  /** Replies that no request waited for: duplicates, or replies to posted messages; dropped. */
  unexpectedReplies: number;
}
