// SPDX-License-Identifier: MIT
/**
 * What all guests have in common, made before the tests: QEMU, a kernel, and an initramfs. Each may be given by the
 * environment; what is not comes from packages of Debian (docs/contributing.md).
 */
import { chmodSync, readdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { RELEASE, debianRoot } from './debian';
import { TOOLS, foreignCommand, guestImage } from './image';

const ARCHITECTURE = 'x86_64';

export default function prepare(): void {
  const { env } = process;
  const packages = ['dash', ...Object.keys(TOOLS)];
  if (env['QEMU_BINARY'] === undefined) packages.push('qemu-system-x86');
  if (env['QEMU_KERNEL'] === undefined) packages.push(`linux-image-cloud-amd64/${RELEASE}`);
  const root = env['GUEST_ROOT'] ?? debianRoot(packages);
  env['QEMU_BINARY'] ??= qemu(root);
  if (env['QEMU_KERNEL'] === undefined) {
    const [version = ''] = readdirSync(join(root, 'lib/modules'));
    env['QEMU_KERNEL'] = join(root, 'boot', `vmlinuz-${version}`);
    env['GUEST_MODULES'] = join(root, 'lib/modules', version);
  }
  const image = join(root, 'guest.cpio');
  writeWhole(image, guestImage(root, env['GUEST_MODULES']));
  env['GUEST_IMAGE'] = image;
}

/** A script that runs the QEMU of an unpacked Debian. */
function qemu(root: string): string {
  const script = join(root, 'qemu');
  const firmware = ['usr/share/qemu', 'usr/share/seabios', 'usr/lib/ipxe/qemu'];
  const words = [
    ...foreignCommand(root, join(root, 'usr/bin', `qemu-system-${ARCHITECTURE}`)),
    ...firmware.flatMap((folder) => ['-L', join(root, folder)]),
  ];
  const modules = join(root, `usr/lib/${ARCHITECTURE}-linux-gnu/qemu`);
  const text = `#!/bin/sh\nQEMU_MODULE_DIR='${modules}' exec ${words.map((word) => `'${word}'`).join(' ')} "$@"\n`;
  writeWhole(script, text);
  chmodSync(script, 0o755);
  return script;
}

/** Writes a file that others may be reading. */
function writeWhole(path: string, contents: string | Uint8Array): void {
  writeFileSync(`${path}.${process.pid}`, contents);
  renameSync(`${path}.${process.pid}`, path);
}
