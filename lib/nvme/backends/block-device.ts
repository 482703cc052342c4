// SPDX-License-Identifier: MIT
import { readFileSync } from 'node:fs';

/** What Linux tells of a block device in sysfs. */
export interface BlockDeviceInfo {
  /** Bytes of the device. */
  readonly size: number;
  /** Bytes of a logical block. */
  readonly blockSize: number;
  /** Bytes of the pieces that storage is given back in; 0 when the device does not do so, or they would not read as zeros. */
  readonly deallocationUnit: number;
}

/** @param device number of the device, as `stat.rdev` has it */
export function blockDeviceInfo(device: number): BlockDeviceInfo {
  // What glibc's gnu_dev_major and gnu_dev_minor do, for the bits that Linux uses.
  const major = Math.floor(device / 256) & 0xfff;
  const minor = (device & 0xff) | (Math.floor(device / 4096) & 0xfff00);
  const folder = `/sys/dev/block/${major}:${minor}`;
  const blockSize = queueLimit(folder, 'logical_block_size') || 512;
  const unit = queueLimit(folder, 'discard_granularity') || blockSize;
  return {
    // The kernel counts units of 512, whatever the device's blocks are (sysfs-block, `size`).
    size: Number(readFileSync(`${folder}/size`, 'utf8')) * 512,
    blockSize,
    deallocationUnit: queueLimit(folder, 'write_zeroes_max_bytes') === 0 ? 0 : unit,
  };
}

/** A limit of the device's queue; 0 when it is not told. A partition has that of its disk, one folder up. */
function queueLimit(folder: string, name: string): number {
  for (const queue of ['queue', '../queue']) {
    try {
      return Number(readFileSync(`${folder}/${queue}/${name}`, 'utf8'));
    } catch {
      continue;
    }
  }
  return 0;
}
