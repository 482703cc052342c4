// SPDX-License-Identifier: MIT
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

/** Outside of the repository: what is here stays from run to run, and may be removed at any time. */
export const CACHE = join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'vfio-user-tools');

/**
 * The directory of a package that only these scripts and the tests of the package need, which is fetched at first use:
 * other versions of Node.js, npm and TypeScript, and bundlers.
 *
 * @param spec name and exact version, as `typescript@5.4.5`
 * @param beside packages that it is to find, in the same form
 */
export function tool(spec: string, ...beside: string[]): string {
  const directory = join(CACHE, [spec, ...beside].join(',').replaceAll('/', '+'));
  if (!existsSync(directory)) {
    mkdirSync(CACHE, { recursive: true });
    // Whole or not at all, whoever else fetches the same.
    const partial = mkdtempSync(`${directory}.`);
    try {
      // Forced, as a package for another processor may be meant.
      const options = ['--ignore-scripts', '--force', '--no-audit', '--no-fund', '--loglevel', 'error'];
      execFileSync('npm', ['install', '--prefix', partial, ...options, spec, ...beside], {
        stdio: ['ignore', 'ignore', 'inherit'],
      });
      if (!existsSync(directory)) renameSync(partial, directory);
    } finally {
      rmSync(partial, { recursive: true, force: true });
    }
  }
  return join(directory, 'node_modules', spec.slice(0, spec.lastIndexOf('@')));
}
