// SPDX-License-Identifier: MIT
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Backend, FileBackend, createBackend } from '../../../lib/nvme/backends';
import { MappedStorage } from '../../../lib/nvme/backends/mapped-storage';
import { closeFd, createSharedMemory } from '../../../lib/native';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'nvme-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true });
});

function read(backend: Backend, offset: number, length: number): string {
  const into = new Uint8Array(length + 2).fill(0x2e);
  expect(backend.read(offset, into, 1, length)).toBe(true);
  return Buffer.from(into).toString('latin1').replaceAll('\0', '0');
}

test.each(['memory', 'file'] as const)('%s keeps what is written', async (kind) => {
  const backend = createBackend({ kind, size: 65536, path: join(folder, 'disk') });
  const source = Buffer.from('..abcdef..');
  expect(backend.write(1024, source, 2, 6)).toBe(true);
  expect(read(backend, 1022, 10)).toBe('.00abcdef00.');
  expect(backend.zero(1025, 2)).toBe(true);
  expect(read(backend, 1024, 6)).toBe('.a00def.');
  await backend.flush();
  backend.close();
  backend.close();
});

test('a file is seen by others, and keeps its data when it is opened again', async () => {
  const path = join(folder, 'disk');
  const first = new FileBackend(path, 8192);
  first.write(512, Buffer.from('seen'), 0, 4);
  await first.flush();
  expect(readFileSync(path).subarray(512, 516).toString()).toBe('seen');
  first.close();
  const second = new FileBackend(path);
  expect(second.size).toBe(8192);
  expect(read(second, 512, 4)).toBe('.seen.');
  second.close();
  const longer = new FileBackend(path, 16384);
  expect(read(longer, 512, 4)).toBe('.seen.');
  longer.close();
  expect(statSync(path).size).toBe(16384);
  const shorter = new FileBackend(path, 4096);
  expect(shorter.size).toBe(4096);
  shorter.close();
  expect(statSync(path).size).toBe(16384);
});

test('a file may be closed while it is flushed, and not flushed once closed', async () => {
  const backend = new FileBackend(join(folder, 'disk'), 4096);
  const flushed = backend.flush();
  backend.close();
  await flushed;
  await expect(backend.flush()).rejects.toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
});

test('a file that is truncated gives errors, and no SIGBUS', async () => {
  const path = join(folder, 'disk');
  const backend = new FileBackend(path, 65536);
  expect(backend.read(0, new Uint8Array(512), 0, 512)).toBe(true);
  truncateSync(path, 0);
  backend.read(8192, new Uint8Array(512), 0, 512);
  for (let i = 0; i < 100 && backend.read(0, new Uint8Array(1), 0, 1); i++) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  expect(backend.read(0, new Uint8Array(512), 0, 512)).toBe(false);
  expect(backend.write(0, new Uint8Array(512), 0, 512)).toBe(false);
  expect(backend.zero(0, 512)).toBe(false);
  backend.close();
});

test('storage is one across its chunks', () => {
  const fd = createSharedMemory(3 * 4096 + 512);
  const storage = new MappedStorage(fd, 3 * 4096 + 512, 4096);
  const data = Uint8Array.from({ length: 9000 }, (_, i) => i % 251);
  expect(storage.write(1000, data, 0, 9000)).toBe(true);
  const back = new Uint8Array(9000);
  expect(storage.read(1000, back, 0, 9000)).toBe(true);
  expect(back).toEqual(data);
  expect(storage.zero(2000, 10_800)).toBe(true);
  expect(storage.read(1000, back, 0, 9000)).toBe(true);
  expect(back.subarray(0, 1000)).toEqual(data.subarray(0, 1000));
  expect(back.subarray(1000).every((byte) => byte === 0)).toBe(true);
  storage.close();
  closeFd(fd);
});

test('what makes no sense is refused', () => {
  expect(() => createBackend({ kind: 'memory', size: 0 })).toThrow(/at least 512/);
  expect(() => createBackend({ kind: 'null', size: 1.5 * 512 + 0.5 })).toThrow(/integer/);
  expect(() => createBackend({ kind: 'tape' as 'null', size: 512 })).toThrow(/null, memory or file/);
  expect(() => createBackend({ kind: 'file', path: folder, size: 512 })).toThrow(/EISDIR/);
  expect(() => createBackend({ kind: 'file', path: join(folder, 'none') })).toThrow(
    /open failed with ENOENT/,
  );
  expect(() => createBackend({ kind: 'file', path: '/dev/null' })).toThrow(/neither a regular file/);
  writeFileSync(join(folder, 'empty'), '');
  expect(() => createBackend({ kind: 'file', path: join(folder, 'empty') })).toThrow(/empty/);
});
