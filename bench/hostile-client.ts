// SPDX-License-Identifier: MIT
/** A client that sends what it likes, byte by byte, and reads only when it likes. It blocks: it has nothing else to do. */
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import type * as Native from '../lib/native';

const load = createRequire(__filename);
/** The sockets of the package are not part of its public API. */
const { EventFd, Mapping, Socket, closeFd, createSharedMemory } = load(
  join(dirname(load.resolve('vfio-user/package.json')), 'dist', 'native'),
) as typeof Native;

export { EventFd, Mapping, closeFd, createSharedMemory };

/** Message codes (vfio-user, "Commands"). */
export const Code = {
  version: 1,
  dmaMap: 2,
  dmaUnmap: 3,
  setIrqs: 8,
  regionRead: 9,
  regionWrite: 10,
  dmaRead: 11,
  dmaWrite: 12,
  deviceReset: 13,
} as const;

const HEADER = 16;
const NO_REPLY = 0x10;
const IS_REPLY = 1;
/** Milliseconds without a byte after which an answer is not waited for any longer. */
const PATIENCE = 30_000;

/** A message as it came. */
export interface Received {
  readonly id: number;
  readonly command: number;
  readonly errno: number;
  readonly payload: Buffer;
}

export class HostileClient {
  readonly #socket: Native.Socket;
  readonly #input = Buffer.alloc(1 << 16);

  private constructor(socket: Native.Socket) {
    this.#socket = socket;
  }

  /** Connects, and negotiates unless told otherwise. */
  static connect(path: string, negotiate = true): HostileClient {
    const client = new HostileClient(Socket.connect(path));
    if (negotiate) client.ask(Code.version, Buffer.concat([u16(0, 1), Buffer.from('{}\0')]));
    return client;
  }

  /** Sends bytes as they are. False when the server takes no more for this long, in milliseconds, or has closed. */
  sendBytes(bytes: Uint8Array, fds: number[] = [], patience = PATIENCE): boolean {
    try {
      for (let sent = 0; sent < bytes.length;) {
        const count = this.#socket.send(bytes, 0, bytes, sent, sent === 0 ? fds : null);
        sent += count;
        if (count === 0 && !this.#socket.waitWritable(patience)) return false;
      }
      return true;
    } catch {
      return false;
    }
  }

  send(
    command: number,
    payload: Uint8Array,
    fds: number[] = [],
    { posted = false, patience = PATIENCE } = {},
  ): boolean {
    return this.sendBytes(message(command, payload, posted ? NO_REPLY : 0), fds, patience);
  }

  /** Sends a command, and waits for its reply. What the server asks meanwhile is not answered. */
  ask(command: number, payload: Uint8Array, fds: number[] = []): Received {
    this.send(command, payload, fds);
    for (;;) {
      const received = this.receive();
      if (received === null) throw new Error(`The server did not answer command ${command}`);
      if (received.command === command) return received;
    }
  }

  /** The next message; null when none comes in this time, in milliseconds, or the server has closed. */
  receive(patience = PATIENCE): Received | null {
    const head = this.#bytes(HEADER, patience);
    if (head === null) return null;
    const payload = this.#bytes(head.readUInt32LE(4) - HEADER, PATIENCE);
    return (
      payload && {
        id: head.readUInt16LE(0),
        command: head.readUInt16LE(2),
        errno: head.readUInt32LE(12),
        payload,
      }
    );
  }

  /** Answers the next DMA_READ or DMA_WRITE, as a client should. */
  serve(): void {
    const received = this.receive(100);
    if (received?.command !== Code.dmaWrite) return;
    // The reply repeats address and count.
    this.sendBytes(message(Code.dmaWrite, received.payload.subarray(0, 16), IS_REPLY, received.id));
  }

  close(): void {
    this.#socket.close();
  }

  #bytes(length: number, patience: number): Buffer | null {
    const bytes = Buffer.alloc(length);
    for (let have = 0; have < length;) {
      const wanted = Math.min(length - have, this.#input.length);
      const count = this.#receive(wanted, patience);
      if (count <= 0) return null;
      this.#input.copy(bytes, have, 0, count);
      have += count;
    }
    return bytes;
  }

  #receive(wanted: number, patience: number): number {
    try {
      return this.#socket.receive(this.#input, 0, wanted, 0, patience);
    } catch {
      return -1; // ECONNRESET: the server did not read all that it was sent.
    } finally {
      for (const fd of this.#socket.takeFds()) closeFd(fd);
    }
  }
}

/** Blocks for so many milliseconds. */
export function pause(milliseconds: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
}

export const u16 = (...values: number[]): Buffer => Buffer.from(Uint16Array.from(values).buffer);
export const u32 = (...values: number[]): Buffer => Buffer.from(Uint32Array.from(values).buffer);
const u64 = (...values: number[]): Buffer => Buffer.from(BigUint64Array.from(values.map(BigInt)).buffer);

/** @param size as the header tells it, in bytes */
export function message(
  command: number,
  payload: Uint8Array,
  flags = 0,
  id = 1,
  size = HEADER + payload.length,
): Buffer {
  return Buffer.concat([u16(id, command), u32(size, flags, 0), payload]);
}

export const dmaMap = (address: number, size: number): Buffer =>
  Buffer.concat([u32(32, 3), u64(0, address, size)]);
export const setIrqs = (flags: number, index: number, start: number, count: number): Buffer =>
  u32(20, flags, index, start, count);
export const unmapAll = (): Buffer => Buffer.concat([u32(24, 2), u64(0, 0)]);
export const regionWrite = (region: number, offset: number, data: Uint8Array): Buffer =>
  Buffer.concat([u64(offset), u32(region, data.length), data]);
export const regionRead = (region: number, offset: number, count: number): Buffer =>
  Buffer.concat([u64(offset), u32(region, count)]);
