// SPDX-License-Identifier: MIT
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  BackendResult,
  FileBackend,
  type SynchronousBackend,
  createBackend,
} from '../../../lib/nvme/backends';
import { BlockSet } from '../../../lib/nvme/backends/block-set';
import { ChunkedMemory } from '../../../lib/nvme/backends/chunked-memory';
import { Mapping, closeFd, createSharedMemory } from '../../../lib/native';

const SUCCESS = BackendResult.success;

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'nvme-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true });
});

function read(backend: SynchronousBackend, offset: number, length: number): string {
  const into = new Uint8Array(length + 2).fill(0x2e);
  expect(backend.read(offset, into, 1, length)).toBe(SUCCESS);
  return Buffer.from(into).toString('latin1').replaceAll('\0', '0');
}

test.each(['memory', 'file'] as const)('%s keeps what is written', async (kind) => {
  const backend = createBackend({ kind, size: 65536, path: join(folder, 'disk') });
  const source = Buffer.from('..abcdef..');
  expect(backend.write(1024, source, 2, 6)).toBe(SUCCESS);
  expect(read(backend, 1022, 10)).toBe('.00abcdef00.');
  expect(backend.zero(1025, 2, false)).toBe(SUCCESS);
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
  expect(backend.write(0, new Uint8Array(512), 0, 512)).toBe(BackendResult.internalError);
  await flushed;
  await expect(backend.flush()).rejects.toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
});

test('of a file that is truncated the rest stays usable, nothing reads as zeros, and no write extends it', async () => {
  const path = join(folder, 'disk');
  const backend = new FileBackend(path, 65536);
  const block = new Uint8Array(512).fill(7);
  truncateSync(path, 8192);
  const { mediumError } = BackendResult;
  expect(backend.read(8192, block.slice(), 0, 512)).toBe(mediumError);
  expect(backend.read(8192 - 256, block.slice(), 0, 512)).toBe(mediumError);
  expect(backend.write(16384, block, 0, 512)).toBe(mediumError);
  expect(backend.zero(65536 - 512, 512, false)).toBe(mediumError);
  expect(statSync(path).size).toBe(8192);
  expect(backend.write(4096, block, 0, 512)).toBe(SUCCESS);
  expect(backend.read(4096, new Uint8Array(512), 0, 512)).toBe(SUCCESS);
  await expect(backend.flush()).rejects.toThrow(/truncated to less than 65536 bytes/);
  truncateSync(path, 65536);
  expect(backend.write(16384, block, 0, 512)).toBe(SUCCESS);
  await backend.flush();
  backend.close();
});

test('flushes that are asked for while one runs share the next', async () => {
  const backend = new FileBackend(join(folder, 'disk'), 4096);
  const [first, second, third] = [backend.flush(), backend.flush(), backend.flush()];
  expect(second).not.toBe(first);
  expect(third).toBe(second);
  await Promise.all([first, second]);
  await backend.flush();
  backend.close();
});

test('memory that the client has truncated is an error of the memory', () => {
  const fd = createSharedMemory(8192, { sealed: false });
  const memory = Mapping.map(fd, 0, 8192);
  const backend = new FileBackend(join(folder, 'disk'), 65536);
  truncateSync(`/proc/self/fd/${fd}`, 4096);
  const bytes = new Uint8Array(memory.buffer);
  expect(backend.write(0, bytes, 2048, 4096)).toBe(BackendResult.memoryError);
  expect(backend.read(0, bytes, 2048, 4096)).toBe(BackendResult.memoryError);
  expect(backend.write(0, bytes, 0, 4096)).toBe(SUCCESS);
  memory.close();
  closeFd(fd);
  backend.close();
});

test('a set of blocks adds what is touched, and removes what is covered', () => {
  const set = new BlockSet();
  const far = 2 ** 40;
  set.add(1, 512);
  expect(set.size).toBe(2);
  set.add(0, 1024);
  expect(set.size).toBe(2);
  set.delete(1, 1022);
  expect(set.size).toBe(2);
  set.add(far - 1024, 2048); // Across two chunks.
  expect(set.size).toBe(6);
  const all = new BlockSet();
  all.add(0, 512);
  all.addAll(set);
  expect(all.size).toBe(6);
  all.delete(far - 1024, 2048);
  expect(all.size).toBe(2);
  all.delete(0, far);
  expect(all.size).toBe(0);
  expect(set.size).toBe(6);
});

