// SPDX-License-Identifier: MIT
import { systemError } from '../errors';
import { addon } from './addon';
import { copyBytes } from './copy-bytes';

const EAGAIN = 11;
const CONTROL_WORDS = 8;
const MAX_FDS = 8;
const OUTGOING_SIZE = 4096;

/**
 * Sends small messages, and takes what the peer sends next, through memory that the addon shares: a call with arguments
 * costs as much as the system call. Use {@link Socket.exchange}.
 */
export class SocketExchange {
  /** What to send, up to 4096 bytes. */
  readonly outgoing: Uint8Array;
  /** What came; up to 16 KiB. */
  readonly incoming: Uint8Array;
  readonly #control: Uint32Array;
  readonly #fds: Int32Array;
  readonly #run: () => number;

  private constructor(run: () => number, memory: ArrayBuffer) {
    this.#run = run;
    this.#control = new Uint32Array(memory, 0, CONTROL_WORDS);
    this.#fds = new Int32Array(memory, this.#control.byteLength, MAX_FDS);
    const start = this.#control.byteLength + this.#fds.byteLength;
    this.outgoing = new Uint8Array(memory, start, OUTGOING_SIZE);
    this.incoming = new Uint8Array(memory, start + OUTGOING_SIZE);
  }

  /**
   * @param fd a socket, open whenever {@link run} or {@link send} is called
   * @returns null where the runtime allows no ArrayBuffer over memory of the addon, as Electron does not
   */
  static create(fd: number): SocketExchange | null {
    const created = addon().socketExchange(fd);
    return typeof created === 'number' ? null : new SocketExchange(...created);
  }

  /** Whether {@link send} takes so much: up to 4096 bytes and 8 descriptors. */
  static fits(bytes: number, fds: number): boolean {
    return bytes <= OUTGOING_SIZE && fds <= MAX_FDS;
  }

  /** Bytes of the last {@link run} that the socket took. */
  get sent(): number {
    return this.#control[4] as number;
  }

  /**
   * Sends what is in {@link outgoing}, and takes the answer. Descriptors that come with it are dropped.
   *
   * @param length bytes of {@link outgoing}, may be 0
   * @param spinMicroseconds time to wait for an answer once all is sent
   * @returns bytes received; 0 when nothing came, or not all was sent; -1 at the end of the stream
   * @throws VfioUserError `ERR_VFIO_USER_SYSTEM`: EPIPE, ECONNRESET
   */
  run(length: number, spinMicroseconds: number): number {
    const control = this.#control;
    control[0] = length;
    control[1] = 0;
    control[2] = 1;
    control[3] = spinMicroseconds;
    const result = this.#run();
    if (result > 0) return result;
    if (result === 0) return -1;
    if (result === -EAGAIN) return 0;
    if (this.sent < length) throw this.#sendError(-result);
    throw systemError('recv', -result, 'Receiving from the peer');
  }

  /** As `Socket.send`, of what {@link fits}. */
  send(
    head: Uint8Array,
    headLength: number,
    body: Uint8Array | null,
    bodyOffset: number,
    fds: readonly number[] | null,
  ): number {
    const control = this.#control;
    const bodyLength = body === null ? 0 : body.length - bodyOffset;
    copyBytes(head, 0, headLength, this.outgoing, 0);
    if (body !== null) copyBytes(body, bodyOffset, bodyLength, this.outgoing, headLength);
    const count = fds?.length ?? 0;
    for (let index = 0; index < count; index++) this.#fds[index] = fds?.[index] as number;
    control[0] = headLength + bodyLength;
    control[1] = count;
    control[2] = 0;
    const result = this.#run();
    if (result === 0 || result === -EAGAIN) return this.sent;
    throw this.#sendError(-result);
  }

  #sendError(errno: number): Error {
    return systemError(this.#control[1] === 0 ? 'send' : 'sendmsg', errno, 'Sending to the peer');
  }
}
