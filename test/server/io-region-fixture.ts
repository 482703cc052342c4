// SPDX-License-Identifier: MIT
import { EventFd, Socket, closeFd } from '../../lib/native';
import type { ServedIoFd, ServedRegion } from '../../lib/server';
import { useServer, type Fixture } from './fixture';
import { RawClient, gate, join, message, u32, u64, until, type RawReply } from './support';

const IO_FDS: readonly ServedIoFd[] = [
  { kind: 'ioregionfd', offset: 0x10, size: 0x20 },
  { kind: 'ioregionfd', offset: 0x40, size: 0x10, postedWrites: true },
  { kind: 'ioregionfd', offset: 0x60, size: 0, postedWrites: true },
];

/** Region 3 of the served device: an ioeventfd, whose user data is 0, and three ioregionfds, of 1 to 3. */
class IoRegion {
  readonly t: Fixture;
  /** What the region's handlers did. */
  log: string[] = [];
  /** The bytes of the region: each is its offset at first. */
  memory = new Uint8Array(0);
  events!: EventFd;
  /** The client's ends, closed after the test. */
  readonly sockets: Socket[] = [];
  #held: ReturnType<typeof gate> | undefined;

  constructor() {
    // Before the one that counts descriptors.
    afterEach(() => {
      for (const socket of this.sockets.splice(0)) socket.close();
      this.events.close();
    });
    this.t = useServer();
    beforeEach(() => {
      this.log = [];
      this.memory = Uint8Array.from({ length: 0x100 }, (_, index) => index);
      this.#held = undefined;
      this.events = EventFd.create();
      this.declare();
    });
  }

  declare(region: Partial<ServedRegion> = {}): void {
    this.t.model.regions.set(3, {
      size: 0x100,
      ioFds: [{ kind: 'ioeventfd', offset: 0, size: 4, fd: this.events.fd }, ...IO_FDS],
      read: async (offset, data) => {
        this.log.push(`read ${data.length} at ${offset}`);
        await this.#held?.opened;
        data.set(this.memory.subarray(offset, offset + data.length));
      },
      write: (offset, data, posted) => {
        this.log.push(`${posted ? 'post' : 'write'} ${data.length} at ${offset}`);
        this.memory.set(data, offset);
      },
      ...region,
    });
  }

  /** Lets reads wait until {@link release}. */
  hold(): void {
    this.#held = gate();
  }

  release(): void {
    this.#held?.open();
    this.#held = undefined;
  }

  /** `struct vfio_user_region_io_fds_request`: argsz, flags, index, count. */
  ask(argsz = 4096): Promise<RawReply> {
    return this.t.raw.ask(message(6, u32(argsz, 0, 3, 0)));
  }

  /** The socket that a client gets when it asks. */
  async channel(): Promise<Socket> {
    const [event, fd] = (await this.ask()).fds as [number, number];
    closeFd(event);
    const socket = Socket.fromFd(fd);
    this.sockets.push(socket);
    return socket;
  }
}

/** Serves an {@link IoRegion} to a raw client in each test of the file. */
export function useIoRegion(): IoRegion {
  return new IoRegion();
}

/**
 * `struct ioregionfd_cmd`: u8 cmd (0 read, 1 write), u8 size_exponent : 4 and resp : 1, 6 bytes of padding, u64 user_data,
 * offset, data.
 */
export function command(
  cmd: number,
  sizeAndFlags: number,
  userData: number | bigint,
  offset: number | bigint,
  data: number | bigint = 0,
): Uint8Array {
  return join(Uint8Array.of(cmd, sizeAndFlags, 0, 0, 0, 0, 0, 0), u64(userData, offset, data));
}

export function send(socket: Socket, bytes: Uint8Array): void {
  expect(socket.send(bytes, bytes.length, null, 0, null)).toBe(bytes.length);
}

export async function response(socket: Socket): Promise<string> {
  const bytes = new Uint8Array(32);
  let have = 0;
  await until(() => {
    const count = socket.receive(bytes, have, 32 - have);
    if (count < 0) throw new Error('the server closed the socket');
    have += count;
    return have === 32;
  });
  // 24 bytes of padding, and the upper bytes of a narrow value, are 0.
  return Buffer.from(bytes)
    .toString('hex')
    .replace(/(00)+$/, '');
}

export function ended(socket: Socket): Promise<void> {
  return new RawClient(socket).end();
}
