// SPDX-License-Identifier: MIT
import { constants } from 'node:buffer';
import { readFileSync } from 'node:fs';
import { Mapping, PrivateMemory, pageSize } from '../../lib/native';
import { coded, errno } from '../support/errors';

const MIB = 2 ** 20;

/** The entry of /proc/self/smaps of the one mapping that has so many bytes. */
function smaps(bytes: number): string {
  const entries = readFileSync('/proc/self/smaps', 'utf8').split(/(?=^[0-9a-f]+-)/m);
  return entries.find((entry) => new RegExp(`^Size: +${bytes / 1024} kB`, 'm').test(entry)) ?? '';
}

/** Bytes of the mapping that have memory. */
const resident = (bytes: number): number => Number(/^Rss: +(\d+) kB/m.exec(smaps(bytes))?.[1]) * 1024;

test('memory is zeros, takes pages when it is written, and gives them back', () => {
  // A size that no other mapping has.
  const size = 23 * MIB + 3 * pageSize;
  const before = Mapping.count;
  const memory = new PrivateMemory(size);
  const bytes = new Uint8Array(memory.buffer);
  expect([Mapping.count, bytes.length]).toEqual([before + 1, size]);
  expect(resident(size)).toBe(0);
  bytes.fill(7, 0, 4 * pageSize);
  expect(resident(size)).toBe(4 * pageSize);
  // Parts of two pages, and the one between them.
  memory.discard(pageSize - 100, pageSize + 200);
  expect(resident(size)).toBe(3 * pageSize);
  expect(bytes.subarray(0, 4 * pageSize).findIndex((byte) => byte === 0)).toBe(pageSize - 100);
  expect(bytes.subarray(0, 4 * pageSize).lastIndexOf(0)).toBe(2 * pageSize + 99);
  // Within a page.
  memory.discard(10, 20);
  expect([...bytes.subarray(9, 31)]).toEqual([7, ...new Array<number>(20).fill(0), 7]);
  memory.close();
  memory.close();
  expect([Mapping.count, bytes.length]).toEqual([before, 0]);
});

test('whole huge pages of what is asked for may be taken', () => {
  const size = 24 * MIB + pageSize;
  const memory = new PrivateMemory(size, 4 * MIB + 12_345);
  // The kernel makes two mappings of it, of which one has the advice `hg`, and the other `nh` (proc(5)).
  expect(smaps(4 * MIB)).toMatch(/^VmFlags:.* hg( |$)/m);
  expect(smaps(size - 4 * MIB)).toMatch(/^VmFlags:.* nh( |$)/m);
  expect(smaps(size - 4 * MIB)).not.toMatch(/^VmFlags:.* hg( |$)/m);
  memory.close();
});

test('what is no part of it is refused', () => {
  const memory = new PrivateMemory(pageSize);
  expect(() => {
    memory.discard(1, pageSize);
  }).toThrow(errno('EINVAL'));
  expect(() => {
    memory.discard(pageSize + 1, 0);
  }).toThrow(errno('EINVAL'));
  memory.close();
  expect(() => {
    memory.discard(0, 1);
  }).toThrow(errno('EINVAL'));
});

test.each([0, -1, 0.5, constants.MAX_LENGTH + 1])('%p bytes are refused', (length) => {
  expect(() => new PrivateMemory(length)).toThrow(coded('ERR_OUT_OF_RANGE'));
});
