// SPDX-License-Identifier: MIT
import { spawnSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { exports } from '../package.json';
import { dist } from './dist';

jest.setTimeout(120_000);

test('the declarations that are shipped need nothing that was stripped from them', () => {
  const files = Object.values(exports).flatMap((entry) => (typeof entry === 'string' ? [] : entry.types));
  expect(files).toHaveLength(4);
  const options = '--ignoreConfig --noEmit --strict --module node20 --target es2023 --types node';
  const compiler = require.resolve('typescript/bin/tsc');
  const { stdout } = spawnSync(
    process.execPath,
    [compiler, ...options.split(' '), '--lib', 'es2023,esnext.disposable', ...files],
    { cwd: dirname(dist), encoding: 'utf8' },
  );
  expect(stdout).toBe('');
});

test('typed arrays have no parameter, which TypeScript before 5.7 does not know', () => {
  const inner = /^(bench|cli)\//;
  const files = readdirSync(dist, { recursive: true, encoding: 'utf8' });
  const declarations = files.filter((file) => file.endsWith('.d.ts') && !inner.test(file));
  expect(declarations.length).toBeGreaterThan(100);
  const wrong = declarations.filter((file) =>
    readFileSync(join(dist, file), 'utf8').includes('Array<ArrayBuffer'),
  );
  expect(wrong).toEqual([]);
});
