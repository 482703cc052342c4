// SPDX-License-Identifier: MIT
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Whether there is a C compiler, which a {@link PreloadedLibrary} needs. */
export const hasCompiler = spawnSync('cc', ['--version']).status === 0;

/** A C library that a child process loads before all others, to do what JavaScript cannot. */
export class PreloadedLibrary {
  readonly #directory = mkdtempSync(join(tmpdir(), 'vfio-user-'));
  readonly #file = join(this.#directory, 'preloaded.so');

  constructor(source: string) {
    if (!hasCompiler) throw new Error('This needs a C compiler, and `cc` does not run');
    const compiler = ['-shared', '-fPIC', '-pthread', '-x', 'c', '-', '-o', this.#file];
    const { status, stderr } = spawnSync('cc', compiler, { input: source, encoding: 'utf8' });
    if (status !== 0) throw new Error(stderr);
  }

  /** Variables for the child process. */
  get environment(): Record<string, string> {
    // Behind what is preloaded already, such as the runtime of a sanitizer.
    const { LD_PRELOAD = '' } = process.env;
    return { LD_PRELOAD: LD_PRELOAD === '' ? this.#file : `${LD_PRELOAD}:${this.#file}` };
  }

  [Symbol.dispose](): void {
    rmSync(this.#directory, { recursive: true });
  }
}
