// SPDX-License-Identifier: MIT
import { systemError } from '../errors';
import { addon } from './addon';

const EAGAIN = 11;
const CONTROL_WORDS = 4;
const OUTGOING_SIZE = 4096;

/**
 * Sends bytes and takes what the peer sends next, in one call of the addon: for who waits, and may neither get nor need
 * descriptors along with the answer. Use {@link Socket.exchange}.
 */
export class SocketExchange {
  /** What to send, up to 4096 bytes. */
  readonly outgoing: Uint8Array;
  /** What came; up to 16 KiB. */
  readonly incoming: Uint8Array;
  readonly #control: Uint32Array;
  readonly #run: () => number;

  private constructor(run: () => number, memory: ArrayBuffer) {
    this.#run = run;
    this.#control = new Uint32Array(memory, 0, CONTROL_WORDS);
    this.outgoing = new Uint8Array(memory, this.#control.byteLength, OUTGOING_SIZE);
    this.incoming = new Uint8Array(memory, this.#control.byteLength + OUTGOING_SIZE);
  }

  /**
   * @param fd a socket, open whenever {@link run} is called
   * @returns null where the runtime allows no ArrayBuffer over memory of the addon, as Electron does not
   */
  static create(fd: number): SocketExchange | null {
    const created = addon().socketExchange(fd);
    return typeof created === 'number' ? null : new SocketExchange(...created);
  }

  /** Bytes of the last {@link run} that the socket took. */
  get sent(): number {
    return this.#control[2] as number;
  }

  /**
   * @param length bytes of {@link outgoing}, may be 0
   * @param spinMicroseconds time to wait for an answer once all is sent
   * @returns bytes received; 0 when nothing came, or not all was sent; -1 at the end of the stream
   * @throws VfioUserError `ERR_VFIO_USER_SYSTEM`: EPIPE, ECONNRESET
   */
  run(length: number, spinMicroseconds: number): number {
    this.#control[0] = length;
    this.#control[1] = spinMicroseconds;
    const result = this.#run();
    if (result > 0) return result;
    if (result === 0) return -1;
    if (result === -EAGAIN) return 0;
    if (this.sent < length) throw systemError('send', -result, 'Sending to the peer');
    throw systemError('recv', -result, 'Receiving from the peer');
  }
}
