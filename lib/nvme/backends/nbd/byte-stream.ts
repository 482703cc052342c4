// SPDX-License-Identifier: MIT
import type { Socket } from 'node:net';
import { VfioUserError } from '../../../errors';

/** Bytes that wait to be read before the socket is paused. */
const HIGH_WATER = 1 << 20;

/** Reads a socket a number of bytes at a time, by one reader. */
export class ByteStream {
  readonly #socket: Socket;
  readonly #chunks: Buffer[] = [];
  /** Bytes in the chunks. */
  #length = 0;
  #error: Error | null = null;
  /** The read that waits, and for how many bytes. */
  #wanted = 0;
  #wake: (() => void) | null = null;
  readonly #onData = (chunk: Buffer): void => {
    this.#chunks.push(chunk);
    this.#length += chunk.length;
    if (this.#length >= HIGH_WATER) this.#socket.pause();
    if (this.#length >= this.#wanted) this.#wake?.();
  };
  readonly #onError = (error: Error): void => {
    this.fail(error);
  };
  readonly #onEnd = (): void => {
    this.fail(new VfioUserError('ERR_VFIO_USER_DISCONNECTED', 'the server closed the connection'));
  };

  /** @param socket whose end and errors end the stream */
  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', this.#onData);
    socket.on('error', this.#onError);
    socket.on('end', this.#onEnd);
    socket.on('close', this.#onEnd);
  }

  /** Bytes that came and have not been read. */
  get waiting(): number {
    return this.#length;
  }

  /** Reads exactly so many bytes, at least 1. Rejects when the stream has ended before. */
  async read(bytes: number): Promise<Buffer> {
    const target = Buffer.allocUnsafe(bytes);
    await this.readInto(target, 0, bytes);
    return target;
  }

  /** Reads exactly `bytes` bytes to `target` from index `at` on. */
  async readInto(target: Uint8Array, at: number, bytes: number): Promise<void> {
    for (let done = 0; done < bytes;) {
      if (this.#length === 0) await this.#more(Math.min(bytes - done, HIGH_WATER));
      const chunk = this.#chunks[0] as Buffer;
      const part = Math.min(chunk.length, bytes - done);
      target.set(chunk.subarray(0, part), at + done);
      if (part === chunk.length) this.#chunks.shift();
      else this.#chunks[0] = chunk.subarray(part);
      this.#length -= part;
      done += part;
    }
  }

  /** Ends the stream: a read that finds too little of what came before rejects with the error. */
  fail(error: Error): void {
    this.#error ??= error;
    this.#wake?.();
  }

  /** Leaves the socket to somebody else, who gets what comes from now on. */
  detach(): void {
    const socket = this.#socket;
    socket.pause();
    socket.off('data', this.#onData);
    socket.off('end', this.#onEnd);
    socket.off('close', this.#onEnd);
    socket.off('error', this.#onError);
  }

  async #more(bytes: number): Promise<void> {
    while (this.#length < bytes) {
      if (this.#error !== null) throw this.#error;
      this.#wanted = bytes;
      if (this.#socket.isPaused()) this.#socket.resume();
      await new Promise<void>((resolve) => (this.#wake = resolve));
      this.#wake = null;
    }
  }
}
