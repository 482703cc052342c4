// SPDX-License-Identifier: MIT
import { BackendResult, NbdBackend } from '../../../../lib/nvme/backends';
import { failure } from '../../../support/errors';
import { FakeServer, Golden, type Peer, chunk, hex, simple } from './fake-server';

const { success, mediumError, outOfSpace, internalError, unavailable } = BackendResult;

let server: FakeServer;
let backend: NbdBackend | undefined;
let lines: string[];
beforeEach(() => {
  server = new FakeServer();
  lines = [];
});
afterEach(() => {
  backend?.close();
  backend = undefined;
  server[Symbol.dispose]();
});

async function open(timeout = 5000): Promise<NbdBackend> {
  backend = await NbdBackend.connect(server.uri, { timeout, onState: (line) => lines.push(line) });
  return backend;
}

const bytes = (length: number, value = 0): Uint8Array => new Uint8Array(length).fill(value);
const u64 = (value: number): Buffer => {
  const data = Buffer.alloc(8);
  data.writeBigUInt64BE(BigInt(value));
  return data;
};

test('the messages are those of the specification', async () => {
  const seen: string[] = [];
  await server.listen(async (peer) => {
    await peer.handshake();
    for (;;) {
      const request = await peer.request();
      if (request.type === 2) return;
      seen.push(Buffer.concat([request.header, request.data.subarray(0, 4)]).toString('hex'));
      peer.send(simple(request, 0, request.type === 0 ? Buffer.alloc(request.length, 0xab) : undefined));
    }
  });
  const nbd = await open();
  expect(nbd).toMatchObject({
    size: 1 << 20,
    blockSize: 512,
    volatileCache: true,
    deallocation: { unit: 4096, readsZero: false },
    identity: `nbd ${server.path} disk`,
  });
  const target = bytes(1026);
  expect(await nbd.read(512, target, 1, 1024)).toBe(success);
  expect([target[0], target[1], target[1024], target[1025]]).toEqual([0, 0xab, 0xab, 0]);
  expect(await nbd.write(0xf_0000, Uint8Array.of(9, 1, 2, 3, 4, ...bytes(508)), 1, 512)).toBe(success);
  await nbd.flush();
  expect(await nbd.deallocate(4096, 8192)).toBe(success);
  expect(await nbd.zero(0, 512, true)).toBe(success);
  expect(await nbd.zero(512, 512, false)).toBe(success);
  // More than the server takes at once.
  expect(await nbd.read(0, bytes(100_352), 0, 100_352)).toBe(success);
  const magic = '25609513';
  expect(seen).toEqual(
    [
      `${magic} 0000 0000 0000000000000000 0000000000000200 00000400`,
      `${magic} 0000 0001 0000000000000001 00000000000f0000 00000200 01020304`,
      `${magic} 0000 0003 0000000000000002 0000000000000000 00000000`,
      `${magic} 0000 0004 0000000000000003 0000000000001000 00002000`,
      `${magic} 0000 0006 0000000000000004 0000000000000000 00000200`,
      `${magic} 0002 0006 0000000000000005 0000000000000200 00000200`,
      `${magic} 0000 0000 0000000000000006 0000000000000000 00010000`,
      `${magic} 0000 0000 0000000000000007 0000000000010000 00008800`,
    ].map((text) => text.replaceAll(' ', '')),
  );
});

test('requests are in flight side by side, and replies may come in any order', async () => {
  await server.listen(async (peer) => {
    await peer.handshake();
    const requests = [];
    while (requests.length < 64) requests.push(await peer.request());
    for (const request of requests.reverse()) {
      peer.send(simple(request, 0, Buffer.alloc(512, request.offset / 512)));
    }
  });
  const nbd = await open();
  const targets = Array.from({ length: 64 }, () => bytes(512));
  const results = await Promise.all(targets.map((target, i) => nbd.read(i * 512, target, 0, 512)));
  expect(results.every((result) => result === success)).toBe(true);
  expect(targets.every((target, i) => target.every((byte) => byte === i))).toBe(true);
});

