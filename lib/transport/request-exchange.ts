// SPDX-License-Identifier: MIT
import type { Socket, SocketExchange } from '../native';
import { HEADER_SIZE } from '../protocol/constants';
import type { Header } from '../protocol/header';
import type { MessageReader } from './message-reader';
import { encodeMessage, type OutgoingMessage } from './message-writer';
import type { SendQueue } from './send-queue';

/** Sends a request and reads what comes next, in one call of the addon. */
export class RequestExchange {
  readonly #reader: MessageReader;
  readonly #queue: SendQueue;
  readonly #exchange: SocketExchange;
  readonly #view: DataView;

  constructor(socket: Socket, reader: MessageReader, queue: SendQueue) {
    this.#reader = reader;
    this.#queue = queue;
    this.#exchange = socket.exchange();
    const { buffer, byteOffset, byteLength } = this.#exchange.outgoing;
    this.#view = new DataView(buffer, byteOffset, byteLength);
  }

  /**
   * Whether a message can go this way now: it is small and brings no descriptors, nothing waits before it, and the reader
   * may read ahead and has nothing.
   */
  takes({ payload, data, fds }: OutgoingMessage): boolean {
    const size = HEADER_SIZE + payload.length + (data?.length ?? 0);
    if (fds !== undefined || size > this.#exchange.outgoing.length) return false;
    this.#queue.release();
    return this.#queue.bytes === 0 && this.#reader.readAhead && !this.#reader.partial;
  }

  /**
   * What the socket does not take waits in the queue.
   *
   * @returns the header that was sent
   * @throws VfioUserError ERR_VFIO_USER_SYSTEM
   */
  run(message: OutgoingMessage, spinMicroseconds: number): Header {
    const exchange = this.#exchange;
    const { outgoing } = exchange;
    const header = encodeMessage(message, outgoing, this.#view);
    const count = exchange.run(header.size, spinMicroseconds);
    if (count > 0) this.#reader.supply(exchange.incoming, count);
    if (exchange.sent < header.size)
      this.#queue.push(outgoing.subarray(exchange.sent), header.size - exchange.sent, null, null, false);
    return header;
  }
}
