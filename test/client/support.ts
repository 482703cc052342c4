// SPDX-License-Identifier: MIT
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join as joinPath } from 'node:path';
import { connect, type ConnectOptions, type VfioUserDevice } from '../../lib/client';
import { Mapping, Socket, closeFd, createSharedMemory } from '../../lib/native';
import { serve, type PciDeviceModel, type ServeOptions } from '../../lib/server';
import type { FdList } from '../../lib/transport';
import { Incoming } from '../../lib/transport/incoming';
import { bare, hex, join, message, toHex, u16, u32, u64 } from '../support/bytes';

export { bare, hex, join, message, toHex, u16, u32, u64 };
export { failure, like } from '../support/errors';
export { gate } from '../support/gate';
export { mappings, openFds, warmUp } from '../support/resources';
export { turns, until } from '../support/wait';

/** `enum vfio_user_command` of libvfio-user's include/vfio-user.h. */
export const VERSION = 1;
export const DMA_MAP = 2;
export const DMA_UNMAP = 3;
export const GET_INFO = 4;
export const GET_REGION_INFO = 5;
export const GET_IRQ_INFO = 7;
export const SET_IRQS = 8;
export const REGION_READ = 9;
export const REGION_WRITE = 10;
export const DMA_READ = 11;
export const DMA_WRITE = 12;
export const RESET = 13;

/** A request or reply as it came. The descriptors are closed unless taken. */
export interface Heard {
  readonly id: number;
  readonly command: number;
  readonly flags: number;
  readonly errno: number;
  readonly payload: Uint8Array;
  readonly fds: FdList;
}

/** A payload, or an errno, or a payload with descriptors or a strange header, or none of all. */
export type Answer =
  | Uint8Array
  | number
  | { payload?: Uint8Array; fds?: number[]; command?: number; flags?: number; errno?: number }
  | 'silence'
  | 'close';

export type Handlers = Readonly<Record<number, Answer | ((heard: Heard) => Answer)>>;

/** Bytes of a VERSION payload: u16 major, u16 minor, JSON with a NUL. */
export function version(json: string | null, major = 0, minor = 1): Uint8Array {
  return join(u16(major, minor), Buffer.from(json === null ? '' : `${json}\0`));
}

export const PLAIN_VERSION = version('{"capabilities":{"max_msg_fds":8,"max_data_xfer_size":1048576}}');

/** `struct vfio_region_info`: argsz, flags, index, cap_offset, size, offset; then what follows. */
export function regionInfo(
  index: number,
  {
    flags = 3,
    size = 0x1000,
    offset = 0,
    argsz = 32,
    capOffset = 0,
    rest = new Uint8Array(0),
  }: {
    flags?: number;
    size?: number;
    offset?: number;
    argsz?: number;
    capOffset?: number;
    rest?: Uint8Array;
  } = {},
): Uint8Array {
  return join(u32(argsz, flags, index, capOffset), u64(size, offset), rest);
}

/** `struct vfio_region_info_cap_sparse_mmap`: id 1, version 1, next 0, nr_areas, reserved; offset and size of each. */
export function sparse(...areas: [number, number][]): Uint8Array {
  return join(u16(1, 1), u32(0, areas.length, 0), ...areas.map(([offset, size]) => u64(offset, size)));
}

/** A region with two areas of one page each, at 0x1000 and 0x3000. */
export const twoAreas = (index: number): Uint8Array =>
  regionInfo(index, {
    flags: 0xf,
    size: 0x4000,
    argsz: 80,
    capOffset: 32,
    rest: sparse([0x1000, 0x1000], [0x3000, 0x1000]),
  });

/** A server of raw bytes. What has no handler is answered by a reply without payload. */
export class FakeServer {
  /** To connect to; the descriptor becomes the client's. Of no use for a server that was given its socket. */
  readonly endpoint: { fd: number };
  readonly heard: Heard[] = [];
  readonly #socket: Socket;
  readonly #handlers: Handlers;
  readonly #reader: Incoming;
  readonly #replies = new Map<number, (reply: Heard) => void>();

  /** @param socket connected to the client; without it, to {@link endpoint} */
  constructor(handlers: Handlers, socket?: Socket) {
    const [near, far] = socket === undefined ? Socket.pair() : [{ fd: -1 }, socket];
    this.endpoint = { fd: near.fd };
    this.#socket = far;
    this.#handlers = { [VERSION]: PLAIN_VERSION, ...handlers };
    this.#reader = new Incoming(far, 1 << 22);
    far.watch(() => {
      this.#serve();
    });
  }

