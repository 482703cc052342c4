// SPDX-License-Identifier: MIT
import { createConnection, type Socket } from 'node:net';
import { once } from 'node:events';
import { join, message, u16, u32, u64 } from '../support/bytes';

/** `enum vfio_user_command` of libvfio-user's include/vfio-user.h. */
const VERSION = 1;
const REGION_READ = 9;
const CONFIG_REGION = 7;
const REQUESTS = 4000;
const READ_BYTES = 256;

/** What a peer that means no good does. */
export type Behaviour =
  /** Connects, and says nothing. */
  | 'silent'
  /** Sends thousands of requests, and reads no reply. */
  | 'slow'
  /** Sends a part of a message. */
  | 'half';

const version = (): Uint8Array => {
  const json = Buffer.from('{"capabilities":{"max_msg_fds":8,"max_data_xfer_size":1048576}}\0');
  return message(VERSION, join(u16(0, 1), json));
};

/** A client of raw bytes, which does not do what a client should. */
export class RawPeer {
  readonly #socket: Socket;
  /** Resolves when the server has closed the connection, or {@link close} was called. */
  readonly closed: Promise<unknown>;

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.closed = new Promise((resolve) => socket.once('close', resolve));
    socket.on('error', () => undefined);
  }

  static async connect(path: string, behaviour: Behaviour): Promise<RawPeer> {
    const socket = createConnection(path);
    await once(socket, 'connect');
    socket.pause();
    const peer = new RawPeer(socket);
    if (behaviour === 'silent') return peer;
    socket.write(version());
    const read = message(REGION_READ, join(u64(0), u32(CONFIG_REGION, READ_BYTES)));
    if (behaviour === 'half') socket.write(read.subarray(0, read.length - 4));
    else socket.write(join(...Array.from({ length: REQUESTS }, () => read)));
    return peer;
  }

  close(): void {
    this.#socket.destroy();
  }
}
