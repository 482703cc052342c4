// SPDX-License-Identifier: MIT
import { join as joinPath } from 'node:path';
import { connect, type ConnectOptions, type VfioUserDevice } from '../../lib/client';
import { ListeningSocket } from '../../lib/native';
import type { DeviceEvents } from '../../lib/pci';
import {
  DMA_MAP,
  DMA_UNMAP,
  FakeServer,
  GET_INFO,
  GET_IRQ_INFO,
  GET_REGION_INFO,
  PLAIN_VERSION,
  REGION_READ,
  SET_IRQS,
  VERSION,
  atEnd,
  directory,
  join,
  regionInfo,
  sparse,
  u32,
  until,
  type Answer,
  type Handlers,
  type Heard,
} from './support';

/** Quick attempts, and a deadline that no test is to reach. */
export const QUICK = { firstDelay: 1, longestDelay: 20, deadline: 60_000 };

/** A server of raw bytes that listens, and answers each of its clients in another way. */
export class FakeEndpoint {
  readonly path: string;
  /** One for each connection. */
  readonly servers: FakeServer[] = [];
  #listener: ListeningSocket | null = null;
  readonly #handlersOf: (client: number) => Handlers;

  /** @param handlersOf how the connection of this number, from 0 on, is answered */
  constructor(handlersOf: (client: number) => Handlers) {
    this.#handlersOf = handlersOf;
    this.path = joinPath(directory(), 'device.sock');
    this.listen();
    atEnd(() => {
      this.stop();
    });
  }

  /** The server of the connection now. */
  get now(): FakeServer {
    return this.servers.at(-1)!;
  }

  listen(): void {
    const listener = ListeningSocket.listen(this.path);
    this.#listener = listener;
    listener.watch(() => {
      for (let socket; (socket = listener.accept()) !== null;)
        this.servers.push(new FakeServer(this.#handlersOf(this.servers.length), socket));
    });
  }

  /** Ends as a process does: nobody listens, and all connections are closed. */
  stop(): void {
    this.#listener?.close();
    this.#listener = null;
    for (const server of this.servers) server.close();
  }
}

/** What a {@link describedDevice} is. */
export interface Described {
  ids?: number;
  vectors?: number;
  barSize?: number;
  flags?: number;
  barFds?: () => number[];
}

/** Answers of a device with a BAR 0 of two mappable areas, configuration space, and an MSI-X index. */
export function describedDevice(
  { ids = 0x5678_1234, vectors = 4, barSize = 0x4000, flags = 0xf, barFds = () => [] }: Described = {},
  more: Handlers = {},
): Handlers {
  const wordOf = (payload: Uint8Array, at: number): number =>
    new DataView(payload.buffer, payload.byteOffset).getUint32(at, true);
  return {
    [GET_INFO]: u32(16, 3, 8, 3),
    [GET_REGION_INFO]: ({ payload }) => {
      const index = wordOf(payload, 8);
      if (index === 7) return regionInfo(index, { size: 256 });
      if (index !== 0) return regionInfo(index, { size: 0, flags: 0 });
      const rest = sparse([0x1000, 0x1000], [0x3000, 0x1000]);
      return {
        payload: regionInfo(index, { flags, size: barSize, argsz: 80, capOffset: 32, rest }),
        fds: barFds(),
      };
    },
    [GET_IRQ_INFO]: ({ payload }) => {
      const index = wordOf(payload, 8);
      return u32(16, 1, index, index === 2 ? vectors : 0);
    },
    [REGION_READ]: ({ payload }) => join(payload, u32(wordOf(payload, 0) === 0 ? ids : 0)),
    ...more,
  };
}

/** The events of a device as they come, and how many of each. */
export class Events {
  readonly all: {
    [Name in keyof DeviceEvents]: { name: Name; args: DeviceEvents[Name] };
  }[keyof DeviceEvents][] = [];

  constructor(device: VfioUserDevice) {
    for (const name of ['close', 'disconnect', 'reconnecting', 'reconnect'] as const)
      device.on(name, (...args: unknown[]) => this.all.push({ name, args } as Events['all'][number]));
  }

  of<Name extends keyof DeviceEvents>(name: Name): DeviceEvents[Name][] {
    return this.all.filter((one) => one.name === name).map((one) => one.args as DeviceEvents[Name]);
  }

  /** Names in order, without the attempts. */
  get names(): string[] {
    return this.all.map(({ name }) => name).filter((name) => name !== 'reconnecting');
  }

  /** Waits for the event of this name for the `count`th time; returns what came with it. */
  async next<Name extends keyof DeviceEvents>(name: Name, count = 1): Promise<DeviceEvents[Name]> {
    await until(() => this.of(name).length >= count, `event ${name}, ${count} of them`);
    return this.of(name)[count - 1]!;
  }
}

/** A device that comes back, and its events. It is closed after the test. */
export async function comingBack(
  path: string,
  options: ConnectOptions = {},
): Promise<{ device: VfioUserDevice; events: Events }> {
  const device = await connect(path, { reconnect: QUICK, ...options });
  atEnd(() => device.close());
  return { device, events: new Events(device) };
}

/** Answers the first `count` messages, and ends the connection at the next. */
export function endingAfter(count: number, handlers: Handlers): Handlers {
  let served = 0;
  return Object.fromEntries(
    [VERSION, DMA_MAP, DMA_UNMAP, SET_IRQS, ...Object.keys(handlers).map(Number)].map((command) => {
      const answer = handlers[command] ?? (command === VERSION ? PLAIN_VERSION : new Uint8Array(0));
      return [
        command,
        (heard: Heard): Answer => {
          if (served++ >= count) return 'close';
          return typeof answer === 'function' ? answer(heard) : answer;
        },
      ];
    }),
  );
}

/** Answers nothing any more from the moment that `isMuted` says so. */
export function muted(handlers: Handlers, isMuted: () => boolean): Handlers {
  return Object.fromEntries(
    Object.entries(handlers).map(([command, answer]) => [
      Number(command),
      (heard: Heard): Answer => {
        if (isMuted()) return 'silence';
        return typeof answer === 'function' ? answer(heard) : answer;
      },
    ]),
  );
}