test.each([
  [5, mediumError],
  [28, outOfSpace],
  [22, internalError],
  [12, internalError],
])('errno %d of the server ends the access, and not the connection', async (errno, result) => {
  await server.listen(async (peer) => {
    await peer.handshake();
    for (;;) peer.send(simple(await peer.request(), errno));
  });
  const nbd = await open();
  expect(await nbd.read(0, bytes(512), 0, 512)).toBe(result);
  expect(await nbd.write(0, bytes(512), 0, 512)).toBe(result);
  expect(await nbd.zero(0, 512, false)).toBe(result);
  expect(await nbd.deallocate(0, 512)).toBe(result);
  await expect(nbd.flush()).rejects.toMatchObject(failure('ERR_VFIO_USER_REMOTE', `errno ${errno}`));
  expect(lines).toEqual([]);
});

describe('structured replies', () => {
  async function answer(
    reply: (request: Awaited<ReturnType<Peer['request']>>) => Buffer[],
  ): Promise<NbdBackend> {
    await server.listen(async (peer) => {
      await peer.handshake({ structured: true });
      for (;;) peer.send(...reply(await peer.request()));
    });
    return open();
  }

  test('data and holes in any order', async () => {
    const nbd = await answer((request) => [
      chunk(request, 0, 1, Buffer.concat([u64(512 + 1024), Buffer.alloc(512, 3)])),
      chunk(request, 0, 2, Buffer.concat([u64(512 + 512), hex('00000200')])),
      chunk(request, 0, 1, Buffer.concat([u64(512), Buffer.alloc(512, 1)])),
      chunk(request, 1, 0),
    ]);
    const target = bytes(1536, 9);
    expect(await nbd.read(512, target, 0, 1536)).toBe(success);
    expect([target[0], target[511], target[512], target[1023], target[1024]]).toEqual([1, 1, 0, 0, 3]);
  });

  test('errors, with a text and without', async () => {
    const replies = [
      [0x8001, '00000005 0003 626164'],
      [0x8002, '0000001c 0000 0000000000000000'],
      [0xbfff, '00000016 0000 99'],
    ] as const;
    let index = 0;
    const nbd = await answer((request) => {
      const [type, content] = replies[index++]!;
      return [chunk(request, 0, type, hex(content)), chunk(request, 1, 0)];
    });
    expect(await nbd.read(0, bytes(512), 0, 512)).toBe(mediumError);
    expect(await nbd.write(0, bytes(512), 0, 512)).toBe(outOfSpace);
    expect(await nbd.read(0, bytes(512), 0, 512)).toBe(internalError);
  });

  test.each<[string, number, number, string, RegExp]>([
    ['an unknown type', 1, 7, '00', /a chunk has the type 7/],
    ['too few bytes', 1, 0, '', /too few bytes/],
    ['content where there is none', 1, 0, '00', /has some/],
    ['a part before the read', 1, 1, `${'0'.repeat(16)} 01`, /outside of it/],
    ['a part behind the read', 1, 1, '0000000000000400 01', /outside of it/],
    ['a part at 2^64', 1, 1, `${'f'.repeat(16)} 01`, /outside of it/],
    ['data without data', 1, 1, '0000000000000200', /has none/],
    ['a hole without size', 1, 2, '0000000000000200 00000000', /outside of it/],
    ['a hole of a wrong size', 1, 2, '0000000000000200', /a hole of 8 bytes/],
    ['an error that is too short', 1, 0x8001, '00000005', /an error of 4 bytes/],
    ['an error without number', 1, 0x8001, '00000000 0000', /has no number/],
    ['an error whose text is too long', 1, 0x8001, '00000005 0001', /longer than the error/],
    ['an error without end', 1, 0x8001, '00'.repeat(5000), /an error of 5000 bytes/],
  ])('%s ends the connection', async (_, flags, type, content, reason) => {
    const nbd = await answer((request) => [chunk(request, flags, type, hex(content))]);
    expect(await nbd.read(512, bytes(512), 0, 512)).toBe(unavailable);
    expect(lines[0]).toMatch(reason);
  });

  test('parts that overlap, and data for a write, end the connection', async () => {
    const part = Buffer.concat([u64(0), Buffer.alloc(300)]);
    const nbd = await answer((request) => [chunk(request, 0, 1, part), chunk(request, 1, 1, part)]);
    expect(await nbd.read(0, bytes(512), 0, 512)).toBe(unavailable);
    expect(lines[0]).toMatch(/parts of a read overlap/);
    expect(await nbd.write(0, bytes(512), 0, 512)).toBe(unavailable);
    expect(lines.at(-1)).toMatch(/answers a request that is no read/);
  });

  test('a simple reply to a read ends the connection', async () => {
    const nbd = await answer((request) => [simple(request, 0, Buffer.alloc(512))]);
    expect(await nbd.read(0, bytes(512), 0, 512)).toBe(unavailable);
    expect(lines[0]).toMatch(/a read by a simple reply/);
  });
});

