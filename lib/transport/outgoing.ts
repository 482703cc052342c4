// SPDX-License-Identifier: MIT
import { closeFd, duplicateFd } from '../native';
import { copyBytes } from '../native/copy-bytes';
import { HEADER_SIZE, HeaderFlag } from '../protocol/constants';
import { encodeHeader, isNoReply, isReply } from '../protocol/header';
import { Fifo } from './fifo';
import { traceMessage, tracing } from './trace';

/** A message to the peer. */
export interface OutgoingMessage {
  readonly id: number;
  readonly command: number;
  /** `HeaderFlag` bits. */
  readonly flags: number;
  /** The errno of a reply with the error bit, else 0. */
  readonly errno: number;
  /** The fixed part of the payload. */
  readonly payload: Uint8Array;
  /** Bulk data that follows the fixed part. */
  readonly data?: Uint8Array | undefined;
  /** Descriptors that go with the message. They stay the caller's. */
  readonly fds?: readonly number[] | undefined;
}

/** The socket, as far as {@link Outgoing} needs it. */
export interface ByteSink {
  /** Sends `head[0 … headLength)` and `body[bodyOffset …)` in one sendmsg(2); bytes accepted, 0 when it would block. */
  send(
    head: Uint8Array,
    headLength: number,
    body: Uint8Array | null,
    bodyOffset: number,
    fds: readonly number[] | null,
  ): number;
}

/** Whom {@link Outgoing} tells how it goes. */
export interface OutgoingOwner {
  /** Name of the endpoint, for traces. */
  readonly name: string;
  /** Asks to call {@link Outgoing.flush} when the socket takes bytes again, or not to. */
  watchWritable(on: boolean): void;
  /** Sending has failed; nothing more is sent. */
  failed(error: unknown): void;
}

/** Bytes that wait for the socket. */
interface Chunk {
  readonly bytes: Uint8Array;
  sent: number;
  /** Duplicates of the sender's descriptors, owned by the queue; they go with the first byte. */
  fds: number[] | null;
  readonly isReply: boolean;
}

/** Where a message is that has to wait for its turn while the queue is full. */
export interface Departure {
  /** The message has left, or waits for the socket as bytes. */
  departed: boolean;
  /** The message while it waits for its turn, else null. */
  waiting: OutgoingMessage | null;
}

const NOTHING = new Uint8Array(0);
/** Above this many queued bytes, requests wait for their turn. */
const HIGH_WATER = 4 << 20;
/** Most bytes that are gathered: fewer than the pieces that the kernel cuts messages into, so that each arrives whole. */
const GATHERED_SIZE = 16 << 10;
/** Room for the header and the fixed payload of nearly all messages. */
const HEAD_SIZE = 4096;

/**
 * Messages on their way out, in order. Normally a message leaves in one sendmsg(2); what the socket does not take is copied and
 * waits. Requests of one turn of the event loop leave together: the first at once, so that the peer can begin, small ones after
 * it at the end of the turn.
 */
export class Outgoing {
  readonly #sink: ByteSink;
  readonly #owner: OutgoingOwner;
  readonly #head = new Uint8Array(HEAD_SIZE);
  readonly #headView = new DataView(this.#head.buffer);
  readonly #chunks = new Fifo<Chunk>();
  #chunkBytes = 0;
  #replyBytes = 0;
  /** Requests of this turn that leave together. */
  #gathered = NOTHING;
  #gatheredBytes = 0;
  #gathering = false;
  /** Messages that have not become bytes yet, since too many wait already. */
  #waiting = new Fifo<Departure>();
  /** How many of them were withdrawn. */
  #withdrawn = 0;
  #held: (() => void) | null = null;
  #roomListeners: (() => void)[] = [];
  #closed = false;
  /** Messages that were handed to the socket, or wait for it as bytes. */
  sent = 0;

  constructor(sink: ByteSink, owner: OutgoingOwner) {
    this.#sink = sink;
    this.#owner = owner;
  }

  /** Bytes that wait for the socket. */
  get bytes(): number {
    return this.#chunkBytes;
  }

