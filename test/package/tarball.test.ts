// SPDX-License-Identifier: MIT
/** What is published: everything that is needed, and nothing else. */
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { exports } from '../../package.json';
import { tool } from '../../scripts/tool';
import { tarball } from './project';

const ROOT = join(__dirname, '..', '..');

const files = spawnSync('tar', ['--list', '--gzip', '--file', tarball()], { encoding: 'utf8' })
  .stdout.trim()
  .split('\n')
  .map((name) => name.replace(/^package\//, ''));

test('it has code with declarations, addons, what an addon is built from, documents and examples', () => {
  const folders = new Set(files.map((name) => name.split('/')[0]));
  expect([...folders].sort()).toEqual([
    'CHANGELOG.md',
    'LICENSE',
    'README.md',
    'binding.gyp',
    'dist',
    'docs',
    'examples',
    'man',
    'native',
    'package.json',
    'prebuilds',
  ]);
  for (const entry of Object.values(exports).flatMap((entry) =>
    typeof entry === 'string' ? [] : Object.values(entry),
  ))
    expect(files).toContain(entry.replace(/^\.\//, ''));
  for (const name of readdirSync(join(ROOT, 'examples'))) expect(files).toContain(`examples/${name}`);
  expect(files).toContain(`prebuilds/linux-${process.arch}/vfio-user.glibc.node`);
});

test('every module has its declarations, and no file points to sources that are not there', () => {
  const modules = files.filter((name) => name.startsWith('dist/') && name.endsWith('.js'));
  for (const name of modules) expect(files).toContain(name.replace(/js$/, 'd.ts'));
  expect(files.filter((name) => name.startsWith('dist/'))).toHaveLength(2 * modules.length);
});

test('publint has no complaint', () => {
  const publint = join(tool('publint@0.3.25'), 'src', 'cli.js');
  const { status, stdout } = spawnSync(process.execPath, [publint, tarball(), '--strict'], {
    encoding: 'utf8',
  });
  expect([status, stdout]).toEqual([0, expect.stringContaining('All good') as string]);
});

test('its types are found as its modules are', () => {
  const attw = join(tool('@arethetypeswrong/cli@0.18.5'), 'dist', 'index.js');
  // Node.js 10 and its TypeScript, which know no exports, are too old for the package.
  const options = ['--profile', 'node16', '--format', 'json', tarball()];
  const { status, stdout, stderr } = spawnSync(process.execPath, [attw, ...options], { encoding: 'utf8' });
  expect([status, stderr]).toEqual([0, '']);
  expect(JSON.parse(stdout)).toMatchObject({ analysis: { packageName: 'vfio-user' } });
});
