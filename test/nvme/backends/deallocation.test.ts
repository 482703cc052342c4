// SPDX-License-Identifier: MIT
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  BackendResult,
  FileBackend,
  type SynchronousBackend,
  createBackend,
} from '../../../lib/nvme/backends';
import { createSharedMemory, closeFd, Mapping } from '../../../lib/native';
import { mount, testWithLoopDevice, testWithMount, unmount, withLoopDevice } from '../../support/mount';

const SUCCESS = BackendResult.success;
const MIB = 1 << 20;

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'nvme-'));
  path = join(folder, 'disk');
});
afterEach(() => {
  rmSync(folder, { recursive: true });
});

/** Bytes of storage that a file takes. */
function storage(file: string): number {
  return statSync(file).blocks * 512;
}

/** The value that all bytes of a range have; -1 when they differ. */
function value(backend: SynchronousBackend, offset: number, length: number): number {
  const bytes = new Uint8Array(length);
  expect(backend.read(offset, bytes, 0, length)).toBe(SUCCESS);
  return bytes.every((byte) => byte === bytes[0]) ? bytes[0]! : -1;
}

function fill(backend: SynchronousBackend, byte: number): void {
  expect(backend.write(0, new Uint8Array(MIB).fill(byte), 0, MIB)).toBe(SUCCESS);
}

test('a file gets holes, whose bytes read as zeros and take no storage, and keeps its size', async () => {
  const backend = new FileBackend(path, MIB);
  const unit = backend.deallocation!.unit;
  expect(backend.deallocation).toEqual({ unit: statSync(path).blksize, readsZero: true });
  fill(backend, 7);
  await backend.flush();
  const before = storage(path);
  expect(backend.deallocate(4 * unit, 64 * unit)).toBe(SUCCESS);
  expect(storage(path)).toBe(before - 64 * unit);
  expect(value(backend, 4 * unit, 64 * unit)).toBe(0);
  // Parts of a piece.
  expect(backend.deallocate(100 * unit + 512, 512)).toBe(SUCCESS);
  expect([value(backend, 100 * unit, 512), value(backend, 100 * unit + 1024, unit - 1024)]).toEqual([7, 7]);
  // Write Zeroes with and without deallocation.
  expect(backend.zero(128 * unit, 8 * unit, true)).toBe(SUCCESS);
  expect(storage(path)).toBe(before - 72 * unit);
  expect(backend.zero(136 * unit, 8 * unit, false)).toBe(SUCCESS);
  expect(storage(path)).toBe(before - 72 * unit);
  expect(value(backend, 128 * unit, 16 * unit)).toBe(0);
  expect([value(backend, 0, 4 * unit), value(backend, 144 * unit, 8 * unit)]).toEqual([7, 7]);
  await backend.flush();
  backend.close();
  expect(statSync(path).size).toBe(MIB);
});

test('what is beyond the end of a truncated file is not deallocated, and not zeroed, but an error', () => {
  const backend = new FileBackend(path, MIB);
  truncateSync(path, MIB / 2);
  const { mediumError } = BackendResult;
  expect(backend.deallocate(MIB / 2, 4096)).toBe(mediumError);
  expect(backend.zero(MIB / 2 - 4096, 8192, true)).toBe(mediumError);
  expect(backend.zero(MIB / 2 - 4096, 8192, false)).toBe(mediumError);
  expect(statSync(path).size).toBe(MIB / 2);
  backend.close();
  expect(backend.deallocate(0, 4096)).toBe(BackendResult.internalError);
});

describe('in a small file system', () => {
  afterEach(() => {
    unmount(folder);
  });

  testWithMount(
    'zeros are written where there are no holes, and the host is told that there are none',
    () => {
      expect(mount(folder, 'ramfs')).toBe(true);
      const backend = new FileBackend(path, MIB);
      expect(backend.deallocation).toBeUndefined();
      fill(backend, 7);
      expect(backend.deallocate(0, MIB)).toBe(SUCCESS);
      expect(value(backend, 0, MIB)).toBe(7);
      expect(backend.zero(4096, 262_144, true)).toBe(SUCCESS);
      const after = 4096 + 262_144;
      expect([value(backend, 0, 4096), value(backend, 4096, 262_144), value(backend, after, 4096)]).toEqual([
        7, 0, 7,
      ]);
      backend.close();
    },
  );

  testWithMount('that is full, zeros that need room fail, and holes do not and make room', () => {
    expect(mount(folder, 'tmpfs')).toBe(true);
    const backend = new FileBackend(path, 2 * MIB);
    const page = new Uint8Array(4096).fill(7);
    let filled = 0;
    while (backend.write(filled, page, 0, 4096) === SUCCESS) filled += 4096;
    expect(filled).toBeGreaterThan(MIB / 2);
    expect(backend.zero(filled, 4096, false)).toBe(BackendResult.outOfSpace);
    expect(backend.zero(filled, MIB, true)).toBe(SUCCESS);
    expect(backend.deallocate(0, 8192)).toBe(SUCCESS);
    expect(backend.write(filled, page, 0, 4096)).toBe(SUCCESS);
    backend.close();
  });
});

