// SPDX-License-Identifier: MIT
import { constants } from 'node:os';
import { VfioUserError, systemError } from '../errors';
import { copyBytes } from '../native/copy-bytes';
import { closeFd } from '../native/fd';
import { MAX_FDS_PER_MESSAGE } from '../native/message-window';
import { HEADER_SIZE } from '../protocol/constants';
import { checkHeader, decodeHeader, type Header } from '../protocol/header';
import { newPayload } from '../protocol/wire';

/** Where an {@link Incoming} takes bytes from: a socket, or a test. */
export interface ByteSource {
  /** Bytes read into `buffer`, 0 when none came in time, -1 at the end of the stream. */
  receive(
    buffer: Uint8Array,
    offset: number,
    length: number,
    spinMicroseconds?: number,
    timeoutMilliseconds?: number,
    takesFds?: boolean,
  ): number;
  /** Whether descriptors were lost since the last {@link takeFds}, because this process may have no more of them. */
  readonly fdsTruncated: boolean;
  /** Descriptors that came with the bytes read so far. The caller owns them. */
  takeFds(): number[];
}

/**
 * File descriptors that came with a message. The list owns them until {@link take}; {@link close} closes what nobody
 * took, so that a peer that sends more than it should cannot make us leak.
 */
export class FdList {
  readonly #fds: (number | null)[];

  constructor(fds: readonly number[]) {
    this.#fds = [...fds];
  }

  /** Number of descriptors that came with the message, taken or not. */
  get length(): number {
    return this.#fds.length;
  }

  /** Hands the descriptor at `index` to the caller, who owns it from now on; undefined when there is none. */
  take(index: number): number | undefined {
    const fd = this.#fds[index] ?? undefined;
    if (fd !== undefined) this.#fds[index] = null;
    return fd;
  }

  /** Whether a descriptor that was not taken has this number, or a greater one. */
  reaches(limit: number): boolean {
    return this.#fds.some((fd) => fd !== null && fd >= limit);
  }

