// SPDX-License-Identifier: MIT
import { join, u32, u64 } from './support';

export const GET_REGION_IO_FDS = 6;

/** `struct vfio_user_region_io_fds_reply`: argsz, flags, index, count. */
export const reply = (argsz: number, count: number, ...entries: Uint8Array[]): Uint8Array =>
  join(u32(argsz, 0, 0, count), ...entries);
/** The specification's entry of 40 bytes: offset, size, fd_index, type, flags, padding, datamatch or user_data. */
export const entry40 = (
  offset: number,
  size: number,
  fd: number,
  type: number,
  flags: number,
  last: number | bigint,
): Uint8Array => join(u64(offset, size), u32(fd, type, flags, 0), u64(last));
