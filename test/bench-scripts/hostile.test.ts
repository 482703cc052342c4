// SPDX-License-Identifier: MIT
/** Runs two attacks of `npm run bench:hostile` over dist/. What they cost in memory is tested, how long anything takes is not. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import ts from 'typescript';
import { dist } from '../dist';

const ROOT = dirname(dist);
let built: string;

/** The scripts as `tsc -p bench` would put them, where the package finds itself by its name. */
beforeAll(() => {
  mkdirSync(join(ROOT, 'build'), { recursive: true });
  built = mkdtempSync(join(ROOT, 'build', 'hostile-test-'));
  for (const room of ['bench', 'lib', 'lib/nvme/spec']) {
    for (const entry of readdirSync(join(ROOT, room), { withFileTypes: true })) {
      if (!entry.isFile() || !entry.name.endsWith('.ts')) continue;
      const { outputText } = ts.transpileModule(readFileSync(join(ROOT, room, entry.name), 'utf8'), {
        compilerOptions: { module: ts.ModuleKind.CommonJS, target: ts.ScriptTarget.ES2023 },
      });
      const to = join(built, room, entry.name.replace(/\.ts$/, '.js'));
      mkdirSync(dirname(to), { recursive: true });
      writeFileSync(to, outputText);
    }
  }
});
afterAll(() => {
  rmSync(built, { recursive: true, force: true });
});

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
