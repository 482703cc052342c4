// SPDX-License-Identifier: MIT
import { join } from 'node:path';
import { addon } from '../../lib/native/addon';
import type * as addonModule from '../../lib/native/addon';

/** Name of the exception that a call throws; Jest realms rule out instanceof. */
function thrownBy(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    return (error as Error).name;
  }
  return 'nothing';
}

/** Parts of the addon that are objects of functions. */
const PARTS = ['nvme', 'vfio'] as const;

/** Calls a function of the addon, `nvme.NAME` for one of its part for NVMe, with anything. */
function call(name: string, values: unknown[], self?: unknown): unknown {
  const [part, inPart] = name.split('.');
  const owner = inPart === undefined ? addon() : (Reflect.get(addon(), part as string) as object);
  return Reflect.apply(Reflect.get(owner, inPart ?? name) as () => unknown, self, values);
}

/** The module, loaded anew. */
function reload(): typeof addonModule {
  jest.resetModules();
  return jest.requireActual<typeof addonModule>('../../lib/native/addon');
}

describe('loading', () => {
  afterEach(() => {
    jest.resetModules();
    jest.dontMock('node-gyp-build');
  });

  test('happens at the first call, from the root of the package', () => {
    const load = jest.fn(() => ({}));
    jest.doMock('node-gyp-build', () => load);
    const module = reload();
    expect(load).not.toHaveBeenCalled();
    module.addon();
    module.addon();
    expect(load.mock.calls).toEqual([[join(__dirname, '..', '..')]]);
  });

  test('says what to do when it fails', () => {
    jest.doMock('node-gyp-build', () => () => {
      throw new Error('No native build was found');
    });
    const module = reload();
    expect(() => module.addon()).toThrow(
      expect.objectContaining({
        code: 'ERR_VFIO_USER_ADDON',
        message: expect.stringContaining(
          'npm install-scripts approve vfio-user && npm rebuild vfio-user',
        ) as string,
        cause: expect.objectContaining({ message: 'No native build was found' }) as object,
      }),
    );
  });
});

describe('arguments that do not fit', () => {
  const junk: unknown[] = [
    undefined,
    null,
    -1,
    1.5,
    NaN,
    2 ** 60,
    // No name that bind(2) would make a file of.
    '/no-such-directory/x',
    {},
    [],
    Symbol('x'),
    10n,
    new Uint8Array(1),
  ];
  const functions = [
    ...Object.keys(addon()).filter(
      (name) => !['lostEvent', 'mappingCount', 'restoreDevices', ...PARTS].includes(name),
    ),
    ...PARTS.flatMap((part) => Object.keys(addon()[part] as object).map((name) => `${part}.${name}`)),
  ];

  test.each(functions)('%s without arguments throws a TypeError', (name) => {
    expect(thrownBy(() => call(name, []))).toBe('TypeError');
  });

  test.each(functions)('%s survives junk in every place', (name) => {
    for (const value of junk) {
      for (let place = 0; place < 8; place++) {
        const values: unknown[] = new Array<unknown>(8).fill(value);
        values[place] = 0x7fffffff;
        try {
          call(name, values);
        } catch (error) {
          expect((error as Error).name).toBe('TypeError');
        }
      }
    }
  });

  test('a foreign `this` does not matter', () => {
    expect(call('fileSize', [0x7fffffff], new Map())).toBe(-9);
    expect(call('fileSize', [0x7fffffff], undefined)).toBe(-9);
  });

  test('what the memory of messages says is checked, not followed', () => {
    const native = addon();
    const words = 7 + 253;
    const size = 4 * words + (64 << 10);
    expect(native.messageWindow(new ArrayBuffer(size - 1))).toBe(-22);
    expect(thrownBy(() => native.messageWindow(new Uint8Array(size) as unknown as ArrayBuffer))).toBe(
      'TypeError',
    );
    const memory = new ArrayBuffer(size);
    const run = native.messageWindow(memory) as () => number;
    const control = new Int32Array(memory, 0, 7);
    const EINVAL = -22;
    const EBADF = -9;
    for (const [operation, fd, length, fdCount, result] of [
      [0, 0, (64 << 10) + 1, 0, EINVAL],
      [1, 0, (64 << 10) + 1, 0, EINVAL],
      [0, 0, -1, 0, EINVAL],
      [1, 0, -1, 0, EINVAL],
      [1, 0, 0, 0, EINVAL],
      [0, 0, 1, 254, EINVAL],
      [0, 0, 1, -1, EINVAL],
      [2, 0, 1, 0, EINVAL],
      [-1, 0, 1, 0, EINVAL],
      [0, -1, 1, 0, EBADF],
      [1, -1, 1, 0, EBADF],
    ] as const) {
      control.set([operation, fd, length, -1, 0x7fffffff, fdCount, 0]);
      expect([operation, fd, length, fdCount, run()]).toEqual([operation, fd, length, fdCount, result]);
    }
  });

  test('watchers and slots that do not exist are told', () => {
    const native = addon();
    expect(native.unwatch(0x7fffffff)).toBe(-9);
    expect(native.setWatcherEvents(0x7fffffff, 1)).toBe(-9);
    expect(native.setWatcherRef(0x7fffffff, true)).toBe(-9);
    expect(native.setWatcherSpin(0x7fffffff, 1)).toBe(-9);
    expect(native.isLost(0x7fffffff)).toBe(false);
    expect(native.unmap(new ArrayBuffer(8), 0)).toBe(-22);
    expect(native.unmap(new ArrayBuffer(0), 0x7fffffff)).toBe(-22);
  });
});
