// SPDX-License-Identifier: MIT
import { execFileSync } from 'node:child_process';
import { readFileSync, readdirSync, statSync } from 'node:fs';
import { basename, join, relative } from 'node:path';
import ts from 'typescript';
import { dist } from '../dist';
import { CpioArchive } from './cpio';

const ROOT = join(__dirname, '..', '..');
const LOADER = 'ld-linux-x86-64.so.2';
/** Programs of this repository that guests run, with what they import beside lib/. */
const PROGRAMS = [
  'test/support/device-conformance.ts',
  ...['kernel-device', 'kernel-figures', 'mediated-device', 'proxied-device', 'admin-by-hand'].map(
    (name) => `test/guest/programs/${name}.ts`,
  ),
];

/**
 * Node.js of this machine with its libraries, and this package, for a guest: `node` is in its PATH, the package in /app, where lib
 * is dist, so that programs find what they import.
 */
export function nodeFiles(): Uint8Array {
  const archive = new CpioArchive();
  archive.file('/node/node', readFileSync(process.execPath), 0o755);
  const listed = execFileSync('ldd', [process.execPath], { encoding: 'utf8' });
  for (const [path] of listed.matchAll(/\/\S+/g))
    archive.file(`/node/lib/${basename(path)}`, readFileSync(path), 0o755);
  archive.file(
    '/usr/bin/node',
    `#!/bin/sh\nexec /node/lib/${LOADER} --library-path /node/lib /node/node "$@"\n`,
    0o755,
  );
  const put = (path: string): void => {
    archive.file(`/app/${relative(ROOT, path)}`, readFileSync(path));
  };
  put(join(ROOT, 'package.json'));
  put(join(ROOT, 'build/Release/vfio_user.node'));
  for (const folder of [dist, join(ROOT, 'node_modules/node-gyp-build')])
    for (const name of readdirSync(folder, { recursive: true, encoding: 'utf8' }))
      if (/\.(js|json)$/.test(name) && statSync(join(folder, name)).isFile()) put(join(folder, name));
  archive.link('/app/lib', 'dist');
  for (const path of PROGRAMS) {
    const { outputText } = ts.transpileModule(readFileSync(join(ROOT, path), 'utf8'), {
      compilerOptions: { module: ts.ModuleKind.CommonJS, target: ts.ScriptTarget.ES2023 },
    });
    archive.file(`/app/${path.replace(/\.ts$/, '.js')}`, outputText);
  }
  return archive.finish();
}
