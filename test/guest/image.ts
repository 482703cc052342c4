// SPDX-License-Identifier: MIT
import { execFileSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { CpioArchive } from './cpio';

/**
 * What guest scripts and blktests use beside the commands of busybox, and the packages of Debian that have it. The names
 * of programs are links to them where Debian has alternatives.
 */
export const TOOLS: Readonly<Record<string, readonly string[]>> = {
  bash: ['bash'],
  bc: ['bc'],
  bsdextrautils: ['column', 'hexdump'],
  'busybox-static': [],
  'btrfs-progs': ['btrfs', 'mkfs.btrfs'],
  coreutils: [
    ...[
      'basename',
      'cat',
      'cp',
      'cut',
      'date',
      'dd',
      'dirname',
      'expr',
      'head',
      'mktemp',
      'mv',
      'nproc',
      'numfmt',
      'od',
    ],
    ...[
      'readlink',
      'realpath',
      'rm',
      'seq',
      'sort',
      'stat',
      'tail',
      'tee',
      'timeout',
      'tr',
      'truncate',
      'uniq',
      'wc',
      'yes',
    ],
  ],
  diffutils: ['cmp', 'diff'],
  e2fsprogs: ['mkfs.ext4', 'e2fsck'],
  fdisk: ['sfdisk'],
  findutils: ['find', 'xargs'],
  fio: ['fio'],
  gawk: ['gawk'],
  grep: ['grep'],
  gzip: ['gzip', 'zgrep'],
  'kexec-tools': ['kexec'],
  kmod: ['modprobe', 'kmod'],
  'libc-bin': ['getconf'],
  'nvme-cli': ['nvme'],
  parted: ['parted'],
  pciutils: ['lspci', 'setpci'],
  sed: ['sed'],
  udev: ['udevadm'],
  'util-linux': ['blkdiscard', 'blkzone', 'blockdev', 'findmnt', 'fstrim', 'losetup', 'lsblk', 'taskset'],
  xfsprogs: ['mkfs.xfs', 'xfs_io', 'xfs_repair'],
};

/** Modules of the kernel that are loaded by guest scripts, or by init. */
const MODULES = ['xfs', 'btrfs', 'vfio-pci', 'vfio_iommu_type1', 'virtio_blk', 'virtio_iommu'];

const FOLDERS = ['usr/sbin', 'usr/bin'];
/** Where libraries are; some programs name a folder of their own, which is not below this machine's root. */
const LIBRARIES = ['', '/ceph', '/systemd'].map((folder) => `usr/lib/x86_64-linux-gnu${folder}`);
const LOADER = 'usr/lib64/ld-linux-x86-64.so.2';

/**
 * Runs a program of an unpacked Debian with its own libraries, which this machine's may be older than.
 * @param name is what it is told to be called
 */
export function foreignCommand(root: string, program: string, name = program): string[] {
  const path = LIBRARIES.map((folder) => join(root, folder)).join(':');
  return [join(root, LOADER), '--library-path', path, '--argv0', name, program];
}

/**
 * What is in the initramfs of all guests: the folders, busybox, and modules with their index.
 *
 * @param root folder of an unpacked Debian
 * @param modules folder of the kernel's modules, `lib/modules/VERSION`; undefined for a kernel that has all built in
 */
export function baseImage(root: string, modules: string | undefined): Buffer {
  const archive = new CpioArchive();
  for (const folder of ['/dev', '/proc', '/sys', '/tmp', '/run', '/mnt', '/etc', '/root'])
    archive.directory(folder);
  for (const folder of ['bin', 'sbin', 'lib', 'lib64'])
    archive.directory(`/usr/${folder}`).link(`/${folder}`, `usr/${folder}`);
  archive.characterDevice('/dev/console', 5, 1).characterDevice('/dev/null', 1, 3);
  archive.file('/etc/passwd', 'root:x:0:0:root:/root:/bin/sh\n').file('/etc/group', 'root:x:0:\n');
  const busybox = join(root, 'usr/bin/busybox');
  archive.file('/usr/bin/busybox', readFileSync(busybox), 0o755);
  for (const applet of execFileSync(busybox, ['--list-full'], { encoding: 'utf8' }).trim().split('\n')) {
    // Under /usr, where the links of the old folders lead to.
    const path = applet.startsWith('usr/') ? applet : `usr/${applet}`;
    if (FOLDERS.includes(dirname(path)) && basename(path) !== 'busybox')
      archive.link(`/${path}`, '/usr/bin/busybox');
  }
  copy(join(root, 'etc/mke2fs.conf'), '/etc/mke2fs.conf', archive);
  if (modules !== undefined) addModules(root, modules, archive);
  return archive.finish();
}

/**
 * The tools that scripts name, with their libraries; they take the place of busybox's commands. An emulated processor unpacks the
 * initramfs, 10 MB in a second, and fio comes with 57 MB of clients of network storage.
 *
 * @param scripts texts of the scripts; undefined for all tools
 */
export function toolsImage(root: string, scripts?: readonly string[]): Buffer {
  const words = new Set(scripts?.join('\n').match(/[\w.-]+/g));
  const names = Object.values(TOOLS)
    .flat()
    .filter((name) => scripts === undefined || words.has(name));
  const archive = new CpioArchive();
  new Tools(root, archive).add(names);
  return archive.finish();
}

/** Programs, with the libraries that they ask for. */
class Tools {
  readonly #root: string;
  readonly #archive: CpioArchive;
  readonly #added = new Set<string>();

  constructor(root: string, archive: CpioArchive) {
    this.#root = root;
    this.#archive = archive;
  }

  add(names: readonly string[]): void {
    for (const name of names) {
      const path = FOLDERS.map((folder) => join(folder, name)).find((found) =>
        existsSync(join(this.#root, found)),
      );
      if (path === undefined)
        throw new Error(
          `there is no ${name} in ${this.#root}: which packages are to be there, docs/contributing.md tells`,
        );
      this.#program(path);
    }
    // The loader and the C library come with the first program; a thread that is cancelled asks for this one by itself.
    this.#file('usr/lib/x86_64-linux-gnu/libgcc_s.so.1');
  }

  #program(path: string): void {
    this.#file(path);
    const [loader = '', ...options] = foreignCommand(this.#root, join(this.#root, path));
    let listed: string;
    try {
      listed = execFileSync(loader, ['--list', ...options], {
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'ignore'],
      });
    } catch {
      return; // It is linked statically.
    }
    for (const [, library = ''] of listed.matchAll(/=> (\/\S+)/g))
      this.#file(library.slice(this.#root.length + 1));
    this.#file(LOADER);
  }

  /** Adds a file under the name that it is asked for by. */
  #file(path: string): void {
    if (this.#added.has(path)) return;
    this.#added.add(path);
    this.#archive.file(`/${path}`, readFileSync(realpathSync(join(this.#root, path))), 0o755);
  }
}

/** Adds modules with all that they need, and an index of them. */
function addModules(root: string, folder: string, archive: CpioArchive): void {
  const version = basename(folder);
  const [loader = '', ...options] = foreignCommand(root, join(root, 'usr/bin/kmod'), 'depmod');
  const depmod = (base: string, ...more: string[]): string =>
    execFileSync(loader, [...options, ...more, '--basedir', base, version], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
      maxBuffer: 2 ** 30,
    });
  const base = dirname(dirname(dirname(folder)));
  // Lines of modules.dep: a module, and those that it needs.
  const needs = new Map<string, string[]>();
  for (const [, file = '', others = ''] of depmod(base, '--dry-run').matchAll(/^(kernel\/\S+): ?(.*)$/gm))
    needs.set(moduleName(file), [file, ...others.split(' ').filter((other) => other !== '')]);
  // What is not there is built in.
  const files = new Set(MODULES.flatMap((name) => needs.get(moduleName(name)) ?? []));
  // The index of these alone is made here: the guest would take longer for it than for all else of its boot.
  const partial = mkdtempSync(join(tmpdir(), 'guest-modules-'));
  try {
    const target = join(partial, 'lib/modules', version);
    for (const file of [...files, 'modules.builtin', 'modules.builtin.modinfo', 'modules.order']) {
      if (!existsSync(join(folder, file))) continue;
      mkdirSync(dirname(join(target, file)), { recursive: true });
      copyFileSync(join(folder, file), join(target, file));
    }
    depmod(partial);
    archive.tree(`/usr/lib/modules/${version}`, target);
  } finally {
    rmSync(partial, { recursive: true });
  }
  copy(join(base, 'boot', `config-${version}`), `/boot/config-${version}`, archive);
}

/** Adds a file that may be missing. */
function copy(from: string, to: string, archive: CpioArchive): void {
  if (existsSync(from)) archive.file(to, readFileSync(from));
}

function moduleName(path: string): string {
  return basename(path)
    .replace(/\.ko.*$/, '')
    .replaceAll('-', '_');
}
