// SPDX-License-Identifier: MIT
import { fstatSync } from 'node:fs';
import fc from 'fast-check';
import { Socket, closeFd, createSharedMemory } from '../../lib/native';
import { Incoming } from '../../lib/transport/incoming';
import { message, openFds } from './support';

/** Files of different sizes, by which they are known again on the other side. */
const files = [4096, 8192, 12288].map((size) => createSharedMemory(size));
afterAll(() => {
  files.forEach(closeFd);
});

const anyMessage = fc.record({
  id: fc.nat({ max: 0xffff }),
  command: fc.nat({ max: 0xffff }),
  flags: fc.constantFrom(0, 1, 0x10, 0x21),
  payload: fc.oneof(fc.constant(new Uint8Array(0)), fc.uint8Array({ maxLength: 60 })),
  fds: fc.array(fc.nat({ max: 2 }), { maxLength: 3 }),
});

function readAll(reader: Incoming): { bytes: number[]; sizes: number[] }[] {
  const all = [];
  for (let next; (next = reader.next()) !== null && next !== 'end';) {
    const { header, payload, fds } = next;
    const own = Array.from({ length: fds.length }, (_, i) => fds.take(i) ?? -1);
    all.push({
      bytes: [...message(header.command, payload, { ...header, errno: header.error })],
      sizes: own.map((fd) => fstatSync(fd).size),
    });
    own.forEach(closeFd);
  }
  return all;
}

test('messages and their descriptors are the same over any split and merge of the bytes', () => {
  const open = openFds();
  fc.assert(
    fc.property(
      fc.array(anyMessage, { minLength: 1, maxLength: 12 }),
      fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 30 }),
      fc.array(fc.boolean(), { minLength: 1, maxLength: 30 }),
      (messages, pieces, pauses) => {
        const [near, far] = Socket.pair();
        const reader = new Incoming(far, 4096);
        const got = [];
        let step = 0;
        for (const { command, payload, fds, ...header } of messages) {
          const bytes = message(command, payload, header);
          for (let at = 0; at < bytes.length;) {
            const piece = bytes.subarray(at, at + (pieces[step % pieces.length] ?? 1));
            const own = at === 0 ? fds.map((i) => files[i] ?? -1) : null;
            expect(near.send(piece, piece.length, null, 0, own)).toBe(piece.length);
            at += piece.length;
            if (pauses[step++ % pauses.length] === true) got.push(...readAll(reader));
          }
        }
        got.push(...readAll(reader));
        expect(got).toEqual(
          messages.map(({ command, payload, fds, ...header }) => ({
            bytes: [...message(command, payload, header)],
            sizes: fds.map((i) => 4096 * (i + 1)),
          })),
        );
        expect(reader.partial).toBe(false);
        near.close();
        expect(reader.next()).toBe('end');
        far.close();
      },
    ),
    { numRuns: 300 },
  );
  expect(openFds()).toBe(open);
});

test('the end of the stream, before and within a message', () => {
  for (const length of [0, 7, 16, 20]) {
    const [near, far] = Socket.pair();
    const reader = new Incoming(far, 4096);
    near.send(message(4, new Uint8Array(8)), length, null, 0, null);
    near.close();
    expect(reader.next()).toBe('end');
    expect(reader.partial).toBe(length > 0);
    far.close();
  }
});

test.each([
  ['a size below the header', (bytes: Uint8Array) => void (bytes[4] = 15)],
  ['a size above the limit', (bytes: Uint8Array) => void (bytes[6] = 1)],
  ['an impossible type', (bytes: Uint8Array) => void (bytes[8] = 2)],
])('%s', (_name, spoil) => {
  const [near, far] = Socket.pair();
  const bytes = message(4, new Uint8Array(8));
  spoil(bytes);
  near.send(bytes, bytes.length, null, 0, null);
  expect(() => new Incoming(far, 4096).next()).toThrow(
    expect.objectContaining({ code: 'ERR_VFIO_USER_PROTOCOL' }) as Error,
  );
  near.close();
  far.close();
});

test('more descriptors than one message can carry, sent with its bytes', () => {
  const open = openFds();
  const [near, far] = Socket.pair();
  const reader = new Incoming(far, 4096);
  const many = new Array<number>(128).fill(files[0] ?? -1);
  const bytes = message(4);
  for (let i = 0; i < 2; i++) near.send(bytes.subarray(i), 1, null, 0, many);
  expect(() => reader.next()).toThrow(expect.objectContaining({ code: 'ERR_VFIO_USER_PROTOCOL' }) as Error);
  reader.discard();
  near.close();
  far.close();
  expect(openFds()).toBe(open);
});

test('descriptors that the process could not take lose the stream', () => {
  const reader = new Incoming({ receive: () => 1, fdsTruncated: true, takeFds: () => [] }, 4096);
  expect(() => reader.next()).toThrow(expect.objectContaining({ errnoName: 'EMFILE' }) as Error);
});
