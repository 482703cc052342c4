// SPDX-License-Identifier: MIT
import { spawnSync } from 'node:child_process';
import { dirname } from 'node:path';
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
