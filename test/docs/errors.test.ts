// SPDX-License-Identifier: MIT
/** docs/errors.md against the code: every code, the exit codes, the texts, the names of NVMe's status codes. */
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { exitCodeOf, reportFailure } from '../../lib/cli/failure';
import { VfioUserError, invalidArgument, outOfRange, type VfioUserErrorCode } from '../../lib/errors';
import { statusText } from '../../lib/nvme';
import { ROOT, readPage } from './markdown';

const LIB = join(ROOT, 'lib');
const { text, anchors, fences } = readPage('docs/errors.md');

/** The codes that the type lists. */
const codes = [...readFileSync(join(LIB, 'errors.ts'), 'utf8').matchAll(/^ {2}\| '(\w+)'/gm)].map(
  ([, code]) => code as VfioUserErrorCode,
);

/** Cells of the rows of the first table whose header begins with a cell. */
function table(header: string): string[][] {
  const lines = text.split('\n');
  const first = lines.findIndex((line) => new RegExp(`^\\| ${header} +\\|`).test(line));
  expect(first).toBeGreaterThan(0);
  const length = lines.slice(first).findIndex((line) => !line.startsWith('|'));
  const rows = lines.slice(first + 2, first + length);
  return rows.map((line) =>
    line
      .slice(1, -1)
      .split('|')
      .map((cell) => cell.trim()),
  );
}

test('every code has a row and a chapter, and no other is named', () => {
  expect(codes.length).toBeGreaterThan(10);
  const link = (code: string): string => `[\`${code}\`](#${code.toLowerCase()})`;
  expect(table('code').map(([cell]) => cell)).toEqual(codes.map(link));
  expect(codes.filter((code) => !anchors.has(code.toLowerCase()))).toEqual([]);
  const nodes = [invalidArgument(''), outOfRange('')].map(({ code }) => code);
  const named = new Set(text.match(/\bERR_\w+/g));
  expect([...named].sort()).toEqual([...codes, ...nodes].sort());
});

test('exit codes are those of the tool', () => {
  const told = table('code').map((cells) => Number(cells.at(-1)));
  expect(told).toEqual(codes.map((code) => exitCodeOf(new VfioUserError(code, ''))));
  const declared = /ExitCode = \{([^}]*)\}/.exec(readFileSync(join(LIB, 'cli', 'failure.ts'), 'utf8'))?.[1];
  const statuses = [...(declared ?? '').matchAll(/\d+/g)].map(Number);
  expect(statuses).toEqual(expect.arrayContaining([0, exitCodeOf(outOfRange('')), ...told]));
  const numbers = table('exit code').map(([cell]) => Number(cell));
  expect(numbers.filter((number) => !Number.isNaN(number))).toEqual(statuses);
});

test('the texts are those of the code', () => {
  const sources = readdirSync(LIB, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => readFileSync(join(LIB, name), 'utf8'))
    .join('\n')
    .replace(/['`] \+\s*['`]/g, ''); // Strings that are put together.
  // What is between the parts that differ; an errno with its system call is filled in too.
  const pieces = fences
    .filter(({ language }) => language === 'text')
    .flatMap((fence) => fence.text.split(/<[^>]*>|[:;]|\w+ failed with E\w+|\bE[A-Z]{3,}\b/))
    .map((piece) => piece.trim())
    .filter((piece) => /\w{3}/.test(piece));
  expect(pieces.length).toBeGreaterThan(30);
  expect(pieces.filter((piece) => !sources.includes(piece))).toEqual([]);
});

test('status codes have the names that errors have', () => {
  const told = table('`sct`');
  expect(told.length).toBeGreaterThan(10);
  for (const [sct, sc = '', name = ''] of told) {
    const real = statusText(Number(sct), parseInt(sc, 16));
    expect([sct, sc, real]).toEqual([sct, sc, expect.stringContaining(name)]);
  }
});

test('what the page says of stack and line', () => {
  const write = jest.spyOn(process.stderr, 'write').mockReturnValue(true);
  const before = process.exitCode;
  try {
    reportFailure(new VfioUserError('ERR_VFIO_USER_BUSY', 'it is busy'));
    expect(write.mock.calls).toEqual([['vfio-user: it is busy\n']]);
  } finally {
    process.exitCode = before;
    write.mockRestore();
  }
});
