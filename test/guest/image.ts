// SPDX-License-Identifier: MIT
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, realpathSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { CpioArchive } from './cpio';

/** What guest scripts use beside the commands of busybox, and the packages of Debian that have it. */
export const TOOLS: Readonly<Record<string, readonly string[]>> = {
  'busybox-static': ['busybox'],
  'btrfs-progs': ['btrfs', 'mkfs.btrfs'],
  e2fsprogs: ['mkfs.ext4', 'e2fsck'],
  fio: ['fio'],
  'kexec-tools': ['kexec'],
  kmod: ['modprobe', 'kmod'],
  'nvme-cli': ['nvme'],
  pciutils: ['lspci', 'setpci'],
  'util-linux': ['blkdiscard', 'fstrim'],
  xfsprogs: ['mkfs.xfs', 'xfs_repair'],
};

/** Modules of the kernel that are loaded by guest scripts, or by init. */
const MODULES = ['xfs', 'btrfs', 'vfio-pci', 'vfio_iommu_type1', 'virtio_blk', 'virtio_iommu'];

const FOLDERS = ['usr/sbin', 'usr/bin'];
const LIBRARIES = ['usr/lib/x86_64-linux-gnu', 'usr/lib/x86_64-linux-gnu/ceph', 'usr/lib'];
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
 * The initramfs that all guests have: busybox, the tools with their libraries, and modules. What a guest does is behind it,
 * in an archive of its own.
 *
 * @param root folder of an unpacked Debian
 * @param modules folder of the kernel's modules, `lib/modules/VERSION`; undefined for a kernel that has all built in
 */
export function guestImage(root: string, modules: string | undefined): Buffer {
  const archive = new CpioArchive();
  for (const folder of ['/dev', '/proc', '/sys', '/tmp', '/run', '/mnt', '/etc', '/root'])
    archive.directory(folder);
  for (const folder of ['bin', 'sbin', 'lib', 'lib64'])
    archive.directory(`/usr/${folder}`).link(`/${folder}`, `usr/${folder}`);
  archive.characterDevice('/dev/console', 5, 1).characterDevice('/dev/null', 1, 3);
  archive.file('/etc/passwd', 'root:x:0:0:root:/root:/bin/sh\n').file('/etc/group', 'root:x:0:\n');
  new Tools(root, archive).add(Object.values(TOOLS).flat());
  const configuration = join(root, 'etc/mke2fs.conf');
  if (existsSync(configuration)) archive.file('/etc/mke2fs.conf', readFileSync(configuration));
  if (modules !== undefined) addModules(root, modules, archive);
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
    const busybox = join(this.#root, 'usr/bin/busybox');
    for (const applet of execFileSync(busybox, ['--list-full'], { encoding: 'utf8' }).trim().split('\n')) {
      // Under /usr, where the links of the old folders lead to.
      const path = applet.startsWith('usr/') ? applet : `usr/${applet}`;
      if (
        FOLDERS.includes(dirname(path)) &&
        !FOLDERS.some((folder) => this.#added.has(join(folder, basename(path))))
      )
        this.#archive.link(`/${path}`, '/usr/bin/busybox');
    }
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

/** Adds modules with all that they need; init makes the index of them. */
function addModules(root: string, folder: string, archive: CpioArchive): void {
  const version = basename(folder);
  const [loader = '', ...options] = foreignCommand(root, join(root, 'usr/bin/kmod'), 'depmod');
  const base = dirname(dirname(dirname(folder)));
  const index = execFileSync(loader, [...options, '--dry-run', '--basedir', base, version], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
    maxBuffer: 2 ** 30,
  });
  // Lines of modules.dep: a module, and those that it needs.
  const needs = new Map<string, string[]>();
  for (const [, file = '', others = ''] of index.matchAll(/^(kernel\/\S+): ?(.*)$/gm))
    needs.set(moduleName(file), [file, ...others.split(' ').filter((other) => other !== '')]);
  // What is not there is built in.
  const files = new Set(MODULES.flatMap((name) => needs.get(moduleName(name)) ?? []));
  for (const file of files)
    archive.file(`/usr/lib/modules/${version}/${file}`, readFileSync(join(folder, file)));
  for (const name of ['modules.builtin', 'modules.order']) {
    if (existsSync(join(folder, name)))
      archive.file(`/usr/lib/modules/${version}/${name}`, readFileSync(join(folder, name)));
  }
}

function moduleName(path: string): string {
  return basename(path)
    .replace(/\.ko.*$/, '')
    .replaceAll('-', '_');
}
