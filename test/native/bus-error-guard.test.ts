// SPDX-License-Identifier: MIT
/** The SIGBUS guard by itself, without Node.js, where threads race as they rarely do in a process. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const ROOT = join(__dirname, '..', '..');
const folder = mkdtempSync(join(tmpdir(), 'vfio-user-guard-'));
afterAll(() => {
  rmSync(folder, { recursive: true });
});

const compiler = [process.env['CXX'] ?? 'c++', 'g++'].find(
  (name) => spawnSync(name, ['--version']).status === 0,
);

/** Compiles a program; its path. */
function compile(name: string, options: readonly string[]): string {
  const program = join(folder, name);
  const { status, stderr } = spawnSync(
    compiler ?? '',
    ['-std=c++17', '-g', '-O1', '-Wall', '-Wextra', '-Werror', '-pthread', '-o', program, ...options],
    { cwd: ROOT, encoding: 'utf8' },
  );
  if (status !== 0) throw new Error(stderr);
  return program;
}

function run(program: string, ...args: string[]): { status: number | null; stdout: string; stderr: string } {
  const { status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' });
  return { status, stdout, stderr };
}

/** ThreadSanitizer does not start on every kernel: it needs certain addresses for itself. */
function hasThreadSanitizer(): boolean {
  const source = join(folder, 'nothing.cc');
  writeFileSync(source, 'int main() {}');
  try {
    return run(compile('nothing', ['-fsanitize=thread', source])).status === 0;
  } catch {
    return false;
  }
}

const RACE = join('test', 'native', 'bus-error-guard-race.cc');
const GUARD = join('native', 'bus-error-guard.cc');
const withCompiler = compiler === undefined ? test.skip : test;
const withThreadSanitizer = compiler !== undefined && hasThreadSanitizer() ? test : test.skip;
const clean = (rounds: number): object => ({
  status: 0,
  stdout: `${3 * rounds} faults repaired\n`,
  stderr: '',
});

withCompiler('a slot that changes while the handler reads it is never taken for two ranges in one', () => {
  expect(run(compile('yield', ['-DYIELD', '-Inative', RACE]), '1000')).toEqual(clean(1000));
});

withThreadSanitizer('threads that add, remove and lose ranges have no data race (ThreadSanitizer)', () => {
  const program = compile('race', ['-fsanitize=thread', '-Inative', GUARD, RACE]);
  expect(run(program, '1000')).toEqual(clean(1000));
});
