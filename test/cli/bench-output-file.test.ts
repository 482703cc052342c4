// SPDX-License-Identifier: MIT
import { mkdirSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { OutputFile } from '../../lib/cli/output-file';
import { UsageError } from '../../lib/cli/options';
import { Scratch } from './run-cli';

let scratch: Scratch;
beforeEach(() => {
  scratch = new Scratch();
});
afterEach(() => {
  scratch.remove();
});

test('a look at a path changes nothing; then the file is written, and nothing but it', () => {
  const path = scratch.file('new.html');
  const file = new OutputFile('report', path);
  expect(scratch.entries()).toEqual([]);
  file.write('text');
  expect(scratch.entries()).toEqual(['new.html']);
  expect(readFileSync(path, 'utf8')).toBe('text');
});

test('a file that is there is replaced, in one step', () => {
  const path = scratch.file('old');
  writeFileSync(path, 'a long text of before');
  const file = new OutputFile('report', path);
  expect(readFileSync(path, 'utf8')).toBe('a long text of before');
  file.write('new');
  expect(readFileSync(path, 'utf8')).toBe('new');
});

test('a symbolic link stays one', () => {
  mkdirSync(scratch.file('elsewhere'));
  writeFileSync(scratch.file('elsewhere/file'), 'old');
  symlinkSync('elsewhere/file', scratch.file('link'));
  new OutputFile('report', scratch.file('link')).write('new');
  expect(readFileSync(scratch.file('elsewhere/file'), 'utf8')).toBe('new');
  expect(scratch.entries().sort()).toEqual(['elsewhere', 'link']);
  expect(readdirSync(scratch.file('elsewhere'))).toEqual(['file']);
});

test('a write that fails leaves what was there, and no part of the new', () => {
  const path = scratch.file('file');
  writeFileSync(path, 'old');
  const file = new OutputFile('report', path);
  // A directory cannot be replaced by a file.
  rmSync(path);
  mkdirSync(path);
  writeFileSync(scratch.file('file/inside'), '');
  expect(() => {
    file.write('new');
  }).toThrow(expect.objectContaining({ code: 'EISDIR' }) as Error);
  expect(scratch.entries()).toEqual(['file']);
});

test.each<[string, (path: string) => string, string]>([
  ['nothing', () => '', "'': it names a directory, not a file"],
  ['a directory', (path) => path, '<path>: it names a directory, not a file'],
  ['what can only be a directory', (path) => `${path}/x/`, '<path>/x/: it names a directory, not a file'],
  ['no directory to be in', (path) => `${path}/x/y`, '<path>/x/y: there is no directory <path>/x'],
  ['a file below a file', () => '/etc/passwd/x/y', '/etc/passwd/x/y: there is no directory /etc/passwd/x'],
  ['a file in a file', () => '/etc/passwd/x', '/etc/passwd/x: there is no directory /etc/passwd'],
  ['a device', () => '/dev/null', '/dev/null: it is there, but is no regular file'],
])('%s is refused', (_, pathIn, message) => {
  const path = pathIn(scratch.path);
  const line = `--report cannot write ${message.replaceAll('<path>', scratch.path)}`;
  expect(() => new OutputFile('report', path)).toThrow(new UsageError(line));
  expect(scratch.entries()).toEqual([]);
});

test('a directory where nobody may make a file is refused', () => {
  // Not even root may make files here, though the permissions seem to allow it.
  expect(() => new OutputFile('hgrm', '/proc/self/fdinfo/x')).toThrow(
    new UsageError(
      '--hgrm cannot write /proc/self/fdinfo/x: no file can be made in /proc/self/fdinfo (ENOENT)',
    ),
  );
});
