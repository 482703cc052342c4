// SPDX-License-Identifier: MIT
import { constants } from 'node:os';
import { VfioUserError, systemError } from '../errors';
import { MAX_FDS_PER_MESSAGE } from '../native';
import { HEADER_SIZE } from '../protocol/constants';
import { checkHeader, decodeHeader, type Header } from '../protocol/header';
import { newPayload } from '../protocol/wire';
import { FdList, NO_FDS } from './fd-list';

/** Where a {@link MessageReader} takes bytes from: a socket, or a test. */
export interface ByteSource {
  /** Bytes read into `buffer`, 0 when none came in time, -1 at the end of the stream. */
  receive(
    buffer: Uint8Array,
    offset: number,
    length: number,
    spinMicroseconds?: number,
    timeoutMilliseconds?: number,
  ): number;
  /** Whether descriptors were lost since the last {@link takeFds}, because this process may have no more of them. */
  readonly fdsTruncated: boolean;
  /** Descriptors that came with the bytes read so far. The caller owns them. */
  takeFds(): number[];
}

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
/** Up to here a loop copies faster than a call. */
const SMALL = 64;

/**
 * Cuts a byte stream into messages, over any split or merge of the bytes.
 *
 * It reads the 16-byte header and then exactly the rest of that message, never further: a stream socket may merge
 * messages, and only so do descriptors stay with the message that they came with. While {@link readAhead} is set, it reads
 * as much as there is instead.
 */
export class MessageReader {
  readonly #source: ByteSource;
  readonly #head = new Uint8Array(HEADER_SIZE);
  readonly #headView = new DataView(this.#head.buffer);
  #header: Header | null = null;
  #payload: Uint8Array = EMPTY;
  #have = 0;
  #fds: number[] = [];
  #ahead: Uint8Array = EMPTY;
  #aheadStart = 0;
  #aheadEnd = 0;
  /** Largest message accepted, in bytes with its header. */
  maxMessageSize: number;
  /** Whether several messages may be read at once, as none of those that can come now brings descriptors that are wanted. */
  readAhead = false;

  constructor(source: ByteSource, maxMessageSize: number) {
    this.#source = source;
    this.maxMessageSize = maxMessageSize;
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
      const target = this.#header === null ? this.#head : this.#payload;
      if (this.#have < target.length) {
        const count = this.#fill(target, spinMicroseconds, timeoutMilliseconds);
        if (count === 0) return null;
        if (count < 0) return 'end';
        this.#have += count;
        if (this.#have < target.length) continue;
      }
      if (this.#header === null) this.#beginPayload();
      else return this.#finish(this.#header);
    }
  }

  /** Closes descriptors of a message that will never be complete. */
  discard(): void {
    new FdList(this.#fds).close();
    this.#fds = [];
  }

  /** Puts bytes into `target`, from `#have` on: what was read ahead, else from the source. Results as of the source. */
  #fill(target: Uint8Array, spinMicroseconds: number, timeoutMilliseconds: number): number {
    const wanted = target.length - this.#have;
    if (!this.buffered) {
      const ahead = this.readAhead && wanted < AHEAD_SIZE;
      if (ahead && this.#ahead.length === 0) this.#ahead = new Uint8Array(AHEAD_SIZE);
      const count = ahead
        ? this.#source.receive(this.#ahead, 0, AHEAD_SIZE, spinMicroseconds, timeoutMilliseconds)
        : this.#source.receive(target, this.#have, wanted, spinMicroseconds, timeoutMilliseconds);
      this.#takeFds();
      if (!ahead || count <= 0) return count;
      this.#aheadStart = 0;
      this.#aheadEnd = count;
    }
    const start = this.#aheadStart;
    const count = Math.min(wanted, this.#aheadEnd - start);
    this.#aheadStart += count;
    if (count > SMALL) target.set(this.#ahead.subarray(start, start + count), this.#have);
    else for (let i = 0; i < count; i++) target[this.#have + i] = this.#ahead[start + i] as number;
    return count;
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
        `a message came with ${String(this.#fds.length)} descriptors, at most ${String(MAX_FDS_PER_MESSAGE)} are possible`,
      );
    }
  }

  #beginPayload(): void {
    const header: Header = { id: 0, command: 0, size: 0, flags: 0, error: 0 };
    decodeHeader(this.#headView, 0, header);
    checkHeader(header, this.maxMessageSize);
    this.#header = header;
    // Bounded by maxMessageSize, one at a time per connection.
    this.#payload = header.size === HEADER_SIZE ? EMPTY : newPayload(header.size - HEADER_SIZE);
    this.#have = 0;
  }

  #finish(header: Header): Message {
    const message: Message = {
      header,
      payload: this.#payload,
      fds: this.#fds.length === 0 ? NO_FDS : new FdList(this.#fds),
    };
    this.#header = null;
    this.#payload = EMPTY;
    this.#have = 0;
    this.#fds = [];
    return message;
  }
}
