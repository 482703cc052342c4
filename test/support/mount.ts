// SPDX-License-Identifier: MIT
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Mounts an empty file system of the kernel's at a folder. Returns whether it could. */
export function mount(folder: string, type: 'tmpfs' | 'ramfs', bytes = 1 << 20): boolean {
  const options = type === 'tmpfs' ? ['-o', `size=${bytes}`] : [];
  return spawnSync('mount', ['-t', type, ...options, type, folder]).status === 0;
}

/** Takes a file system away, also one that is in use. */
export function unmount(folder: string): void {
  spawnSync('umount', ['-l', folder]);
}

/** Makes a file a block device with blocks of `blockSize` bytes. Returns its path; undefined when that cannot be done here. */
function attachLoopDevice(file: string, blockSize: number): string | undefined {
  const { status, stdout } = spawnSync('losetup', ['-f', '--show', '-b', String(blockSize), file], {
    encoding: 'utf8',
  });
  return status === 0 ? stdout.trim() : undefined;
}

/** Calls `use` with a block device of `bytes` zeros, which is kept in `file`. */
export async function withLoopDevice(
  file: string,
  bytes: number,
  blockSize: number,
  use: (device: string) => void | Promise<void>,
): Promise<void> {
  writeFileSync(file, new Uint8Array(bytes));
  const device = attachLoopDevice(file, blockSize);
  if (device === undefined) throw new Error(`no loop device for ${file}`);
  try {
    await use(device);
  } finally {
    spawnSync('losetup', ['-d', device]);
  }
}

/** Whether something that only root may do works in a folder. */
function works(attempt: (folder: string) => boolean): boolean {
  const folder = mkdtempSync(join(tmpdir(), 'nvme-probe-'));
  try {
    return attempt(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Whether this process may mount a file system: root may, except in most containers. */
const mayMount = works((folder) => {
  const may = mount(folder, 'tmpfs');
  if (may) unmount(folder);
  return may;
});

const mayAttach = works((folder) => {
  const file = join(folder, 'disk');
  writeFileSync(file, new Uint8Array(65_536));
  const device = attachLoopDevice(file, 512);
  if (device !== undefined) spawnSync('losetup', ['-d', device]);
  return device !== undefined;
});

/** A test that mounts a file system. */
export const testWithMount = mayMount ? test : test.skip;
/** A test that makes a block device. */
export const testWithLoopDevice = mayAttach ? test : test.skip;
