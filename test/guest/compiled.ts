// SPDX-License-Identifier: MIT
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';

const OPTIONS = ['-std=gnu11', '-Wall', '-Wextra', '-Werror', '-O1', '-static'];

/**
 * Compiles a program of this folder's `programs`, and returns the folder where it is until the tests of the file have ended. It runs
 * in a guest, whose C library is another one: so it has its own.
 */
export function compiled(program: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'guest-program-'));
  afterAll(() => {
    rmSync(folder, { recursive: true });
  });
  const source = join(__dirname, 'programs', program);
  execFileSync('cc', [...OPTIONS, '-o', join(folder, basename(program, '.c')), source]);
  return folder;
}
