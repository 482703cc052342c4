// SPDX-License-Identifier: MIT
/**
 * What all guests have in common, made before the tests: QEMU, a kernel, and an initramfs. Each may be given by the
 * environment; what is not comes from packages of Debian (docs/contributing.md).
 */
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { RELEASE, debianRoot } from './debian';
import { TOOLS, baseImage, foreignCommand } from './image';

export default function prepare(): void {
  const { env } = process;
  if (process.arch !== 'x64')
    throw new Error(`Guests and their tools are x86-64, and this is ${process.arch}`);
  for (const name of [
    'QEMU_BINARY',
    'QEMU_KERNEL',
    'VFIO_KERNEL',
    'GUEST_MODULES',
    'GUEST_ROOT',
    'BLKTESTS_DIR',
  ]) {
    const path = env[name];
    if (path !== undefined && !existsSync(path)) throw new Error(`${name} is ${path}, which does not exist`);
  }
  const packages = ['dash', ...Object.keys(TOOLS)];
  if (env['QEMU_BINARY'] === undefined) packages.push('qemu-system-x86');
  // Not that of the backports.
  if (env['QEMU_KERNEL'] === undefined) packages.push(`linux-image-cloud-amd64/${RELEASE}`);
  const root = (env['GUEST_ROOT'] ??= debianRoot(packages));

  const folder = mkdtempSync(join(tmpdir(), 'guest-'));
  process.once('exit', () => {
    rmSync(folder, { recursive: true });
  });
  env['QEMU_BINARY'] ??= qemu(root, folder);
  if (env['QEMU_KERNEL'] === undefined) {
    const [version] = readdirSync(join(root, 'lib/modules'));
    if (version === undefined) throw new Error(`there is no kernel in ${root}: set QEMU_KERNEL`);
    env['QEMU_KERNEL'] = join(root, 'boot', `vmlinuz-${version}`);
    env['GUEST_MODULES'] = join(root, 'lib/modules', version);
  }
  env['GUEST_IMAGE'] = join(folder, 'guest.cpio');
  writeFileSync(env['GUEST_IMAGE'], baseImage(root, env['GUEST_MODULES']));
}

/** A script that runs the QEMU of an unpacked Debian. */
function qemu(root: string, folder: string): string {
  const firmware = ['usr/share/qemu', 'usr/share/seabios', 'usr/lib/ipxe/qemu'];
  const words = [
    ...foreignCommand(root, join(root, 'usr/bin/qemu-system-x86_64')),
    ...firmware.flatMap((name) => ['-L', join(root, name)]),
  ];
  const modules = join(root, 'usr/lib/x86_64-linux-gnu/qemu');
  const script = join(folder, 'qemu');
  const command = words.map((word) => `'${word}'`).join(' ');
  writeFileSync(script, `#!/bin/sh\nQEMU_MODULE_DIR='${modules}' exec ${command} "$@"\n`, { mode: 0o755 });
  return script;
}
