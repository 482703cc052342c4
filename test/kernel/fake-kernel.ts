// SPDX-License-Identifier: MIT
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { cleanEnd, runScript } from '../lifetime/run-script';
import { PreloadedLibrary, hasCompiler } from '../support/preloaded-library';
import { FakeSystem, type FakeFunction } from './fake-system';

export const ADDRESS = '0000:01:00.0';

/** Skips tests that need a {@link FakeKernel} where there is no C compiler. */
export const testWithKernel = hasCompiler ? test : test.skip;

/** What of the fake is to fail, and what it lacks; see fake-vfio.c. */
export interface FakeFaults {
  readonly fail?: string;
  readonly lacks?: string;
}

/** A process whose ioctls of VFIO are answered by test/kernel/fake-vfio.c, and a system that has a device for it. */
export class FakeKernel {
  readonly system = new FakeSystem();
  readonly #library = new PreloadedLibrary(readFileSync(join(__dirname, 'fake-vfio.c'), 'utf8'));

  constructor(device: FakeFunction = {}) {
    this.system
      .add(ADDRESS, { driver: 'vfio-pci', group: 1, vfioNode: 'vfio0', ...device })
      .write('dev/vfio/vfio', '')
      .write('dev/vfio/1', '')
      .write('dev/vfio/devices/vfio0', '')
      .write('dev/iommu', '');
  }

  /**
   * Runs a script that opens the device with `open(options)`, or another with `open(options, name)`, and tells with `say(value)`.
   *
   * @returns what it has said, and what the kernel was asked: the names of ioctls, and the bytes of their structures
   */
  run(body: string, { fail = '', lacks = '' }: FakeFaults = {}): { said: unknown[]; asked: string[] } {
    const { root, sys, dev, proc, run } = this.system;
    const log = join(root, 'asked');
    this.system.write('asked', '');
    const outcome = runScript(
      `const { openPciIn } = load('kernel/open');
       const say = (value) => console.log(JSON.stringify(value, (_, of) => (typeof of === 'bigint' ? '0x' + of.toString(16) : of)));
       const open = (options, name = '${ADDRESS}') => openPciIn(${JSON.stringify({ sys, dev, proc, run })}, name, options);
       const failure = (action) => action.then(() => say('it did not fail'), ({ code, message }) => say({ code, message }));
       ${body}`,
      {
        ...this.#library.environment,
        FAKE_VFIO_LOG: log,
        FAKE_VFIO_FAIL: fail,
        FAKE_VFIO_LACKS: lacks,
      },
    );
    expect(outcome).toEqual(cleanEnd(outcome.stdout));
    const lines = (text: string): string[] => text.split('\n').filter((line) => line !== '');
    return {
      said: lines(outcome.stdout).map((line) => JSON.parse(line) as unknown),
      asked: lines(readFileSync(log, 'utf8')),
    };
  }

  [Symbol.dispose](): void {
    this.system.remove();
    this.#library[Symbol.dispose]();
  }
}
