// SPDX-License-Identifier: MIT
import { Socket } from '../../lib/native';
import type { Reply, Request } from '../../lib/transport';
import { Connection, type ConnectionOptions } from '../../lib/transport/connection';
import type { VfioUserError } from '../../lib/errors';
import { message } from '../support/bytes';
import { openFds, warmUp } from '../support/resources';

export { message };
export { gate } from '../support/gate';
export { openFds, warmUp };
export { turns, until } from '../support/wait';

/** REGION_READ and REGION_WRITE of libvfio-user's include/vfio-user.h. */
export const READ = 9;
export const WRITE = 10;

export interface Seen {
  id: number;
  command: number;
  flags: number;
  payload: number[];
}

/** The other end of a connection: a bare socket. */
export class Peer {
  readonly socket: Socket;

  constructor(socket: Socket) {
    this.socket = socket;
  }

  send(bytes: Uint8Array, fds: number[] = []): void {
    expect(this.socket.send(bytes, bytes.length, null, 0, fds)).toBe(bytes.length);
  }

  reply(to: { id: number; command: number }, payload?: Uint8Array, flags = 1, errno = 0): void {
    this.send(message(to.command, payload, { id: to.id, flags, errno }));
  }

  /** The next message, which must be there. */
  take(): Seen {
    const head = Buffer.alloc(16);
    expect(this.socket.receive(head, 0, 16, 0, 2000)).toBe(16);
    const payload = Buffer.alloc(head.readUInt32LE(4) - 16);
    for (let have = 0; have < payload.length;) {
      const count = this.socket.receive(payload, have, payload.length - have, 0, 2000);
      if (count <= 0) throw new Error('the message is cut short');
      have += count;
    }
    return {
      id: head.readUInt16LE(0),
      command: head.readUInt16LE(2),
      flags: head.readUInt32LE(8),
      payload: [...payload],
    };
  }

  /** Number of bytes that wait; they are taken. */
  drain(): number {
    const buffer = new Uint8Array(1 << 16);
    let all = 0;
    for (let count; (count = this.socket.receive(buffer, 0, buffer.length)) > 0;) all += count;
    return all;
  }
}

/** A connection and its peer. */
export function connected(options: Partial<ConnectionOptions> = {}): { connection: Connection; peer: Peer } {
  const [near, far] = Socket.pair();
  const connection = new Connection(near, {
    name: 'the peer',
    role: 'server',
    onCommand: () => undefined,
    messageTimeout: 1000,
    ...options,
  });
  return { connection, peer: new Peer(far) };
}

/** What a test of {@link useConnection} works with. */
export interface Fixture {
  connection: Connection;
  peer: Peer;
  /** What `onClose` was told. */
  ended: (VfioUserError | null)[];
  /** Makes connection and peer. */
  open(options?: Partial<ConnectionOptions>): void;
  /** A REGION_READ with one byte of payload. */
  read(tag: number, more?: Partial<Request>, signal?: AbortSignal): Promise<Reply>;
}

/** A connection in each test of the file, which ends once and leaks no descriptor. */
export function useConnection(): Fixture {
  const fixture = {
    open: (options) => {
      fixture.ended = [];
      const onClose = (error: VfioUserError | null): void => void fixture.ended.push(error);
      Object.assign(fixture, connected({ onClose, ...options }));
    },
    read: (tag, more = {}, signal) =>
      fixture.connection.request({ command: READ, payload: Uint8Array.of(tag), ...more }, signal),
  } as Fixture;
  let fdsBefore = 0;

  beforeAll(warmUp);
  beforeEach(() => {
    fdsBefore = openFds();
  });
  afterEach(() => {
    fixture.connection.close();
    fixture.peer.socket.close();
    expect(fixture.ended.length).toBe(1);
    expect(openFds()).toBe(fdsBefore);
  });
  return fixture;
}