test.each<[string, string, RegExp]>([
  ['a cookie that there is not', '67446698 00000000 00000000 00000063', /a request that there is not, 99/],
  ['a cookie of others', '67446698 00000000 00000001 00000000', /a request that there is not/],
  ['another magic', '12345678 00000000 00000000 00000000', /a reply begins with 0x12345678/],
  ['a structured reply', '668e33ef 0001 0000 0000000000000000', /a reply begins with 0x668e33ef/],
])('%s ends the connection', async (_, reply, reason) => {
  await server.listen(async (peer) => {
    await peer.handshake();
    await peer.request();
    peer.send(hex(reply));
  });
  const nbd = await open();
  expect(await nbd.read(0, bytes(512), 0, 512)).toBe(unavailable);
  expect(lines[0]).toMatch(reason);
});

test('a reply that is cut off, and none at all, end with the connection', async () => {
  await server.listen(async (peer, index) => {
    await peer.handshake();
    const request = await peer.request();
    if (index === 0) peer.socket.end(simple(request, 0, Buffer.alloc(100)));
  });
  const nbd = await open(200);
  expect(await nbd.read(0, bytes(512), 0, 512)).toBe(unavailable);
  expect(lines[0]).toMatch(/the server closed the connection/);
  expect(await nbd.read(0, bytes(512), 0, 512)).toBe(unavailable);
  expect(lines.at(-1)).toMatch(/has not answered a request within 200 ms/);
});

test.each<[string, Buffer | string, string, RegExp]>([
  [
    'nothing of NBD',
    'HTTP/1.1 400 Bad Request\r\n\r\n',
    'ERR_VFIO_USER_PROTOCOL',
    /what answers is no NBD server/,
  ],
  [
    'the old handshake',
    hex('4e42444d41474943 00420281861253 00 00'),
    'ERR_VFIO_USER_PROTOCOL',
    /its greeting/,
  ],
  [
    'the old handshake of a real one',
    hex('4e42444d41474943 0000420281861253'),
    'ERR_VFIO_USER_CONNECT',
    /old handshake/,
  ],
  [
    'no fixed newstyle',
    hex('4e42444d41474943 49484156454f5054 0000'),
    'ERR_VFIO_USER_CONNECT',
    /fixed newstyle/,
  ],
  ['half a greeting', hex('4e42444d'), 'ERR_VFIO_USER_DISCONNECTED', /closed the connection/],
])('a server that says %s', async (_, greeting, code, reason) => {
  await server.listen((peer) => {
    peer.socket.end(greeting);
    return Promise.resolve();
  });
  await expect(open()).rejects.toMatchObject({ code, message: expect.stringMatching(reason) });
});

const reply = (type: string, content = ''): Buffer =>
  Buffer.concat([
    hex(`0003e889045565a9 00000007 ${type}`),
    hex((content.replaceAll(' ', '').length / 2).toString(16).padStart(8, '0')),
    hex(content),
  ]);

