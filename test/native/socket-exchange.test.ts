// SPDX-License-Identifier: MIT
import { Socket, type SocketExchange, closeFd, createSharedMemory } from '../../lib/native';
import { openFds } from './open-fds';

let near: Socket;
let far: Socket;

const exchangeOf = (socket: Socket): SocketExchange => {
  const exchange = socket.exchange();
  if (exchange === null) throw new Error('this runtime allows no exchange');
  return exchange;
};

beforeEach(() => {
  [near, far] = Socket.pair();
});
afterEach(() => {
  near.close();
  far.close();
});

const received = (): number[] => {
  const bytes = new Uint8Array(1 << 16);
  const count = far.receive(bytes, 0, bytes.length);
  return [...bytes.subarray(0, Math.max(count, 0))];
};

test('sends the first bytes, and takes what is there', () => {
  const exchange = exchangeOf(near);
  far.send(Uint8Array.of(7, 8, 9), 3, null, 0, null);
  exchange.outgoing.set([1, 2, 3, 4]);
  expect(exchange.run(3, 0)).toBe(3);
  expect([...exchange.incoming.subarray(0, 3)]).toEqual([7, 8, 9]);
  expect([exchange.sent, received()]).toEqual([3, [1, 2, 3]]);
  expect(near.exchange()).toBe(exchange);
});

test('0 when nothing comes, not before the time to spin is over', () => {
  const exchange = exchangeOf(near);
  const start = performance.now();
  expect(exchange.run(1, 3000)).toBe(0);
  expect(performance.now() - start).toBeGreaterThanOrEqual(2.9);
  expect([exchange.sent, received().length]).toEqual([1, 1]);
});

test('never more than fits in either direction', () => {
  const exchange = exchangeOf(near);
  const much = new Uint8Array(40_000).fill(5);
  expect(far.send(much, much.length, null, 0, null)).toBe(much.length);
  expect(exchange.run(0xffff_ffff, 0)).toBe(16 << 10);
  expect([exchange.sent, received().length]).toEqual([4096, 4096]);
  expect(exchange.incoming.every((byte) => byte === 5)).toBe(true);
});

test('a socket that is full takes no more, and nothing is received', () => {
  const exchange = exchangeOf(near);
  far.send(Uint8Array.of(1), 1, null, 0, null);
  const filler = new Uint8Array(1 << 16);
  while (near.send(filler, filler.length, null, 0, null) > 0);
  expect([exchange.run(4096, 0), exchange.sent]).toEqual([0, 0]);
  expect(near.receive(filler, 0, 1)).toBe(1);
});

test('-1 at the end of the stream; an error says what failed', () => {
  const exchange = exchangeOf(near);
  far.send(Uint8Array.of(1), 1, null, 0, null);
  far.close();
  expect(() => exchange.run(1, 0)).toThrow(
    expect.objectContaining({ code: 'ERR_VFIO_USER_SYSTEM', syscall: 'send', errnoName: 'EPIPE' }) as Error,
  );
  expect(exchange.run(0, 0)).toBe(1);
  expect(exchange.run(0, 0)).toBe(-1);
});

test('a peer that went away with unread bytes', () => {
  const exchange = exchangeOf(near);
  expect(exchange.run(1, 0)).toBe(0);
  far.close();
  expect(() => exchange.run(0, 0)).toThrow(
    expect.objectContaining({
      code: 'ERR_VFIO_USER_SYSTEM',
      syscall: 'recv',
      errnoName: 'ECONNRESET',
    }) as Error,
  );
});

test('descriptors that come along are dropped, not leaked', () => {
  const fd = createSharedMemory(4096);
  const exchange = exchangeOf(near);
  const before = openFds();
  for (let round = 0; round < 3; round++) {
    far.send(Uint8Array.of(1), 1, null, 0, [fd, fd]);
    expect(exchange.run(1, 0)).toBe(1);
  }
  expect([openFds(), near.pendingFds]).toEqual([before, 0]);
  closeFd(fd);
});

test('of a closed socket there is none', () => {
  near.close();
  expect(() => near.exchange()).toThrow(expect.objectContaining({ code: 'ERR_VFIO_USER_CLOSED' }) as Error);
});
