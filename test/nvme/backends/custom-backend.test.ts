// SPDX-License-Identifier: MIT
import { readFile } from 'node:fs/promises';
import {
  BackendError,
  type BackendImplementation,
  BackendResult,
  customBackend,
} from '../../../lib/nvme/backends';
import { until } from '../../support/wait';

const SIZE = 1 << 22;
const nothing = (): void => undefined;
class Uncalled implements BackendImplementation {
  readonly size = SIZE;
  read = nothing;
  write = nothing;
}
const minimal: BackendImplementation = { size: SIZE, read: nothing, write: nothing };

test('two methods and a size are enough', async () => {
  const bytes = new Uint8Array(SIZE).fill(7);
  const backend = customBackend({
    size: SIZE,
    read: (offset, target) => {
      target.set(bytes.subarray(offset, offset + target.length));
    },
    write: (offset, data) => {
      bytes.set(data, offset);
    },
  });
  expect(backend).toMatchObject({
    asynchronous: true,
    kind: 'custom',
    size: SIZE,
    blockSize: 1,
    volatileCache: false,
    deallocation: undefined,
  });
  expect(await backend.write(512, Buffer.from('..abc..'), 2, 3)).toBe(BackendResult.success);
  const target = Buffer.from('.......');
  expect(await backend.read(511, target, 1, 5)).toBe(BackendResult.success);
  expect(target.toString()).toBe('.\x07abc\x07.');
  expect(await backend.zero(514, 3 << 20, false)).toBe(BackendResult.success);
  expect(bytes.subarray(514, 514 + (3 << 20)).every((byte) => byte === 0)).toBe(true);
  expect([bytes[513], bytes[514 + (3 << 20)]]).toEqual([0x62, 7]);
  expect(await backend.deallocate(0, SIZE)).toBe(BackendResult.success);
  expect(bytes[0]).toBe(7);
  await backend.flush();
  backend.close();
});

test('what a backend has is used, as methods of it', async () => {
  class Own implements BackendImplementation {
    readonly size = SIZE;
    readonly kind = 'own';
    readonly identity = 'here';
    readonly blockSize = 4096;
    readonly deallocation = { unit: 65536, readsZero: true };
    readonly calls: unknown[][] = [];
    read(): void {}
    write(): void {}
    async zero(...args: unknown[]): Promise<void> {
      await Promise.resolve();
      this.calls.push(['zero', ...args]);
    }
    deallocate(...args: unknown[]): void {
      this.calls.push(['deallocate', ...args]);
    }
    flush(): void {
      this.calls.push(['flush']);
    }
    close(): void {
      this.calls.push(['close']);
    }
  }
  const own = new Own();
  const backend = customBackend(own);
  const { kind, identity, blockSize, deallocation } = own;
  expect(backend).toMatchObject({ kind, identity, blockSize, deallocation, volatileCache: true });
  await backend.zero(0, 4096, true);
  await backend.deallocate(4096, 8192);
  await backend.flush();
  backend.close();
  backend.close();
  expect(own.calls).toEqual([['zero', 0, 4096, true], ['deallocate', 4096, 8192], ['flush'], ['close']]);
});

test.each<[string, () => void | Promise<void>, keyof typeof BackendResult]>([
  [
    'a BackendError',
    () => {
      throw new BackendError(BackendResult.outOfSpace, 'no room');
    },
    'outOfSpace',
  ],
  [
    'an errno of Node.js',
    () => Promise.reject(Object.assign(new Error('full'), { errno: -28 })),
    'outOfSpace',
  ],
  ['EIO', () => Promise.reject(Object.assign(new Error('bad sector'), { errno: -5 })), 'mediumError'],
  ['an error that Node.js makes', () => readFile('/no/such/file').then(nothing), 'internalError'],
  [
    'any error',
    () => {
      throw new TypeError('a defect');
    },
    'internalError',
  ],
  [
    'no error at all',
    () => {
      // eslint-disable-next-line @typescript-eslint/only-throw-error -- code of others may do so
      throw null;
    },
    'internalError',
  ],
])('%s that a method throws ends the command, and is told', async (_, fail, expected) => {
  const onError = jest.fn<undefined, [Error]>();
  const backend = customBackend(
    { size: SIZE, read: fail, write: fail, zero: fail, deallocate: fail, flush: fail, close: fail },
    { onError },
  );
  const result = BackendResult[expected];
  const data = new Uint8Array(512);
  expect(await backend.read(0, data, 0, 512)).toBe(result);
  expect(await backend.write(0, data, 0, 512)).toBe(result);
  expect(await backend.zero(0, 512, false)).toBe(result);
  expect(await backend.deallocate(0, 512)).toBe(result);
  await expect(backend.flush()).rejects.not.toBeUndefined();
  backend.close();
  await until(() => onError.mock.calls.length === 6);
  for (const [error] of onError.mock.calls) expect(error).toHaveProperty('message');
});

