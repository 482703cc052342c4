// SPDX-License-Identifier: MIT
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';

const ROOT = join(__dirname, '..');

/**
 * The built package, for tests that run it in processes and threads of their own. A test that imports this fails when
 * `dist/` is older than `lib/`, rather than test what the code was before.
 */
export const dist = builtFrom(join(ROOT, 'lib'), join(ROOT, 'dist'));

/**
 * The directory `output`, which `npm run build:ts` made of the directory `sources`.
 *
 * @throws Error when it is missing, or when a source was changed after the build
 */
export function builtFrom(sources: string, output: string): string {
  const built = statSync(join(output, '.tsbuildinfo'), { throwIfNoEntry: false });
  if (built === undefined) throw new Error(`${output} is not built. Run \`npm run build:ts\`.`);
  for (const name of readdirSync(sources, { recursive: true, encoding: 'utf8' })) {
    if (!name.endsWith('.ts') || statSync(join(sources, name)).mtimeMs <= built.mtimeMs) continue;
    throw new Error(`${output} is older than ${join(sources, name)}. Run \`npm run build:ts\`.`);
  }
  return output;
}
