// SPDX-License-Identifier: MIT
import type { SocketExchange } from '../native';
import { copyBytes } from '../native/copy-bytes';
import { HEADER_SIZE } from '../protocol/constants';
import { isGoodReply, putCommandHeader } from '../protocol/header';
import { newPayload } from '../protocol/wire';
import type { Request, WordsRequest } from './connection-types';
import { NO_FDS } from './fd-list';
import type { MessageReader } from './message-reader';
import type { Reply } from './pending-table';
import type { SendQueue } from './send-queue';

const NOTHING = new Uint8Array(0);
const WORD = Uint32Array.BYTES_PER_ELEMENT;
const HEADER_WORDS = HEADER_SIZE / WORD;

/**
 * Sends a request and takes its reply in one call of the addon, with as little as can be between a reply and the next
 * request: a server that has just answered is still awake. What does not go as usual is left to queue and reader.
 */
export class RequestExchange {
  readonly #reader: MessageReader;
  readonly #queue: SendQueue;
  readonly #exchange: SocketExchange;
  readonly #wordsOut: Uint32Array;
  readonly #wordsIn: Uint32Array;

  constructor(exchange: SocketExchange, reader: MessageReader, queue: SendQueue) {
    this.#reader = reader;
    this.#queue = queue;
    this.#exchange = exchange;
    this.#wordsOut = wordsOf(exchange.outgoing);
    this.#wordsIn = wordsOf(exchange.incoming);
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
    const { outgoing, incoming } = this.#exchange;
    const size = HEADER_SIZE + payload.length + data.length;
    putCommandHeader(this.#wordsOut, id, command, size);
    copyBytes(payload, 0, payload.length, outgoing, HEADER_SIZE);
    copyBytes(data, 0, data.length, outgoing, HEADER_SIZE + payload.length);

    const count = this.#exchange.run(size, spinMicroseconds);
    const length = count - HEADER_SIZE;
    if (length >= 0 && length <= maxReply && isGoodReply(this.#wordsIn, this.#wordsOut, count)) {
      const reply = newPayload(length);
      copyBytes(incoming, HEADER_SIZE, length, reply, 0);
      return { payload: reply, fds: NO_FDS };
    }
    this.#leave(count, size);
    return null;
  }

  /**
   * The same for a request of words: nothing is allocated.
   *
   * @param answer is given the payload of the reply
   * @returns bytes of the payload
   */
  runWords(id: number, request: WordsRequest, answer: Uint32Array, spinMicroseconds: number): number | null {
    const words = this.#wordsOut;
    const came = this.#wordsIn;
    const { command, words: payload, maxReply } = request;
    const size = HEADER_SIZE + payload.length * WORD;
    putCommandHeader(words, id, command, size);
    for (let index = 0; index < payload.length; index++)
      words[HEADER_WORDS + index] = payload[index] as number;
    const count = this.#exchange.run(size, spinMicroseconds);
    const length = count - HEADER_SIZE;
    if (length < 0 || length > maxReply || !isGoodReply(came, words, count)) {
      this.#leave(count, size);
      return null;
    }
    for (let index = 0; index * WORD < length; index++) answer[index] = came[HEADER_WORDS + index] as number;
    return length;
  }

  /** Something else came, or not all was sent. */
  #leave(count: number, size: number): void {
    const { outgoing, incoming, sent } = this.#exchange;
    if (count > 0) this.#reader.supply(incoming, count);
    // A copy, as what the queue sends goes through the same memory.
    if (sent < size) this.#queue.push(outgoing.slice(sent, size), size - sent, null, null, false);
  }
}

function wordsOf({ buffer, byteOffset, byteLength }: Uint8Array): Uint32Array {
  return new Uint32Array(buffer, byteOffset, byteLength / WORD);
}
