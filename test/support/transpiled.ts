// SPDX-License-Identifier: MIT
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import ts from 'typescript';
import { dist } from '../dist';

const ROOT = dirname(dist);

/**
 * The scripts of some folders, as tsc would put them under `build/`, where the package finds itself by its name: for tests
 * that run a script of the repository in a process of its own. They are removed when the tests of the file have ended.
 *
 * @param folders from the package's root, without those in them
 * @returns the folder that has the folders in it
 */
export function transpiled(...folders: string[]): string {
  mkdirSync(join(ROOT, 'build'), { recursive: true });
  const built = mkdtempSync(join(ROOT, 'build', 'scripts-'));
  for (const folder of folders) {
    for (const entry of readdirSync(join(ROOT, folder), { withFileTypes: true })) {
      if (!entry.isFile() || !/(?<!\.test|\.d)\.ts$/.test(entry.name)) continue;
      const { outputText } = ts.transpileModule(readFileSync(join(ROOT, folder, entry.name), 'utf8'), {
        compilerOptions: { module: ts.ModuleKind.CommonJS, target: ts.ScriptTarget.ES2023 },
      });
      const to = join(built, folder, entry.name.replace(/\.ts$/, '.js'));
      mkdirSync(dirname(to), { recursive: true });
      writeFileSync(to, outputText);
    }
  }
  afterAll(() => {
    rmSync(built, { recursive: true, force: true });
  });
  return built;
}
