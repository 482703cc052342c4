// SPDX-License-Identifier: MIT
import { copyBytes } from '../native/copy-bytes';
import { HEADER_SIZE } from '../protocol/constants';
import { encodeHeader, isReply, type Header } from '../protocol/header';
import type { Request } from './connection-types';
import { SendQueue, type ByteSink } from './send-queue';

/** What a message brings, be it a request or a reply. */
export type OutgoingMessage = Pick<Request, 'command' | 'payload' | 'data' | 'fds'>;

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
   * @param flags `HeaderFlag` bits
   * @param errno of a reply with the error bit, else 0
   * @param endOfTurn given for a message that may leave together with others: the first of a turn of the event loop leaves
   *   at once, so that the peer can begin, small ones after it at the end of the turn, when this function is called; it
   *   has to call `queue.release()`
   * @returns the header
   */
  write(
    id: number,
    flags: number,
    errno: number,
    message: OutgoingMessage,
    endOfTurn: (() => void) | null,
  ): Readonly<Header> {
    const { payload, data = null, fds = null } = message;
    const headLength = HEADER_SIZE + payload.length;
    const header = this.#header;
    header.id = id;
    header.command = message.command;
    header.flags = flags;
    header.error = errno;
    header.size = headLength + (data?.length ?? 0);
    let head = this.#head;
    if (headLength > head.length) {
      head = new Uint8Array(headLength);
      encodeHeader(new DataView(head.buffer), 0, header);
    } else {
      encodeHeader(this.#headView, 0, header);
    }
    copyBytes(payload, 0, payload.length, head, HEADER_SIZE);
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
