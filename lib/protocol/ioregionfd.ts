// SPDX-License-Identifier: MIT
import { outOfRange } from '../errors';
import { hexU64, readU64, writeU64, type U64 } from './u64';
import { protocolError, viewOf, viewOfAtLeast } from './wire';

/**
 * Messages on the socket of an ioregionfd. The specification takes them from the kernel's ioregionfd series, which was not
 * merged: "Introduce MMIO/PIO dispatch file descriptors (ioregionfd)", version 3,
 * https://lore.kernel.org/kvm/cover.1613828726.git.eafanasova@gmail.com/, `include/uapi/linux/ioregion.h`:
 *
 *     struct ioregionfd_cmd { u8 cmd; u8 size_exponent : 4, resp : 1; u8 padding[6]; u64 user_data, offset, data; };
 *     struct ioregionfd_resp { u64 data; u8 pad[24]; };
 */
export interface IoRegionCommand {
  /** Whether it writes; otherwise it reads. */
  readonly write: boolean;
  /** Bytes that are accessed: 1, 2, 4 or 8. */
  readonly width: 1 | 2 | 4 | 8;
  /** Whether a response is wanted; always true for reads. */
  readonly respond: boolean;
  /** What the server gave for the sub-region. */
  readonly userData: U64;
  /** Where in the sub-region, in bytes. */
  readonly offset: U64;
  /** The value that is written; 0 for a read. */
  readonly data: bigint;
}

/** `IOREGIONFD_CMD_*`. */
const READ = 0;
const WRITE = 1;
const RESPOND = 0x10;

/** Size of a command and of a response, in bytes. */
export const IOREGION_MESSAGE_SIZE = 32;

/**
 * Encodes a command.
 *
 * @throws RangeError `ERR_OUT_OF_RANGE` when the data do not fit the width
 */
export function encodeIoRegionCommand(command: IoRegionCommand): Uint8Array {
  const { write, width, respond, userData, offset, data } = command;
  if (data < 0n || data >= 1n << BigInt(8 * width))
    throw outOfRange(`${hexU64(data)} does not fit into ${width} bytes`);
  const bytes = new Uint8Array(IOREGION_MESSAGE_SIZE);
  const view = viewOf(bytes);
  bytes[0] = write ? WRITE : READ;
  bytes[1] = Math.log2(width) | (respond ? RESPOND : 0);
  writeU64(view, 8, userData, 'userData');
  writeU64(view, 16, offset, 'offset');
  writeU64(view, 24, data, 'data');
  return bytes;
}

/** Decodes a command. Throws `ERR_VFIO_USER_PROTOCOL`. */
export function decodeIoRegionCommand(bytes: Uint8Array): IoRegionCommand {
  const what = 'ioregionfd command';
  const view = viewOfAtLeast(what, bytes, IOREGION_MESSAGE_SIZE);
  const kind = view.getUint8(0);
  const flags = view.getUint8(1);
  const width = ([1, 2, 4, 8] as const)[flags & 0xf];
  if (kind > WRITE || width === undefined || flags > (RESPOND | 0xf))
    throw protocolError(what, `cmd is ${kind}, size and flags are 0x${flags.toString(16)}`);
  return {
    write: kind === WRITE,
    width,
    respond: kind === READ || (flags & RESPOND) !== 0,
    userData: readU64(view, 8),
    offset: readU64(view, 16),
    data: BigInt.asUintN(8 * width, view.getBigUint64(24, true)),
  };
}

/** Encodes a response; `data` is 0 for that to a write. */
export function encodeIoRegionResponse(data: bigint): Uint8Array {
  const bytes = new Uint8Array(IOREGION_MESSAGE_SIZE);
  writeU64(viewOf(bytes), 0, data, 'data');
  return bytes;
}

/** Decodes a response to a read of `width` bytes. Throws `ERR_VFIO_USER_PROTOCOL`. */
export function decodeIoRegionResponse(bytes: Uint8Array, width: 1 | 2 | 4 | 8): bigint {
  const view = viewOfAtLeast('ioregionfd response', bytes, IOREGION_MESSAGE_SIZE);
  return BigInt.asUintN(8 * width, view.getBigUint64(0, true));
}