test.each<[string, Buffer[], string, RegExp]>([
  ['no such export', [reply('80000006', '6e 6f 1b 0a')], 'CONNECT', /it has no such export; it says: no$/],
  ['TLS', [reply('80000005')], 'CONNECT', /it wants TLS: begin the URI with nbds/],
  ['its end', [reply('80000007')], 'CONNECT', /it is shutting down/],
  ['a policy', [reply('80000002')], 'CONNECT', /it does not allow this/],
  ['another error', [reply('80000009')], 'CONNECT', /refuses option 7 with error 9/],
  ['no size', [Golden.goAck], 'PROTOCOL', /has not told the size/],
  [
    'information that is cut off',
    [reply('00000003', '0000 00')],
    'PROTOCOL',
    /its information 0 has 3 bytes/,
  ],
  ['information without type', [reply('00000003', '00')], 'PROTOCOL', /its information -1 has 1 bytes/],
  [
    'blocks of 3 bytes',
    [reply('00000003', '0003 00000003 00001000 00010000')],
    'PROTOCOL',
    /its block sizes, 3 and 4096/,
  ],
  [
    'blocks of 0 bytes',
    [reply('00000003', '0003 00000000 00001000 00010000')],
    'PROTOCOL',
    /its block sizes/,
  ],
  [
    'requests of 1 byte',
    [reply('00000003', '0003 00000200 00001000 00000001')],
    'PROTOCOL',
    /shorter than its preferred/,
  ],
  [
    'a reply to another option',
    [hex('0003e889045565a9 00000003 00000001 00000000')],
    'PROTOCOL',
    /reply to option 7 is none/,
  ],
  [
    'a reply that is huge',
    [hex('0003e889045565a9 00000007 00000003 7fffffff')],
    'PROTOCOL',
    /has 2147483647 bytes/,
  ],
  ['a reply of another type', [reply('00000002')], 'PROTOCOL', /has the type 2/],
  ['replies without end', Array.from({ length: 64 }, () => Golden.infoExport), 'PROTOCOL', /does not end/],
])('a server that answers with %s', async (_, replies, code, reason) => {
  await server.listen(async (peer) => {
    peer.send(Golden.greeting);
    await peer.read(20);
    peer.send(Golden.structuredUnsupported);
    await peer.read(Golden.askGo.length);
    peer.send(...replies);
  });
  await expect(open()).rejects.toMatchObject({
    code: `ERR_VFIO_USER_${code}`,
    message: expect.stringMatching(reason),
  });
});

test.each([
  ['a read-only export', '0000000000100000 006f', '00000200', /the export is read-only/],
  ['an export of 0 bytes', '0000000000000000 006d', '00000200', /the export has 0 bytes, less than a block/],
  ['an export of 2^60 bytes', '1000000000000000 006d', '00000200', /which is too much/],
  ['blocks of 8 KiB', '0000000000100000 006d', '00002000', /its blocks have 8192 bytes/],
])('%s cannot be a namespace', async (_, exported, block, reason) => {
  await server.listen((peer) =>
    peer.handshake({
      infos: [reply('00000003', `0000 ${exported}`), reply('00000003', `0003 ${block} 00002000 00010000`)],
    }),
  );
  await expect(open()).rejects.toMatchObject(failure('ERR_VFIO_USER_UNSUPPORTED', reason));
});

test('a server that says nothing is given up', async () => {
  await server.listen(() => Promise.resolve());
  await expect(open(50)).rejects.toMatchObject(failure('ERR_VFIO_USER_TIMEOUT', 'within 50 ms'));
  server.stop();
  await expect(open()).rejects.toMatchObject(failure('ERR_VFIO_USER_CONNECT', /ENOENT/));
});

test('a server without NBD_OPT_GO, flush, trim and write zeroes', async () => {
  const seen: number[][] = [];
  await server.listen(async (peer) => {
    peer.send(hex('4e42444d41474943 49484156454f5054 0001'));
    expect(await peer.read(4)).toEqual(hex('00000001'));
    await peer.read(16);
    peer.send(Golden.structuredUnsupported);
    await peer.read(Golden.askGo.length);
    peer.send(reply('80000001'));
    expect(await peer.read(20)).toEqual(hex('49484156454f5054 00000001 00000004 6469736b'));
    peer.send(hex('0000000000100000 0009'), Buffer.alloc(124));
    for (;;) {
      const request = await peer.request();
      seen.push([request.type, request.flags, request.length]);
      peer.send(simple(request));
    }
  });
  const nbd = await open();
  expect(nbd).toMatchObject({ volatileCache: false, deallocation: undefined, blockSize: 1 });
  expect(await nbd.zero(0, 1536, true)).toBe(success);
  expect(await nbd.deallocate(0, 512)).toBe(success);
  await nbd.flush();
  // It knows of Force Unit Access, so that no write stays in its cache.
  expect(seen).toEqual([[1, 1, 1536]]);
});