test('a method that does not end is given up', async () => {
  const onError = jest.fn<undefined, [Error]>();
  const read = (): Promise<void> => new Promise(() => undefined);
  const backend = customBackend({ ...minimal, kind: 'slow', read }, { timeout: 10, onError });
  expect(await backend.read(0, new Uint8Array(512), 0, 512)).toBe(BackendResult.unavailable);
  expect(onError.mock.calls[0]?.[0].message).toBe('read of the slow backend has not ended within 10 ms');
});

test.each<[string, unknown, RegExp]>([
  ['nothing', null, /is an object with size, read and write, got null/],
  ['a class that was not called', Uncalled, /is an object with size, read and write, got function/],
  ['no size', { ...minimal, size: undefined }, /^size of a backend is a number of bytes, got undefined$/],
  ['a size in text', { ...minimal, size: '1g' }, /^size of a backend is a number of bytes, got string$/],
  ['a size that is too small', { ...minimal, size: 511 }, /at least 512 bytes, got 511/],
  ['a size with a fraction', { ...minimal, size: 512.5 }, /is an integer/],
  ['no read', { ...minimal, read: undefined }, /^A backend has no read\(\)$/],
  ['no write', { size: 512, read: nothing }, /^A backend has no write\(\)$/],
  ['a flush that is none', { ...minimal, flush: true }, /^flush of a backend is a method, got boolean$/],
  ['a kind that is no text', { ...minimal, kind: 1 }, /^kind of a backend is a text, got number$/],
  ['an identity that is no text', { ...minimal, identity: 1 }, /^identity of a backend is a text/],
  [
    'a cache that is a word',
    { ...minimal, volatileCache: 'yes' },
    /^volatileCache of a backend is true or false/,
  ],
  ['blocks of 3 bytes', { ...minimal, blockSize: 3 }, /^blockSize of a backend is a power of two .* got 3$/],
  ['blocks of 8 KiB', { ...minimal, blockSize: 8192 }, /from 1 to 4096, got 8192$/],
  [
    'pieces of no size',
    { ...minimal, deallocation: { readsZero: true } },
    /^deallocation of a backend has unit/,
  ],
])('%s is refused', (_, implementation, message) => {
  expect(() => customBackend(implementation as BackendImplementation)).toThrow(message);
});

test.each([0, NaN, -1, 2 ** 31])('a timeout of %p is refused', (timeout) => {
  expect(() => customBackend(minimal, { timeout })).toThrow(/timeout is a number of milliseconds/);
});

describe('a size that changes', () => {
  test('is taken over by a resize, and not exceeded', async () => {
    const own = { ...minimal, size: SIZE };
    const backend = customBackend(own);
    own.size = 2 * SIZE;
    expect(backend.size).toBe(SIZE);
    await backend.resize!();
    expect(backend.size).toBe(2 * SIZE);
    await backend.resize!(512);
    expect(backend.size).toBe(512);
    await expect(backend.resize!(2 * SIZE + 1)).rejects.toThrow(
      `The custom backend has ${2 * SIZE} bytes, fewer than ${2 * SIZE + 1}`,
    );
    own.size = 1.5;
    await expect(backend.resize!()).rejects.toThrow('size of a backend is an integer of at least 512 bytes');
    expect(backend.size).toBe(512);
  });

  test('is told, but for one that makes no sense, and after the end', () => {
    let changed = nothing;
    const own = { ...minimal, size: SIZE, onSizeChange: (call: () => void) => (changed = call) };
    const errors: Error[] = [];
    const backend = customBackend(own, { onError: (error) => errors.push(error) });
    const sizes: number[] = [];
    backend.onSizeChange!((size) => sizes.push(size));
    own.size = 1024;
    changed();
    own.size = -1;
    changed();
    expect(sizes).toEqual([1024]);
    expect(errors).toMatchObject([{ code: 'ERR_OUT_OF_RANGE' }]);
    backend.close();
    own.size = 4096;
    changed();
    expect(sizes).toEqual([1024]);
    expect(() => customBackend({ ...minimal, onSizeChange: 1 } as never)).toThrow(
      'onSizeChange of a backend is a method, got number',
    );
  });
});
