// SPDX-License-Identifier: MIT
import { HEADER_SIZE, HeaderFlag } from '../protocol/constants';
import { encodeHeader, isReply, type Header } from '../protocol/header';
import type { Request } from './connection-types';
import { copyBytes } from './copy-bytes';
import { SendQueue, type ByteSink } from './send-queue';

/** A message to send. */
export interface OutgoingMessage {
  readonly id: number;
  readonly command: number;
  readonly flags: number;
  readonly errno: number;
  /** The fixed part. */
  readonly payload: Uint8Array;
  /** Bulk data that follows it. */
  readonly data: Uint8Array | undefined;
  readonly fds: readonly number[] | undefined;
}

/** A request as it is sent. */
export function requestMessage(id: number, { command, payload, data, fds }: Request): OutgoingMessage {
  return { id, command, flags: HeaderFlag.command, errno: 0, payload, data, fds };
}

/** Turns messages into bytes for a {@link SendQueue}. */
export class MessageWriter {
  readonly queue: SendQueue;
  readonly #head = new Uint8Array(4096);
  readonly #headView = new DataView(this.#head.buffer);
  readonly #header: Header = { id: 0, command: 0, size: 0, flags: 0, error: 0 };
  #gathering = false;

  constructor(sink: ByteSink) {
    this.queue = new SendQueue(sink);
  }

  /**
   * Header and fixed payload go through one reused buffer, bulk data as it is, in one sendmsg. All may be reused at once.
   *
   * @param endOfTurn given for a message that may leave together with others: the first of a turn of the event loop leaves
   *   at once, so that the peer can begin, small ones after it at the end of the turn, when this function is called; it
   *   has to call `queue.release()`
   * @returns the header
   */
  write(message: OutgoingMessage, endOfTurn: (() => void) | null): Readonly<Header> {
    const { payload, data = null, fds = null } = message;
    const headLength = HEADER_SIZE + payload.length;
    let head = this.#head;
    let view = this.#headView;
    if (headLength > head.length) {
      head = new Uint8Array(headLength);
      view = new DataView(head.buffer);
    }
    const header = encodeHead(message, head, view, this.#header);
    const alone = endOfTurn === null || (fds !== null && fds.length > 0);
    if (alone || !this.#gathering || !this.queue.gather(head, headLength, data))
      this.queue.push(head, headLength, data, fds, isReply(header.flags));
    if (!alone && !this.#gathering) {
      this.#gathering = true;
      queueMicrotask(() => {
        this.#gathering = false;
        endOfTurn();
      });
    }
    return header;
  }
}

/** Header and fixed payload. */
function encodeHead(message: OutgoingMessage, into: Uint8Array, view: DataView, header: Header): Header {
  const { payload, data } = message;
  header.id = message.id;
  header.command = message.command;
  header.flags = message.flags;
  header.error = message.errno;
  header.size = HEADER_SIZE + payload.length + (data?.length ?? 0);
  encodeHeader(view, 0, header);
  copyBytes(payload, 0, payload.length, into, HEADER_SIZE);
  return header;
}

/** A whole message, its bulk data too, at the beginning of `into`, which `view` is of; returns its header. */
export function encodeMessage(message: OutgoingMessage, into: Uint8Array, view: DataView): Header {
  const header = encodeHead(message, into, view, { id: 0, command: 0, size: 0, flags: 0, error: 0 });
  const { payload, data } = message;
  if (data !== undefined) copyBytes(data, 0, data.length, into, HEADER_SIZE + payload.length);
  return header;
}