  /** Closes every descriptor that was not taken. Idempotent. */
  close(): void {
    for (let index = 0; index < this.#fds.length; index++) {
      const fd = this.take(index);
      if (fd !== undefined) closeFd(fd);
    }
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** The list of a message without descriptors. */
const NO_FDS = new FdList([]);

/** A whole message as it came from the peer. */
export interface Message {
  readonly header: Readonly<Header>;
  /** The bytes after the header. Owned by the receiver of the message. */
  readonly payload: Uint8Array;
  readonly fds: FdList;
}

const EMPTY = new Uint8Array(0);
/** Bytes read ahead at a time: replies to some hundred register reads. */
const AHEAD_SIZE = 16 << 10;

/**
 * Cuts a byte stream into messages, over any split or merge of the bytes.
 *
 * It reads the 16-byte header and then exactly the rest of that message, never further. This keeps descriptors with the
 * message that they came with, though a stream socket may merge messages. While {@link readAhead} is set, it reads as much as
 * there is instead.
 */
export class Incoming {
  readonly #source: ByteSource;
  readonly #head = new Uint8Array(HEADER_SIZE);
  readonly #headView = new DataView(this.#head.buffer);
  #header: Header | null = null;
  #payload: Uint8Array = EMPTY;
  #have = 0;
  #fds: number[] = [];
  #ahead: Uint8Array = EMPTY;
  #aheadView: DataView = new DataView(EMPTY.buffer);
  #aheadStart = 0;
  #aheadEnd = 0;
  /** Largest message accepted, in bytes with its header. */
  maxMessageSize: number;
  /** Whether several messages may be read at once, since no message that can come now brings descriptors that are wanted. */
  readAhead = false;

  constructor(source: ByteSource, maxMessageSize: number) {
    this.#source = source;
    this.maxMessageSize = maxMessageSize;
  }

  /** Largest payload accepted, in bytes. */
  get maxPayload(): number {
    return this.maxMessageSize - HEADER_SIZE;
  }

  /** Whether bytes were read ahead, so that a message may be there although the source is not ready. */
  get buffered(): boolean {
    return this.#aheadStart < this.#aheadEnd;
  }

  /** True when a message has begun to arrive, but is not complete. */
  get partial(): boolean {
    return this.#header !== null || this.#have > 0 || this.buffered;
  }

  /**
   * The next message, null when none is complete in time, or 'end' at the end of the stream.
   *
   * @throws VfioUserError ERR_VFIO_USER_PROTOCOL when the size or type in a header cannot be, or too many descriptors
   *   came; ERR_VFIO_USER_SYSTEM (EMFILE) when descriptors were lost. The stream cannot be read on then
   */
  next(spinMicroseconds = 0, timeoutMilliseconds = 0): Message | null | 'end' {
    for (;;) {
      if (this.#header === null && this.#have === 0) {
        const message = this.#nextAhead();
        if (message !== null) return message;
      }
      const target = this.#header === null ? this.#head : this.#payload;
      if (this.#have === target.length) {
        if (this.#header !== null) return this.#finish(this.#header);
        this.#header = this.#headerAt(this.#headView, 0);
        // Bounded by maxMessageSize, one at a time per connection.
        this.#payload = payloadOf(this.#header);
        this.#have = 0;
      } else if (this.buffered) {
        this.#have += this.#takeAhead(target, this.#have);
      } else {
        const count = this.#receive(target, spinMicroseconds, timeoutMilliseconds);
        if (count === 0) return null;
        if (count < 0) return 'end';
      }
    }
  }

  /** Closes descriptors of a message that will never be complete. */
  discard(): void {
    new FdList(this.#fds).close();
    this.#fds = [];
  }

  /** Reads ahead, or else into `target`, from `#have` on. Returns what the source returned. */
  #receive(target: Uint8Array, spinMicroseconds: number, timeoutMilliseconds: number): number {
    const wanted = target.length - this.#have;
    const ahead = this.readAhead && wanted < AHEAD_SIZE;
    if (ahead && this.#ahead.length === 0) {
      this.#ahead = new Uint8Array(AHEAD_SIZE);
      this.#aheadView = new DataView(this.#ahead.buffer);
    }
    const count = ahead
      ? this.#source.receive(this.#ahead, 0, AHEAD_SIZE, spinMicroseconds, timeoutMilliseconds, false)
      : this.#source.receive(target, this.#have, wanted, spinMicroseconds, timeoutMilliseconds);
    if (!ahead) this.#takeFds();
    if (count > 0 && ahead) {
      this.#aheadStart = 0;
      this.#aheadEnd = count;
    } else if (count > 0) this.#have += count;
    return count;
  }

  /** The next message, if all of it was read ahead. */
  #nextAhead(): Message | null {
    const there = this.#aheadEnd - this.#aheadStart;
    if (there < HEADER_SIZE) return null;
    const header = this.#headerAt(this.#aheadView, this.#aheadStart);
    if (there < header.size) return null;
    this.#aheadStart += HEADER_SIZE;
    const payload = payloadOf(header);
    this.#takeAhead(payload, 0);
    return { header, payload, fds: this.#listFds() };
  }

  /** Puts bytes that were read ahead into `target`, from `at` on. Returns their number. */
  #takeAhead(target: Uint8Array, at: number): number {
    const start = this.#aheadStart;
    const count = Math.min(target.length - at, this.#aheadEnd - start);
    this.#aheadStart += count;
    copyBytes(this.#ahead, start, count, target, at);
    return count;
  }

  #headerAt(view: DataView, offset: number): Header {
    const header = decodeHeader(view, offset);
    checkHeader(header, this.maxMessageSize);
    return header;
  }

  #takeFds(): void {
    const lost = this.#source.fdsTruncated;
    const fds = this.#source.takeFds();
    if (fds.length > 0) this.#fds.push(...fds);
    if (lost) throw systemError('recvmsg', constants.errno.EMFILE, 'Receiving the descriptors of a message');
    // They go with the first byte of a message. A peer that adds some to every byte must not use up all that we may have.
    if (this.#fds.length > MAX_FDS_PER_MESSAGE) {
      throw new VfioUserError(
        'ERR_VFIO_USER_PROTOCOL',
        `a message came with ${this.#fds.length} descriptors, at most ${MAX_FDS_PER_MESSAGE} are possible`,
      );
    }
  }

  #finish(header: Header): Message {
    const payload = this.#payload;
    this.#header = null;
    this.#payload = EMPTY;
    this.#have = 0;
    return { header, payload, fds: this.#listFds() };
  }

  /** The descriptors of the message that is complete. */
  #listFds(): FdList {
    if (this.#fds.length === 0) return NO_FDS;
    const list = new FdList(this.#fds);
    this.#fds = [];
    return list;
  }
}

function payloadOf({ size }: Header): Uint8Array {
  return size === HEADER_SIZE ? EMPTY : newPayload(size - HEADER_SIZE);
}
