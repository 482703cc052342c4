// SPDX-License-Identifier: MIT
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { CACHE } from '../../scripts/tool';

/** The release of Debian that guests are made of; QEMU with vfio-user is in its backports. */
export const RELEASE = 'trixie';
const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';

/**
 * A folder with packages of Debian, unpacked and not installed: nothing runs while it is made, and it needs no root. It is
 * made at first use, from the mirror that this machine's apt is set up with, and kept in the cache.
 *
 * @param packages names, with `/SUITE` where it matters
 * @throws Error that says what this machine wants
 */
export function debianRoot(packages: readonly string[]): string {
  const key = createHash('sha256').update(packages.join()).digest('hex').slice(0, 12);
  const root = join(CACHE, `${RELEASE}-${key}`);
  if (existsSync(root)) return root;
  const mirror = debianMirror();
  process.stderr.write(`Preparing the guest in ${root}, once\n`);
  mkdirSync(CACHE, { recursive: true });
  // Whole or not at all, whoever else prepares the same.
  const partial = mkdtempSync(`${root}.`);
  try {
    unpack(download(mirror, packages, join(partial, 'apt')), partial);
    rmSync(join(partial, 'apt'), { recursive: true });
    if (!existsSync(root)) renameSync(partial, root);
  } finally {
    rmSync(partial, { recursive: true, force: true });
  }
  return root;
}

/** Where this machine gets Debian's packages from. */
function debianMirror(): string {
  let targets: string;
  try {
    const format = ['indextargets', '--format', '$(ORIGIN) $(CODENAME) $(REPO_URI)', 'Created-By: Packages'];
    targets = execFileSync('apt-get', format, { encoding: 'utf8' });
    execFileSync('dpkg-deb', ['--version'], { stdio: 'ignore' });
  } catch {
    throw new Error(
      'A guest is made of packages of Debian, by apt-get and dpkg-deb, which do not run here. Set GUEST_ROOT to a ' +
        'folder with an unpacked Debian, and QEMU_BINARY and QEMU_KERNEL; docs/contributing.md tells what is in it',
    );
  }
  // A security archive has another codename, such as bookworm-security, and not all packages.
  const mirror = /^Debian [a-z]+ (\S+)$/m.exec(targets)?.[1];
  if (mirror !== undefined) return mirror;
  throw new Error(
    'apt-get of this machine knows no mirror of Debian. Does `apt-get update` (as root) succeed?',
  );
}

/** Downloads packages and what they depend on, without regard to what this machine has installed. Returns their files. */
function download(mirror: string, packages: readonly string[], state: string): string[] {
  const options = {
    'Dir::Etc::sourcelist': join(state, 'sources.list'),
    'Dir::Etc::sourceparts': '/dev/null',
    'Dir::Etc::preferences': '/dev/null',
    'Dir::Etc::preferencesparts': '/dev/null',
    'Dir::State': state,
    'Dir::State::status': join(state, 'status'),
    'Dir::Cache': state,
    'APT::Architecture': 'amd64',
    'APT::Default-Release': `${RELEASE}-backports`,
    'APT::Get::List-Cleanup': 'false',
    'APT::Install-Recommends': 'false',
    // The download is ours, whoever we are.
    'APT::Sandbox::User': 'root',
    'Acquire::Languages': 'none',
    'Acquire::Retries': '3',
  };
  for (const folder of ['lists/partial', 'archives/partial'])
    mkdirSync(join(state, folder), { recursive: true });
  const signed = existsSync(KEYRING) ? ` [signed-by=${KEYRING}]` : '';
  const suites = [RELEASE, `${RELEASE}-backports`];
  writeFileSync(
    join(state, 'sources.list'),
    suites.map((suite) => `deb${signed} ${mirror} ${suite} main\n`).join(''),
  );
  writeFileSync(join(state, 'status'), '');
  const set = Object.entries(options).flatMap(([name, value]) => ['-o', `${name}=${value}`]);
  const apt = (...words: string[]): unknown =>
    execFileSync('apt-get', ['--quiet=2', ...set, ...words], { stdio: ['ignore', 'ignore', 'inherit'] });
  apt('update');
  apt('install', '--yes', '--download-only', ...packages);
  const archives = join(state, 'archives');
  return readdirSync(archives)
    .filter((name) => name.endsWith('.deb'))
    .map((name) => join(archives, name));
}

function unpack(archives: readonly string[], root: string): void {
  // Packages may name files by the old folders, which are links (Debian's UsrMerge).
  for (const folder of ['bin', 'sbin', 'lib', 'lib64']) {
    mkdirSync(join(root, 'usr', folder), { recursive: true });
    symlinkSync(`usr/${folder}`, join(root, folder));
  }
  for (const archive of archives) execFileSync('dpkg-deb', ['--extract', archive, root]);
}
