// SPDX-License-Identifier: MIT
import { constants } from 'node:buffer';
import { closeSync, ftruncateSync, openSync, readFileSync, statfsSync } from 'node:fs';
import { Mapping, createSharedMemory, fileSize } from '../../lib/native';
import { coded, errno } from '../support/errors';
import { turns, until } from '../support/wait';

const hugePage = 0x200000;

/** Descriptors of the current test. */
const opened: number[] = [];
function memory(...options: Parameters<typeof createSharedMemory>): number {
  const fd = createSharedMemory(...options);
  opened.push(fd);
  return fd;
}
afterEach(() => {
  for (const fd of opened.splice(0)) closeSync(fd);
});

/** Start of the one mapping of memory with this name. */
function addressOf(name: string): number {
  const line = readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .find((entry) => entry.includes(`memfd:${name} `));
  return parseInt(line ?? '', 16);
}

const freeHugePages = Number(/HugePages_Free:\s+(\d+)/.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1] ?? 0);
const reservedHugePages = Number(
  /HugePages_Rsvd:\s+(\d+)/.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1] ?? 0,
);
const hugeTest = freeHugePages - reservedHugePages >= 2 ? test : test.skip;

test('shared memory is zeroed, sized, and cannot shrink', () => {
  const fd = memory(10_000, { name: 'test' });
  expect(fileSize(fd)).toBe(10_000);
  expect(() => {
    ftruncateSync(fd, 0);
  }).toThrow(coded('EPERM'));
  using mapping = Mapping.map(fd, 0, 10_000);
  expect(new Uint8Array(mapping.buffer).every((byte) => byte === 0)).toBe(true);
});

test.each([0, -1, 0.5, NaN, 2 ** 53])('size %p is refused', (size) => {
  expect(() => createSharedMemory(size)).toThrow(coded('ERR_OUT_OF_RANGE'));
});

test('huge pages are 2 MiB or 1 GiB, and whole', () => {
  expect(() => createSharedMemory(4096, { hugePageSize: 4096 as 0 })).toThrow(coded('ERR_INVALID_ARG_VALUE'));
  expect(() => createSharedMemory(4096, { hugePageSize: hugePage })).toThrow(coded('ERR_OUT_OF_RANGE'));
});

test('live mappings are counted', () => {
  const fd = memory(4096);
  const before = Mapping.count;
  const mappings = [Mapping.map(fd, 0, 4096), Mapping.map(fd, 0, 4096)];
  expect(Mapping.count).toBe(before + 2);
  for (const mapping of mappings) mapping.close();
  expect(Mapping.count).toBe(before);
});

test('two mappings of a file see each other, one within the other', () => {
  const fd = memory(16384);
  using whole = Mapping.map(fd, 0, 16384);
  using part = Mapping.map(fd, 8192, 100);
  expect(part.length).toBe(100);
  new Uint32Array(part.buffer)[1] = 0xdeadbeef;
  expect(new Uint32Array(whole.buffer)[2049]).toBe(0xdeadbeef);
});

test('the mapping outlives the descriptor', () => {
  const fd = createSharedMemory(4096);
  using mapping = Mapping.map(fd, 0, 4096);
  closeSync(fd);
  new Uint8Array(mapping.buffer)[0] = 1;
  expect(new Uint8Array(mapping.buffer)[0]).toBe(1);
});

test('close detaches the buffer, twice does no harm', () => {
  const mapping = Mapping.map(memory(4096, { name: 'test-close' }), 0, 4096);
  const view = new Uint8Array(mapping.buffer);
  expect(addressOf('test-close')).toBeGreaterThan(0);
  mapping.close();
  mapping.close();
  expect(mapping.closed).toBe(true);
  expect(mapping.length).toBe(4096);
  expect(mapping.buffer.byteLength).toBe(0);
  expect(view[0]).toBeUndefined();
  view[0] = 1;
  expect(addressOf('test-close')).toBeNaN();
});

test('the address can be aligned', () => {
  for (const alignment of [4096, 0x10000, hugePage, 0x40000000]) {
    const name = `test-align-${alignment}`;
    using mapping = Mapping.map(memory(hugePage, { name }), 0, hugePage, { alignment });
    expect(addressOf(name) % alignment).toBe(0);
    new Uint8Array(mapping.buffer).fill(7);
  }
});

