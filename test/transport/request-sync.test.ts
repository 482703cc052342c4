// SPDX-License-Identifier: MIT
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { Socket, duplicateFd } from '../../lib/native';
import { Connection, type IncomingCommand } from '../../lib/transport';
import { dist } from '../dist';

/** A live peer on a thread of its own: command 10 asks us for memory three times before it is answered. */
const script = `
  const { workerData } = require('node:worker_threads');
  const { Socket } = require(${JSON.stringify(join(dist, 'native'))});
  const { Connection, CommandError } = require(${JSON.stringify(join(dist, 'transport'))});
  const connection = new Connection(Socket.fromFd(workerData), {
    name: 'the main thread',
    onCommand: async ({ command, payload }) => {
      if (command === 9) return { payload };
      if (command === 13) return new Promise(() => {});
      if (command === 3) connection.close();
      if (command !== 10) throw new CommandError(22, 'unknown');
      const parts = [];
      for (let i = 0; i < 3; i++) parts.push((await connection.request({ command: 11, payload: Uint8Array.of(i) })).payload[0]);
      return { payload: Uint8Array.from(parts) };
    },
  });
`;

let connection: Connection;
let worker: Worker;
const served: IncomingCommand[] = [];

beforeEach(() => {
  const [near, far] = Socket.pair();
  worker = new Worker(script, { eval: true, workerData: duplicateFd(far.fd) });
  far.close();
  served.length = 0;
  connection = new Connection(near, {
    name: 'the worker',
    role: 'client',
    onCommand: (command) => {
      served.push(command);
      return { payload: Uint8Array.of(10 + (command.payload[0] ?? 0)) };
    },
  });
});
afterEach(async () => {
  connection.close();
  await worker.terminate();
});

const ask = (command: number, timeout = 5000): Uint8Array =>
  connection.requestSync({ command, payload: Uint8Array.of(1, 2, 3), timeout }).payload;

test('a blocked thread gets its replies', () => {
  for (let i = 0; i < 100; i++) expect(ask(9)).toEqual(Uint8Array.of(1, 2, 3));
  expect(() => ask(99)).toThrow(
    expect.objectContaining({ code: 'ERR_VFIO_USER_REMOTE', errno: 22 }) as Error,
  );
});

test('the peer’s commands are served while a thread is blocked', () => {
  expect(ask(10)).toEqual(Uint8Array.of(10, 11, 12));
  expect(served.length).toBe(3);
});

test('replies to asynchronous requests arrive while a thread is blocked', async () => {
  const results = [1, 2, 3].map((tag) => connection.request({ command: 9, payload: Uint8Array.of(tag) }));
  expect(ask(9)).toEqual(Uint8Array.of(1, 2, 3));
  expect(connection.inFlight).toBe(0);
  expect((await Promise.all(results)).map(({ payload }) => payload[0])).toEqual([1, 2, 3]);
});

test('a deadline holds, also those of asynchronous requests', async () => {
  ask(9);
  const other = connection.request({ command: 13, payload: new Uint8Array(0), timeout: 20 });
  const start = performance.now();
  expect(() => ask(13, 60)).toThrow(expect.objectContaining({ code: 'ERR_VFIO_USER_TIMEOUT' }) as Error);
  expect(performance.now() - start).toBeGreaterThanOrEqual(59);
  expect(connection.inFlight).toBe(0);
  await expect(other).rejects.toMatchObject({ code: 'ERR_VFIO_USER_TIMEOUT' });
});

test('a peer that closes ends the wait', () => {
  expect(() => ask(3)).toThrow(expect.objectContaining({ code: 'ERR_VFIO_USER_DISCONNECTED' }) as Error);
});
