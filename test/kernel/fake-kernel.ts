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
  run(body: string, faults: FakeFaults = {}): { said: unknown[]; asked: string[] } {
    const { sys, dev, proc, run } = this.system;
    const outcome = runScript(
      `const { openPciIn } = load('kernel/open');
       const say = (value) => console.log(JSON.stringify(value, (_, of) => (typeof of === 'bigint' ? '0x' + of.toString(16) : of)));
       const open = (options, name = '${ADDRESS}') => openPciIn(${JSON.stringify({ sys, dev, proc, run })}, name, options);
       const failure = (action) => action.then(() => say('it did not fail'), ({ code, message }) => say({ code, message }));
       ${body}`,
      this.environment(faults),
    );
    expect(outcome).toEqual(cleanEnd(outcome.stdout));
    return { said: lines(outcome.stdout).map((line) => JSON.parse(line) as unknown), asked: this.asked() };
  }

  /** Variables of a process that is to have this kernel and no device of this system. What it asks is written down anew. */
  environment({ fail = '', lacks = '' }: FakeFaults = {}): Record<string, string> {
    this.system.write('asked', '');
    return {
      ...this.#library.environment,
      VFIO_USER_SYSTEM_ROOT: this.system.root,
      FAKE_VFIO_LOG: join(this.system.root, 'asked'),
      FAKE_VFIO_FAIL: fail,
      FAKE_VFIO_LACKS: lacks,
    };
  }

  /** What the kernel was asked since then. */
  asked(): string[] {
    return lines(this.system.read('asked'));
  }

  [Symbol.dispose](): void {
    this.system.remove();
    this.#library[Symbol.dispose]();
  }
}

function lines(text: string): string[] {
  return text.split('\n').filter((line) => line !== '');
}