  /** Whether messages wait for the socket, so that one sent now would have to wait too. */
  get backlogged(): boolean {
    return this.#chunkBytes > 0 || this.#waiting.length > 0;
  }

  /** Whether so much waits that senders should wait for {@link room}. */
  get full(): boolean {
    return this.#chunkBytes > HIGH_WATER || this.#waiting.length > 0;
  }

  /** Whether so many replies wait that the peer, which asked for them and does not read them, should not be read on. */
  get congested(): boolean {
    return this.#replyBytes > HIGH_WATER;
  }

  /**
   * Sends a message, or queues it. `payload` may be reused at once, and `fds` be closed. So may `data`, unless the message is a
   * request and the queue is {@link full}.
   *
   * @param departure follows the message while it waits for its turn
   */
  send(message: OutgoingMessage, departure?: Departure): void {
    this.releaseHeld();
    if (isReply(message.flags) || !this.full) {
      if (departure !== undefined) departure.departed = true;
      this.#write(message);
      return;
    }
    const data = isNoReply(message.flags) ? message.data?.slice() : message.data;
    const waiting = { ...message, payload: message.payload.slice(), data };
    if (departure === undefined) this.#waiting.push({ departed: false, waiting });
    else {
      departure.waiting = waiting;
      this.#waiting.push(departure);
    }
  }

