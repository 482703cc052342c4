// SPDX-License-Identifier: MIT
/** Blocking reads of registers. The peer has answered before it is asked: the first id is 1. */
import { Worker } from 'node:worker_threads';
import { Link } from '../../lib/client/link';
import { PostedWrites } from '../../lib/client/posted-writes';
import { VfioUserRegion } from '../../lib/client/region';
import type { IncomingCommand } from '../../lib/transport';
import { connected, message, warmUp, type Peer } from '../transport/support';
import { join, like, u32, u64 } from './support';

const READ = 9;
const DMA_READ = 11;
const REPLY = 1;
const REGION = 5;
const HIGH = 2 ** 40;

beforeAll(warmUp);

/** `struct vfio_user_region_access`: u64 offset, u32 region, u32 count; then the data. */
const access = (offset: number, count: number, data: Uint8Array, region = REGION): Uint8Array =>
  join(u64(BigInt(offset)), u32(region, count), data);

describe.each(['client', 'server'] as const)('as the %s', (role) => {
  let link: Link;
  let peer: Peer;
  let region: VfioUserRegion;
  const served: IncomingCommand[] = [];

  beforeEach(() => {
    served.length = 0;
    const made = connected({
      role,
      onClose: (error, acting) => {
        link.connectionEnded(link.connection, error, acting);
      },
      onCommand: (command) => {
        served.push(command);
        return { payload: Uint8Array.of(42) };
      },
    });
    peer = made.peer;
    link = new Link(made.connection);
    region = new VfioUserRegion(
      link,
      { index: REGION, size: 2 * HIGH, flags: 3, fdOffset: 0, areas: [], fds: [] },
      { maxTransfer: 1 << 20, postedWrites: new PostedWrites(link, false) },
    );
  });
  afterEach(() => {
    link.close(null);
    peer.socket.close();
  });

  const answer = (id: number, payload: Uint8Array, more = {}): Uint8Array =>
    message(READ, payload, { id, flags: REPLY, ...more });

  test('registers of each width, and what is sent for them', () => {
    const bytes = Uint8Array.of(0x98, 0xba, 0xdc, 0xfe);
    peer.send(answer(1, access(HIGH + 4, 4, bytes)));
    expect(region.read32Sync(HIGH + 4)).toBe(0xfedc_ba98);
    expect(peer.take()).toEqual({
      id: 1,
      command: READ,
      flags: 0,
      payload: [...access(HIGH + 4, 4, new Uint8Array(0))],
    });
    // What a longer answer has left behind is not part of the value.
    peer.send(answer(2, access(2, 2, bytes.subarray(2))));
    expect(region.read16Sync(2)).toBe(0xfedc);
    peer.send(answer(3, access(3, 1, bytes.subarray(1, 2))));
    expect(region.read8Sync(3)).toBe(0xba);
    expect(link.statistics).toMatchObject({ messagesSent: 3, messagesReceived: 3 });
  });

  test('an answer that comes later, and in pieces', async () => {
    const bytes = answer(1, access(8, 4, Uint8Array.of(1, 2, 3, 4)));
    peer.send(bytes.subarray(0, 7));
    // The rest comes from another thread, as this one is blocked.
    const worker = new Worker(
      `const { workerData, parentPort } = require('node:worker_threads');
       parentPort.once('message', () => {
         Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
         require('node:fs').writeSync(workerData.fd, workerData.bytes);
       });
       parentPort.postMessage('ready');`,
      { eval: true, workerData: { fd: peer.socket.fd, bytes: bytes.subarray(7) } },
    );
    await new Promise((resolve) => worker.once('message', resolve));
    worker.postMessage('go');
    expect(region.read32Sync(8)).toBe(0x0403_0201);
    expect(link.connection.inFlight).toBe(0);
    await worker.terminate();
  });

  test('a command of the peer that comes first is served', () => {
    peer.send(message(DMA_READ, Uint8Array.of(5), { id: 1 }));
    peer.send(answer(1, access(0, 2, Uint8Array.of(7, 1))));
    expect(region.read16Sync(0)).toBe(0x107);
    expect(served.map(({ command }) => command)).toEqual([DMA_READ]);
  });

  const four = Uint8Array.of(1, 2, 3, 4);
  test.each([
    ['of another offset', access(4, 4, four), 'ERR_VFIO_USER_PROTOCOL', /offset/],
    ['of another region', access(0, 4, four, 6), 'ERR_VFIO_USER_PROTOCOL', /region/],
    ['of more than was asked for', access(0, 8, four), 'ERR_VFIO_USER_PROTOCOL', /count/],
    ['with too many bytes', access(0, 4, new Uint8Array(8)), 'ERR_VFIO_USER_PROTOCOL', /at most 20/],
    ['with too few bytes', access(0, 4, four.subarray(1)), 'ERR_VFIO_USER_PROTOCOL', /at least 20/],
    [
      'cut off in its fixed part',
      access(0, 4, four).subarray(0, 12),
      'ERR_VFIO_USER_PROTOCOL',
      /at least 16/,
    ],
    ['of a part of the register', access(0, 2, four.subarray(2)), 'ERR_VFIO_USER_PROTOCOL', /2 bytes only/],
  ])('an answer %s', (_, payload, code, text) => {
    peer.send(answer(1, payload));
    expect(() => region.read32Sync(0)).toThrow(like({ code, message: expect.stringMatching(text) }));
    // The next one is not disturbed.
    peer.send(answer(2, access(0, 4, four)));
    expect(region.read32Sync(0)).toBe(0x0403_0201);
  });

  test('an error, and the end', () => {
    peer.send(answer(1, new Uint8Array(0), { flags: 0x21, errno: 1 }));
    expect(() => region.read32Sync(0)).toThrow(like({ code: 'ERR_VFIO_USER_REMOTE', errnoName: 'EPERM' }));
    peer.socket.close();
    expect(() => region.read32Sync(0)).toThrow(like({ code: 'ERR_VFIO_USER_DISCONNECTED' }));
    expect(() => region.read32Sync(0)).toThrow(like({ code: 'ERR_VFIO_USER_DISCONNECTED' }));
  });
});

test('a region that cannot be read is not asked', () => {
  const { connection, peer } = connected();
  const link = new Link(connection);
  const region = new VfioUserRegion(
    link,
    { index: REGION, size: 8, flags: 2, fdOffset: 0, areas: [], fds: [] },
    { maxTransfer: 1 << 20, postedWrites: new PostedWrites(link, false) },
  );
  expect(() => region.read32Sync(0)).toThrow(like({ code: 'ERR_VFIO_USER_UNSUPPORTED' }));
  expect(peer.drain()).toBe(0);
  peer.socket.close();
  connection.close();
});