test('what cannot be mapped is refused', () => {
  const fd = memory(8192);
  expect(() => Mapping.map(fd, 0, 8193)).toThrow(errno('ENXIO'));
  expect(() => Mapping.map(fd, 8192, 1)).toThrow(errno('ENXIO'));
  expect(() => Mapping.map(fd, 2 ** 53 - 4096, 4096)).toThrow(errno('ENXIO'));
  expect(() => Mapping.map(fd, 1, 4096)).toThrow(errno('EINVAL'));
  expect(() => Mapping.map(fd, 0, 4096, { alignment: 4097 })).toThrow(errno('EINVAL'));
  expect(() => Mapping.map(0x7fffffff, 0, 4096)).toThrow(errno('EBADF'));
  const readOnly = openSync(__filename, 'r');
  opened.push(readOnly);
  expect(() => Mapping.map(readOnly, 0, 1)).toThrow(errno('EACCES'));
  using mapping = Mapping.map(readOnly, 0, 2, { writable: false });
  expect([...new Uint8Array(mapping.buffer)]).toEqual([...Buffer.from('//')]);
});

test.each([
  [-1, 4096, 0],
  [0.5, 4096, 0],
  [0, 0, 0],
  [0, -4096, 0],
  [0, constants.MAX_LENGTH + 1, 0],
  [0, 4096, -1],
  [0, 4096, 2 ** 31],
])('offset %p, length %p, alignment %p are out of range', (offset, length, alignment) => {
  const fd = memory(4096);
  expect(() => Mapping.map(fd, offset, length, { alignment })).toThrow(coded('ERR_OUT_OF_RANGE'));
});

test('a file that is truncated under the mapping reads as zero from there, and is told once', async () => {
  const fd = memory(5 * 4096, { sealed: false });
  using mapping = Mapping.map(fd, 0, 5 * 4096);
  using other = Mapping.map(memory(4096), 0, 4096);
  const lost: Mapping[] = [];
  mapping.onLost = (which) => lost.push(which);
  other.onLost = (which) => lost.push(which);
  const view = new Uint8Array(mapping.buffer).fill(0xaa);
  ftruncateSync(fd, 4096);
  expect(mapping.lost).toBe(false);
  expect(view[3 * 4096]).toBe(0);
  expect(mapping.lost).toBe(true);
  expect(other.lost).toBe(false);
  expect(view[0]).toBe(0xaa);
  view[4 * 4096] = 5;
  expect(view[4 * 4096]).toBe(5);
  expect(view[4096]).toBe(0);
  await until(() => lost.length > 0);
  await turns();
  expect(lost).toEqual([mapping]);
  mapping.close();
  expect(mapping.lost).toBe(true);
});

test('a read-only mapping survives truncation too', () => {
  const fd = memory(8192, { sealed: false });
  using mapping = Mapping.map(fd, 0, 8192, { writable: false });
  ftruncateSync(fd, 0);
  expect(new Uint8Array(mapping.buffer)[5000]).toBe(0);
  expect(mapping.lost).toBe(true);
});

hugeTest(
  'huge pages can be sealed, mapped in part, and truncated (skipped without 2 free pages of 2 MiB)',
  () => {
    const sealed = memory(hugePage, { hugePageSize: hugePage });
    expect(() => {
      ftruncateSync(sealed, 0);
    }).toThrow(coded('EPERM'));
    expect(statfsSync(`/proc/self/fd/${sealed}`).bsize).toBe(hugePage);
    expect(() => Mapping.map(sealed, 4096, 4096)).toThrow(errno('EINVAL'));
    using part = Mapping.map(sealed, 0, 4096);
    new Uint8Array(part.buffer).fill(1);
    const fd = memory(hugePage, { hugePageSize: hugePage, sealed: false });
    using mapping = Mapping.map(fd, 0, hugePage);
    const view = new Uint8Array(mapping.buffer);
    view[5000] = 1;
    ftruncateSync(fd, 0);
    expect(view[5000]).toBe(0);
    expect(mapping.lost).toBe(true);
  },
);