test('memory is one across its chunks', () => {
  const memory = new ChunkedMemory(3 * 4096 + 512, 4096);
  const data = Uint8Array.from({ length: 9000 }, (_, i) => i % 251);
  const back = new Uint8Array(9000).fill(1);
  memory.read(1000, back, 0, 9000);
  expect(back).toEqual(new Uint8Array(9000));
  memory.write(1000, data, 0, 9000);
  memory.read(1000, back, 0, 9000);
  expect(back).toEqual(data);
  memory.zero(2000, 10_800);
  memory.read(1000, back, 0, 9000);
  expect(back.subarray(0, 1000)).toEqual(data.subarray(0, 1000));
  expect(back.subarray(1000).every((byte) => byte === 0)).toBe(true);
  memory.close();
});

test('memory is taken when it is first touched, and given back with what is cut off', () => {
  const before = Mapping.count;
  const memory = new ChunkedMemory(4 * 4096, 4096);
  const bytes = new Uint8Array(4 * 4096);
  memory.zero(0, bytes.length);
  memory.discard(0, bytes.length);
  expect(Mapping.count).toBe(before);
  memory.write(0, bytes.fill(7), 0, bytes.length);
  expect(Mapping.count).toBe(before + 4);
  memory.resize(4096 + 512);
  expect(Mapping.count).toBe(before + 2);
  // The last chunk ends within a page, and is made longer.
  memory.resize(4 * 4096 - 512);
  expect(Mapping.count).toBe(before + 2);
  memory.read(0, bytes, 0, bytes.length - 512);
  expect([bytes.indexOf(0), bytes.subarray(0, -512).lastIndexOf(7)]).toEqual([4096 + 512, 4096 + 511]);
  memory.write(3 * 4096, bytes.fill(8), 0, 3584);
  memory.resize(4 * 4096);
  memory.read(3 * 4096, bytes, 0, 4096);
  expect([bytes.indexOf(0), bytes.subarray(0, 3584).every((byte) => byte === 8)]).toEqual([3584, true]);
  memory.discard(100, 4096);
  memory.read(0, bytes, 0, 8192);
  expect([...bytes.subarray(0, 8192).keys()].filter((at) => bytes[at] === 7)).toEqual([
    ...Array.from({ length: 100 }, (_, i) => i),
    ...Array.from({ length: 412 }, (_, i) => 4196 + i),
  ]);
  memory.close();
  memory.close();
  expect(Mapping.count).toBe(before);
});

test('memory that the system does not have is no room', () => {
  const script = `
    const { BackendResult, MemoryBackend } = require('./dist/nvme/backends');
    const { execFileSync } = require('node:child_process');
    const { readFileSync } = require('node:fs');
    const backend = new MemoryBackend(2 ** 28);
    const data = new Uint8Array(512).fill(7);
    const before = backend.write(0, data, 0, 512);
    const kib = Number(/VmSize:\\s+(\\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]);
    execFileSync('prlimit', ['--pid', String(process.pid), '--as=' + (kib * 1024 + 2 ** 26) + ':']);
    const far = 2 ** 27;
    const after = [backend.write(far, data, 0, 512), backend.read(far, data, 0, 512), backend.write(512, data, 0, 512)];
    console.log(before, ...after);
  `;
  // Threads take address space too. A failure of V8 must not be taken for one of the test's own process.
  const out = execFileSync(process.execPath, ['--single-threaded', '-e', script], {
    encoding: 'utf8',
    stdio: 'pipe',
    env: { ...process.env, MALLOC_ARENA_MAX: '1' },
  });
  const { success, outOfSpace, mediumError } = BackendResult;
  expect(out).toBe(`${success} ${outOfSpace} ${mediumError} ${success}\n`);
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
