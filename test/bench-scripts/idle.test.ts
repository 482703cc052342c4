// SPDX-License-Identifier: MIT
/** Runs `npm run bench:idle` over dist/ with few controllers. That it measures is tested, what they cost is not. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { transpiled } from '../support/transpiled';

const built = transpiled('bench', 'lib', 'lib/nvme/spec');
const script = join(built, 'bench', 'idle.js');

test('measures each number of controllers', () => {
  const file = join(built, 'rows.json');
  const args = ['--controllers', '1,3', '--seconds', '1', '--json', file];
  const { stdout, stderr } = spawnSync(process.execPath, [script, ...args], { encoding: 'utf8' });
  expect(stderr).toBe('');
  const rows = JSON.parse(readFileSync(file, 'utf8')) as { controllers: number; processor: number }[];
  expect(rows.map(({ controllers }) => controllers)).toEqual([1, 3]);
  for (const { processor } of rows) {
    expect(processor).toBeGreaterThan(0);
    expect(stdout).toContain(`${(processor * 100).toFixed(1)} %`);
  }
});

test.each([
  [['--controllers', '1,x'], '--controllers takes numbers from 1 on, got x'],
  [['--seconds', '0'], '--seconds takes numbers from 1 on, got 0'],
])('%j is refused', (args, message) => {
  const { status, stderr } = spawnSync(process.execPath, [script, ...args], { encoding: 'utf8' });
  expect(status).toBe(1);
  expect(stderr.trim()).toBe(message);
});
