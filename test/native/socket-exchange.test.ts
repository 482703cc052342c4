// SPDX-License-Identifier: MIT
import { Socket, SocketExchange, closeFd, createSharedMemory, fileSize } from '../../lib/native';
import { openFds } from '../support/resources';

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

test('sends head, body and descriptors as one message', () => {
  const fd = createSharedMemory(8192);
  const exchange = exchangeOf(near);
  const fds = Array.from({ length: 8 }, () => fd);
  expect(exchange.send(Uint8Array.of(1, 2, 9), 2, Uint8Array.of(8, 3, 4), 1, fds)).toBe(4);
  expect(received()).toEqual([1, 2, 3, 4]);
  const came = far.takeFds();
  expect(came.map(fileSize)).toEqual(fds.map(() => 8192));
  // What was sent before does not go with the next.
  expect(exchange.send(Uint8Array.of(5), 1, null, 0, null)).toBe(1);
  expect([received(), far.takeFds()]).toEqual([[5], []]);
  exchange.outgoing.set([6]);
  expect([exchange.run(1, 0), received(), far.takeFds()]).toEqual([0, [6], []]);
  for (const each of [...came, fd]) closeFd(each);
});

test('what does not fit is sent the other way', () => {
  const fd = createSharedMemory(8192);
  const large = new Uint8Array(4097).fill(3);
  expect([SocketExchange.fits(4096, 8), SocketExchange.fits(4097, 0), SocketExchange.fits(1, 9)]).toEqual([
    true,
    false,
    false,
  ]);
  expect(near.send(large, large.length, null, 0, [fd])).toBe(4097);
  expect(received().length).toBe(4097);
  const nine = Array.from({ length: 9 }, () => fd);
  expect(near.send(large, 1, large, 4096, nine)).toBe(2);
  expect(received()).toEqual([3, 3]);
  const came = far.takeFds();
  expect(came.map(fileSize)).toEqual([fd, ...nine].map(() => 8192));
  for (const each of [...came, fd]) closeFd(each);
});

test('a descriptor that is not open', () => {
  const exchange = exchangeOf(near);
  const fd = createSharedMemory(4096);
  closeFd(fd);
  expect(() => exchange.send(Uint8Array.of(1), 1, null, 0, [fd])).toThrow(
    expect.objectContaining({ syscall: 'sendmsg', errnoName: 'EBADF' }) as Error,
  );
  expect(exchange.sent).toBe(0);
});

test('a socket that is full takes a part or nothing', () => {
  const exchange = exchangeOf(near);
  const bytes = new Uint8Array(4096);
  let all = 0;
  let taken: number;
  do all += taken = exchange.send(bytes, bytes.length, null, 0, null);
  while (taken > 0);
  let came = 0;
  for (let count; (count = received().length) > 0;) came += count;
  expect(came).toBe(all);
});

test('of a closed socket there is none', () => {
  near.close();
  expect(() => near.exchange()).toThrow(expect.objectContaining({ code: 'ERR_VFIO_USER_CLOSED' }) as Error);
});
