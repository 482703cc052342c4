// SPDX-License-Identifier: MIT
import type { SocketExchange } from '../native';
import { HEADER_SIZE, HeaderFlag } from '../protocol/constants';
import { encodeHeader, type Header } from '../protocol/header';
import { newPayload, viewOf } from '../protocol/wire';
import type { Request } from './connection-types';
import { copyBytes } from './copy-bytes';
import { NO_FDS } from './fd-list';
import type { MessageReader } from './message-reader';
import type { Reply } from './pending-table';
import type { SendQueue } from './send-queue';

const NOTHING = new Uint8Array(0);

/**
 * Sends a request and takes its reply in one call of the addon, with as little as can be between a reply and the next
 * request: a server that has just answered is still awake. What does not go as usual is left to queue and reader.
 */
export class RequestExchange {
  readonly #reader: MessageReader;
  readonly #queue: SendQueue;
  readonly #exchange: SocketExchange;
  readonly #outgoing: DataView;
  readonly #incoming: DataView;
  readonly #header: Header = { id: 0, command: 0, size: 0, flags: HeaderFlag.command, error: 0 };

  constructor(exchange: SocketExchange, reader: MessageReader, queue: SendQueue) {
    this.#reader = reader;
    this.#queue = queue;
    this.#exchange = exchange;
    this.#outgoing = viewOf(exchange.outgoing);
    this.#incoming = viewOf(exchange.incoming);
  }

  /**
   * Whether a request can go this way: it is small and brings no descriptors. Only while nothing waits before it, the
   * reader has nothing, and the reply can bring no descriptors either.
   */
  takes({ payload, data = NOTHING, fds }: Request): boolean {
    return fds === undefined && HEADER_SIZE + payload.length + data.length <= this.#exchange.outgoing.length;
  }

  /**
   * @returns the reply; null when it did not come at once, or alone, or is not as it should be: what came is the reader's
   *   then, and what the socket did not take is the queue's
   * @throws VfioUserError ERR_VFIO_USER_SYSTEM
   */
  run(id: number, request: Request, spinMicroseconds: number): Reply | null {
    const { command, payload, data = NOTHING, maxReply = this.#reader.maxPayload } = request;
    const exchange = this.#exchange;
    const { outgoing, incoming } = exchange;
    const header = this.#header;
    header.id = id;
    header.command = command;
    header.size = HEADER_SIZE + payload.length + data.length;
    encodeHeader(this.#outgoing, 0, header);
    copyBytes(payload, 0, payload.length, outgoing, HEADER_SIZE);
    copyBytes(data, 0, data.length, outgoing, HEADER_SIZE + payload.length);

    const count = exchange.run(header.size, spinMicroseconds);
    const length = count - HEADER_SIZE;
    if (length >= 0 && length <= maxReply && this.#isReply(id, command, count)) {
      const reply = newPayload(length);
      copyBytes(incoming, HEADER_SIZE, length, reply, 0);
      return { payload: reply, fds: NO_FDS };
    }
    if (count > 0) this.#reader.supply(incoming, count);
    const { sent } = exchange;
    if (sent < header.size) this.#queue.push(outgoing.subarray(sent), header.size - sent, null, null, false);
    return null;
  }

  /** Whether the bytes that came are one reply without error. */
  #isReply(id: number, command: number, size: number): boolean {
    const view = this.#incoming;
    return (
      view.getUint16(0, true) === id &&
      view.getUint16(2, true) === command &&
      view.getUint32(4, true) === size &&
      view.getUint32(8, true) === HeaderFlag.reply
    );
  }
}