  /**
   * Drops a message that still waits for its turn. A peer that does not read for long must not make us keep what nobody wants
   * any more.
   */
  withdraw(departure: Departure): void {
    if (departure.waiting === null) return;
    departure.waiting = null;
    this.#withdrawn++;
    if (this.#withdrawn * 2 <= this.#waiting.length) return;
    const all = this.#waiting;
    this.#waiting = new Fifo();
    this.#withdrawn = 0;
    for (let next; (next = all.shift()) !== undefined;) if (next.waiting !== null) this.#waiting.push(next);
  }

  /**
   * Holds a message back while the socket is {@link backlogged}, so that it can still grow. `emit` is called once: before any
   * other message is sent or queued, or when the socket has taken what waits. It sends the message.
   */
  hold(emit: () => void): void {
    this.releaseHeld();
    this.#held = emit;
  }

  /** Sends what is held back. */
  releaseHeld(): void {
    const emit = this.#held;
    this.#held = null;
    emit?.();
  }

  /** Resolves when there may be room for more messages, or none are sent any more. */
  room(): Promise<void> {
    return new Promise((resolve) => this.#roomListeners.push(resolve));
  }

  /** Sends the requests that were gathered in this turn. */
  release(): void {
    const count = this.#gatheredBytes;
    this.#gatheredBytes = 0;
    if (count > 0) this.#push(this.#gathered, count, null, null, false);
  }

  /** Hands waiting bytes to the socket, and lets messages that wait become bytes. */
  flush(): void {
    if (this.#chunkBytes === 0) return;
    try {
      for (let chunk; (chunk = this.#chunks.peek()) !== undefined && this.#flushChunk(chunk);)
        this.#chunks.shift();
    } catch (error) {
      this.#owner.failed(error);
    }
    while (!this.#closed && this.#chunkBytes <= HIGH_WATER) {
      const next = this.#waiting.shift();
      if (next === undefined) break;
      const { waiting } = next;
      if (waiting === null) {
        this.#withdrawn--;
        continue;
      }
      next.waiting = null;
      next.departed = true;
      this.#write(waiting);
    }
    if (!this.backlogged) this.releaseHeld();
    if (!this.full) this.#tellRoom();
    if (!this.#closed) this.#owner.watchWritable(this.#chunkBytes > 0);
  }

  /** Drops what waits. */
  close(): void {
    this.#closed = true;
    for (let chunk; (chunk = this.#chunks.shift()) !== undefined;) closeDuplicates(chunk);
    this.#chunkBytes = 0;
    this.#replyBytes = 0;
    this.#gatheredBytes = 0;
    this.#waiting = new Fifo();
    this.#held = null;
    this.#tellRoom();
  }

  /** Header and fixed payload go through one reused buffer, bulk data goes as it is. */
  #write(message: OutgoingMessage): void {
    if (this.#closed) return;
    const { id, command, flags, errno, payload, data = null, fds = null } = message;
    const headLength = HEADER_SIZE + payload.length;
    const size = headLength + (data?.length ?? 0);
    const fits = headLength <= HEAD_SIZE;
    const head = fits ? this.#head : new Uint8Array(headLength);
    const header = { id, command, size, flags, error: errno };
    encodeHeader(fits ? this.#headView : new DataView(head.buffer), 0, header);
    copyBytes(payload, 0, payload.length, head, HEADER_SIZE);
    this.sent++;
    if (tracing()) traceMessage(this.#owner.name, 'sent', header, fds?.length ?? 0);
    const gathers = flags === HeaderFlag.command && fds === null;
    if (gathers && this.#gathering && this.#gather(head, headLength, data)) return;
    this.release();
    this.#push(head, headLength, data, fds, isReply(flags));
    if (gathers && !this.#gathering) {
      this.#gathering = true;
      queueMicrotask(() => {
        this.#gathering = false;
        this.release();
      });
    }
  }

  /** Adds a request to those that leave at the end of the turn; false when it has to leave by itself. */
  #gather(head: Uint8Array, headLength: number, data: Uint8Array | null): boolean {
    const total = headLength + (data?.length ?? 0);
    if (this.#gatheredBytes + total > GATHERED_SIZE) this.release();
    // Bytes that wait for the socket are sent before these.
    if (this.#chunks.length > 0 || total > GATHERED_SIZE || this.#closed) return false;
    if (this.#gathered.length === 0) this.#gathered = new Uint8Array(GATHERED_SIZE);
    const start = this.#gatheredBytes;
    copyBytes(head, 0, headLength, this.#gathered, start);
    if (data !== null) this.#gathered.set(data, start + headLength);
    this.#gatheredBytes += total;
    return true;
  }

  /** Hands bytes to the socket; what it does not take is copied and waits. */
  #push(
    head: Uint8Array,
    headLength: number,
    data: Uint8Array | null,
    fds: readonly number[] | null,
    isReplyMessage: boolean,
  ): void {
    if (this.#closed) return;
    const total = headLength + (data?.length ?? 0);
    try {
      const sent = this.#chunks.length > 0 ? 0 : this.#sink.send(head, headLength, data, 0, fds);
      if (sent === total) return;
      const bytes = new Uint8Array(total - sent);
      if (sent < headLength) bytes.set(head.subarray(sent, headLength));
      if (data !== null)
        bytes.set(data.subarray(Math.max(0, sent - headLength)), Math.max(0, headLength - sent));
      const duplicates = sent === 0 && fds !== null && fds.length > 0 ? duplicateAll(fds) : null;
      this.#chunks.push({ bytes, sent: 0, fds: duplicates, isReply: isReplyMessage });
      this.#count(bytes.length, isReplyMessage);
      this.#owner.watchWritable(true);
    } catch (error) {
      this.#owner.failed(error);
    }
  }

  /** Returns whether all of it was taken. */
  #flushChunk(chunk: Chunk): boolean {
    const count = this.#sink.send(NOTHING, 0, chunk.bytes, chunk.sent, chunk.fds);
    if (count === 0) return false;
    closeDuplicates(chunk);
    chunk.sent += count;
    this.#count(-count, chunk.isReply);
    return chunk.sent === chunk.bytes.length;
  }

  #count(bytes: number, isReplyMessage: boolean): void {
    this.#chunkBytes += bytes;
    if (isReplyMessage) this.#replyBytes += bytes;
  }

  #tellRoom(): void {
    for (const resolve of this.#roomListeners.splice(0)) resolve();
  }
}

/** Duplicates all of them or, when the process may have no more descriptors, none. */
function duplicateAll(fds: readonly number[]): number[] {
  const copies: number[] = [];
  try {
    for (const fd of fds) copies.push(duplicateFd(fd));
  } catch (error) {
    for (const copy of copies) closeFd(copy);
    throw error;
  }
  return copies;
}

function closeDuplicates(chunk: Chunk): void {
  for (const fd of chunk.fds ?? []) closeFd(fd);
  chunk.fds = null;
}
