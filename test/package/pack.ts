// SPDX-License-Identifier: MIT
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const ROOT = join(__dirname, '..', '..');

/** Packs what is built, for all tests of this folder; {@link tarball} is where. */
export default function pack(): () => void {
  if (!existsSync(join(ROOT, 'prebuilds', `linux-${process.arch}`)))
    throw new Error('there is no prebuilt addon. Run `npm run build:prebuilt`');
  const directory = mkdtempSync(join(tmpdir(), 'vfio-user-pack-'));
  const name = execFileSync(
    'npm',
    ['pack', '--silent', '--ignore-scripts', '--pack-destination', directory],
    {
      cwd: ROOT,
      encoding: 'utf8',
    },
  );
  process.env['VFIO_USER_TARBALL'] = join(directory, name.trim());
  return () => {
    rmSync(directory, { recursive: true });
  };
}
