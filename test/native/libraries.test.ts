// SPDX-License-Identifier: MIT
/** What the prebuilt addons need of a system's libraries: no more than Node.js itself. */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

const PREBUILDS = join(__dirname, '..', '..', 'prebuilds');

/** Newest versions that the Node.js of nodejs.org needs: BUILDING.md of Node.js 20, and `readelf -V` of its binaries. */
const NEWEST: Readonly<Record<string, string>> = {
  GLIBC: '2.28',
  GLIBCXX: '3.4.21',
  CXXABI: '1.3.9',
  GCC: '4.2.0',
};

/** Prebuilt addons of all architectures; there are none before `npm run build:prebuilt`. */
const addons = existsSync(PREBUILDS)
  ? readdirSync(PREBUILDS, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.node'))
  : [];

/** Names such as `GLIBC_2.28` under "Version needs section". */
function neededVersions(file: string): string[] {
  const { stdout, status } = spawnSync('readelf', ['--version-info', '--wide', file], { encoding: 'utf8' });
  expect(status).toBe(0);
  const needs = stdout.slice(stdout.indexOf('Version needs section'));
  return [...needs.matchAll(/Name: (\w+_[\d.]+)/g)].map(([, name = '']) => name);
}

function newer(version: string, than: string): boolean {
  return version.localeCompare(than, 'en', { numeric: true }) > 0;
}

(addons.length > 0 ? test : test.skip)('prebuilt addons load wherever Node.js does', () => {
  for (const addon of addons) {
    const versions = neededVersions(join(PREBUILDS, addon));
    expect(versions.length).toBeGreaterThan(3);
    const tooNew = versions.filter((version) => {
      const [library = '', number = ''] = version.split('_');
      return newer(number, NEWEST[library] ?? '0');
    });
    expect({ addon, tooNew }).toEqual({ addon, tooNew: [] });
  }
});

test('versions are compared by number', () => {
  expect(newer('2.4', '2.28')).toBe(false);
  expect(newer('2.33', '2.28')).toBe(true);
  expect(newer('3.4.29', '3.4.21')).toBe(true);
});
