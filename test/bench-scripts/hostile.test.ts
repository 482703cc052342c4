// SPDX-License-Identifier: MIT
/** Runs two attacks of `npm run bench:hostile` over dist/. What they cost in memory is tested, how long anything takes is not. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { transpiled } from '../support/transpiled';

const built = transpiled('bench', 'lib', 'lib/nvme/spec');

test('gigabytes of reads by message, none of which is served, and messages that are sent in half', () => {
  const file = join(built, 'rows.json');
  const script = join(built, 'bench', 'hostile.js');
  const { stdout, stderr } = spawnSync(
    process.execPath,
    [script, '--attacks', 'reads,half', '--json', file],
    {
      encoding: 'utf8',
    },
  );
  expect(stderr).toBe('');
  const rows = JSON.parse(readFileSync(file, 'utf8')) as { step: string; memory: number }[];
  expect(rows.length).toBe(5);
  for (const { step } of rows) expect(stdout).toContain(step);
  expect(rows.filter(({ memory }) => !(memory < 256 << 20))).toEqual([]);
}, 60_000);

test('an attack that does not exist', () => {
  const { status, stderr } = spawnSync(
    process.execPath,
    [join(built, 'bench', 'hostile.js'), '--attacks', 'charm'],
    {
      encoding: 'utf8',
    },
  );
  expect(status).toBe(1);
  expect(stderr).toContain('There is no attack charm; there are ranges,');
});
