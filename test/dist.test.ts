// SPDX-License-Identifier: MIT
import { mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { builtFrom } from './dist';

const root = mkdtempSync(join(tmpdir(), 'dist-test-'));
const [lib, output] = [join(root, 'lib'), join(root, 'dist')];

/** Writes a file that was last modified at this second. */
function write(file: string, second: number): void {
  writeFileSync(file, '');
  utimesSync(file, second, second);
}

beforeAll(() => {
  mkdirSync(join(lib, 'room'), { recursive: true });
  mkdirSync(output);
  write(join(lib, 'room', 'thing.ts'), 100);
});
afterAll(() => {
  rmSync(root, { recursive: true });
});

test('a package that was never built is told', () => {
  expect(() => builtFrom(lib, output)).toThrow(`${output} is not built. Run \`npm run build:ts\`.`);
});

test('a package that was built after the last change is used', () => {
  write(join(output, '.tsbuildinfo'), 100);
  expect(builtFrom(lib, output)).toBe(output);
});

test('a package that is older than one of its sources is told, and which', () => {
  write(join(output, '.tsbuildinfo'), 99);
  expect(() => builtFrom(lib, output)).toThrow(
    `${output} is older than ${join(lib, 'room', 'thing.ts')}. Run \`npm run build:ts\`.`,
  );
});

test('only sources count', () => {
  write(join(output, '.tsbuildinfo'), 100);
  write(join(lib, 'notes.txt'), 200);
  expect(builtFrom(lib, output)).toBe(output);
});