testWithLoopDevice('a block device gives storage back, in whole blocks', async () => {
  await withLoopDevice(path, MIB, 4096, (device) => {
    const backend = new FileBackend(device);
    expect(backend.size).toBe(MIB);
    fill(backend, 9);
    expect(backend.deallocation).toMatchObject({ readsZero: true });
    expect(backend.deallocate(4096 + 512, 3 * 4096)).toBe(SUCCESS);
    expect([value(backend, 4096, 4096), value(backend, 8192, 8192), value(backend, 4 * 4096, 4096)]).toEqual([
      9, 0, 9,
    ]);
    expect(backend.deallocate(512, 1024)).toBe(SUCCESS);
    expect(backend.zero(512, 1024, true)).toBe(SUCCESS);
    expect([value(backend, 0, 512), value(backend, 512, 1024), value(backend, 1536, 512)]).toEqual([9, 0, 9]);
    expect(backend.zero(65_536, 65_536, false)).toBe(SUCCESS);
    expect(value(backend, 65_536, 65_536)).toBe(0);
    backend.close();
  });
});

test('memory goes back to the system, and reads as zeros', () => {
  const resident = (): number =>
    Number(/^RssAnon:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) * 1024;
  const backend = createBackend({ kind: 'memory', size: 64 * MIB });
  for (let at = 0; at < 64; at++) backend.write(at * MIB, new Uint8Array(MIB).fill(5), 0, MIB);
  const before = resident();
  expect(backend.deallocate(MIB - 512, 62 * MIB + 1024)).toBe(SUCCESS);
  expect(before - resident()).toBeGreaterThan(56 * MIB);
  expect([
    value(backend, MIB - 1024, 512),
    value(backend, MIB - 512, 1024),
    value(backend, 63 * MIB + 512, 512),
  ]).toEqual([5, 0, 5]);
  expect(backend.zero(0, 8192, true)).toBe(SUCCESS);
  expect([value(backend, 0, 8192), value(backend, 8192, 512)]).toEqual([0, 5]);
  expect(backend.write(2 * MIB, new Uint8Array(512).fill(6), 0, 512)).toBe(SUCCESS);
  expect(value(backend, 2 * MIB, 512)).toBe(6);
  backend.close();
});

describe('direct I/O', () => {
  /** Memory whose bytes lie at an address that is a multiple of the page size. */
  function aligned(length: number): { bytes: Uint8Array; [Symbol.dispose]: () => void } {
    const fd = createSharedMemory(length);
    const mapping = Mapping.map(fd, 0, length);
    closeFd(fd);
    return {
      bytes: new Uint8Array(mapping.buffer),
      [Symbol.dispose]: () => {
        mapping.close();
      },
    };
  }

  function check(backend: SynchronousBackend, size: number): void {
    using memory = aligned(3 * MIB);
    const { bytes } = memory;
    for (let at = 0; at < bytes.length; at++) bytes[at] = (at * 31 + (at >> 9)) & 0xff;
    const expected = new Uint8Array(size);
    const cases = [
      [0, 0, 65_536], // All aligned.
      [4096, 512, 4096], // The memory is not.
      [131_072, 3, 8192],
      [200_704, 4096, 512], // The length is not, and where blocks have 4096 bytes that is too little.
      [201_728, 1, 1536], // Nothing is.
      [300_032, 7, 2 * MIB + 1024], // More than the buffer takes.
      [size - 512, 0, 512],
    ] as const;
    for (const [offset, at, length] of cases) {
      expect(backend.write(offset, bytes, at, length)).toBe(SUCCESS);
      expected.set(bytes.subarray(at, at + length), offset);
    }
    const back = new Uint8Array(size + 1);
    expect(backend.read(0, back, 1, size)).toBe(SUCCESS);
    expect(Buffer.compare(back.subarray(1), expected)).toBe(0);
    using target = aligned(65_536);
    expect(backend.read(201_216, target.bytes, 0, 2048)).toBe(SUCCESS);
    expect(target.bytes.subarray(0, 2048)).toEqual(expected.subarray(201_216, 203_264));
    expect(backend.zero(131_072, 2048, false)).toBe(SUCCESS);
    expect([value(backend, 131_072, 2048), value(backend, 133_120, 4096)]).toEqual([0, -1]);
  }

  testWithLoopDevice.each([512, 4096])(
    'takes any access, on a device with blocks of %d bytes',
    async (blockSize) => {
      await withLoopDevice(path, 4 * MIB, blockSize, async (device) => {
        const backend = createBackend({ kind: 'file', path: device, direct: true });
        check(backend, 4 * MIB);
        await backend.flush();
        backend.close();
      });
    },
  );

  test('takes any access to a file', () => {
    const backend = createBackend({ kind: 'file', path, size: 4 * MIB, direct: true });
    check(backend, 4 * MIB);
    truncateSync(path, MIB);
    const bytes = new Uint8Array(4096);
    expect(backend.read(MIB - 512, bytes, 1, 1024)).toBe(BackendResult.mediumError);
    expect(backend.write(MIB - 512, bytes, 1, 1024)).toBe(BackendResult.mediumError);
    expect(statSync(path).size).toBe(MIB);
    backend.close();
    backend.close();
  });

  test('is refused where there is none', () => {
    expect(() => createBackend({ kind: 'file', path: '/proc/self/comm', direct: true })).toThrow(
      /has no direct I\/O \(O_DIRECT\): serve it without/,
    );
  });
});
