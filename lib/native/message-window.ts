// SPDX-License-Identifier: MIT
import { addon } from './addon';
import { copyBytes } from './copy-bytes';
import { systemError } from '../errors';

/** Most descriptors that the kernel takes in one message (`SCM_MAX_FD`). */
export const MAX_FDS_PER_MESSAGE = 253;

const MESSAGE_SIZE = 64 << 10;
const SEND = 0;
const RECEIVE = 1;
/** Indexes of the words of the memory, as in `native/socket-message.cc`. The descriptors follow, then the bytes. */
const [OPERATION, FD, LENGTH, SPIN, TIMEOUT, FD_COUNT, FDS_LOST, FDS] = [0, 1, 2, 3, 4, 5, 6, 7];
const WORDS = FDS + MAX_FDS_PER_MESSAGE;

/**
 * Memory by which the sockets of a thread and the addon hand each other messages: a call with arguments, typed arrays above all,
 * would cost more than its system call.
 */
class MessageWindow {
  /** Bytes that one call sends or receives at most. */
  readonly size = MESSAGE_SIZE;
  readonly #memory = new ArrayBuffer(WORDS * Int32Array.BYTES_PER_ELEMENT + MESSAGE_SIZE);
  readonly #words = new Int32Array(this.#memory, 0, WORDS);
  readonly #bytes = new Uint8Array(this.#memory, this.#words.byteLength);
  readonly #run: () => number;

  constructor() {
    const run = addon().messageWindow(this.#memory);
    if (typeof run === 'number') throw systemError('napi_create_function', -run, 'Preparing the addon');
    this.#run = run;
  }

  /** Number of descriptors that came with the last {@link receive}. */
  get fdCount(): number {
    return this.#words[FD_COUNT] as number;
  }

  /** Whether descriptors that came with the last {@link receive} were lost. */
  get fdsLost(): boolean {
    return this.#words[FDS_LOST] !== 0;
  }

  /** A descriptor that came with the last {@link receive}; the caller owns it. */
  fdAt(index: number): number {
    return this.#words[FDS + index] as number;
  }

  /** Puts bytes into the window, from `at` on. The bounds are the caller's. */
  put(source: Uint8Array, start: number, count: number, at: number): void {
    copyBytes(source, start, count, this.#bytes, at);
  }

  /** Sends the first `length` bytes of the window, with descriptors: bytes taken, or -errno. */
  send(fd: number, length: number, fds: readonly number[] | null): number {
    const words = this.#words;
    const count = fds?.length ?? 0;
    for (let index = 0; index < count; index++) words[FDS + index] = fds?.[index] as number;
    words[OPERATION] = SEND;
    words[FD] = fd;
    words[LENGTH] = length;
    words[FD_COUNT] = count;
    return this.#run();
  }

  /**
   * Receives up to `length` bytes, and copies them to `buffer`: bytes, 0 at the end of the stream, or -errno.
   *
   * @param takesFds false: descriptors that come along are closed
   */
  receive(
    fd: number,
    buffer: Uint8Array,
    offset: number,
    length: number,
    spinMicroseconds: number,
    timeoutMilliseconds: number,
    takesFds: boolean,
  ): number {
    const words = this.#words;
    words[OPERATION] = RECEIVE;
    words[FD] = fd;
    words[LENGTH] = Math.min(length, MESSAGE_SIZE);
    words[SPIN] = spinMicroseconds;
    words[TIMEOUT] = timeoutMilliseconds;
    words[FD_COUNT] = takesFds ? 1 : 0;
    const count = this.#run();
    if (count > 0) copyBytes(this.#bytes, 0, count, buffer, offset);
    return count;
  }
}

let window: MessageWindow | undefined;

/** The window of this thread. */
export function messageWindow(): MessageWindow {
  return (window ??= new MessageWindow());
}