  /** Payloads of what was heard of a command, as hexadecimal. */
  payloads(command: number): string[] {
    return this.heard.filter((one) => one.command === command).map((one) => toHex(one.payload));
  }

  count(command: number): number {
    return this.heard.filter((one) => one.command === command).length;
  }

  send(bytes: Uint8Array, fds: number[] = []): void {
    expect(this.#socket.send(bytes, bytes.length, null, 0, fds)).toBe(bytes.length);
  }

  /** Sends a command of the server's own, and waits for the reply. */
  async ask(command: number, payload: Uint8Array, id = 1): Promise<Heard> {
    const reply = new Promise<Heard>((resolve) => this.#replies.set(id, resolve));
    this.send(message(command, payload, { id }));
    return reply;
  }

  get closed(): boolean {
    return this.#socket.closed;
  }

  close(): void {
    this.#socket.close();
  }

  #serve(): void {
    for (;;) {
      if (this.#socket.closed) return;
      let heard;
      try {
        heard = this.#reader.next();
      } catch {
        heard = 'end' as const;
      }
      if (heard === null) return;
      if (heard === 'end') {
        this.close();
        return;
      }
      const { id, command, flags, error: errno } = heard.header;
      this.#take({ id, command, flags, errno, payload: heard.payload, fds: heard.fds });
    }
  }

  #take(heard: Heard): void {
    if ((heard.flags & 0xf) === 1) {
      this.#replies.get(heard.id)?.(heard);
      return;
    }
    this.heard.push(heard);
    const handler = this.#handlers[heard.command] ?? new Uint8Array(0);
    const answer = typeof handler === 'function' ? handler(heard) : handler;
    heard.fds.close();
    if (answer === 'silence') return;
    if (answer === 'close') {
      this.close();
      return;
    }
    const told =
      answer instanceof Uint8Array
        ? { payload: answer }
        : typeof answer === 'number'
          ? { errno: answer, flags: 0x21 }
          : answer;
    const { payload = new Uint8Array(0), fds = [], command = heard.command, flags = 1, errno = 0 } = told;
    this.send(message(command, payload, { id: heard.id, flags, errno }), fds);
  }
}

const cleanups: (() => unknown)[] = [];

/** Runs a function after the test. */
export function atEnd(cleanup: () => unknown): void {
  cleanups.push(cleanup);
}

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** A server that answers as told, and is closed after the test. */
export function fakeServer(handlers: Handlers = {}): FakeServer {
  const server = new FakeServer(handlers);
  atEnd(() => {
    server.close();
  });
  return server;
}

/** A device behind a {@link fakeServer}. */
export async function fakeDevice(
  handlers: Handlers = {},
  options: ConnectOptions = {},
): Promise<{ device: VfioUserDevice; server: FakeServer }> {
  const server = fakeServer(handlers);
  const device = await connect(server.endpoint, options);
  atEnd(() => device.close());
  return { device, server };
}

/** A device of this process, behind our own server. It is closed after the test. */
export async function servedDevice(
  model: PciDeviceModel & { close(): void },
  connectOptions: ConnectOptions = {},
  serveOptions: ServeOptions = {},
): Promise<VfioUserDevice> {
  atEnd(() => {
    model.close();
  });
  const server = await serve(joinPath(directory(), 'device.sock'), model, serveOptions);
  atEnd(() => server.close());
  const device = await connect(server.path, connectOptions);
  atEnd(() => device.close());
  return device;
}

/** A directory that is removed after the test. */
export function directory(): string {
  const path = mkdtempSync(joinPath(tmpdir(), 'vfio-user-'));
  atEnd(() => {
    rmSync(path, { recursive: true, force: true });
  });
  return path;
}

/** Shared memory that is closed after the test: its descriptor and its bytes. */
export function sharedMemory(size: number): { fd: number; bytes: Uint8Array } {
  const fd = createSharedMemory(size);
  const mapping = Mapping.map(fd, 0, size);
  atEnd(() => {
    mapping.close();
    closeFd(fd);
  });
  return { fd, bytes: new Uint8Array(mapping.buffer) };
}

/** The payload of a request as an array of 32-bit words. */
export function words(payload: Uint8Array): number[] {
  return [...new Uint32Array(payload.slice().buffer)];
}
