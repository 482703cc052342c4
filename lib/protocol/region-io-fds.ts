// SPDX-License-Identifier: MIT
import { invalidArgument } from '../errors';
import { IoFdType } from './constants';
import { readSafeU64, readU64, writeU64, type U64 } from './u64';
import {
  checkEcho,
  protocolError,
  encodeIndexRequest,
  readArgsz,
  U32_MAX,
  viewOf,
  viewOfAtLeast,
  writeU32,
} from './wire';

interface IoFdCommon {
  /** First byte of the part of the region, in bytes. */
  offset: number;
  /** Size of the part in bytes; 0 when the width of an access does not matter. */
  size: number;
  /** Index among the file descriptors of the reply, which several entries may share; null when the server has none for it. */
  fdIndex: number | null;
  /** Flags of `KVM_IOEVENTFD` or of ioregionfd, as KVM defines them. */
  flags: number;
}

/** A part of a region whose accesses go to a file descriptor (vfio-user, VFIO_USER_DEVICE_GET_REGION_IO_FDS). */
export type RegionIoFd =
  /** A write signals an eventfd: of any value or, when the flags say so, of `datamatch` alone. */
  | (IoFdCommon & { type: 'ioeventfd'; datamatch: U64 })
  /** Accesses are messages on a socket, which repeat `userData`. */
  | (IoFdCommon & { type: 'ioregionfd'; userData: U64 })
  /** libvfio-user's extension: the value written also goes to shared memory (`struct vfio_user_sub_region_ioeventfd`). */
  | (IoFdCommon & { type: 'ioeventfdShadow'; datamatch: U64; shadowFdIndex: number; shadowOffset: U64 });

/** Bytes of an entry: 40 in the specification, 48 in libvfio-user. */
export type IoFdEntrySize = 40 | 48;

/** What a DEVICE_GET_REGION_IO_FDS reply says. */
export interface RegionIoFds {
  /** Region index. */
  index: number;
  /** In the order of the reply. */
  entries: readonly RegionIoFd[];
}

/** A decoded DEVICE_GET_REGION_IO_FDS reply. */
export interface RegionIoFdsReply extends RegionIoFds {
  /** Bytes that the whole payload needs: ask again, once, with this much room when the reply is not complete. */
  argsz: number;
  /** Number of entries that the server has. */
  count: number;
  /** False when the server left out the entries for want of room; `entries` is empty then. */
  complete: boolean;
}

const SIZE = 16;
const SPEC_ENTRY_SIZE = 40;
const LIBVFIO_USER_ENTRY_SIZE = 48;

/** Encodes a DEVICE_GET_REGION_IO_FDS request; `argsz` is the room for the reply's payload, in bytes. */
export function encodeRegionIoFdsRequest(request: Readonly<{ index: number; argsz?: number }>): Uint8Array {
  return encodeIndexRequest(SIZE, request);
}

/** Decodes a DEVICE_GET_REGION_IO_FDS request. Throws `ERR_VFIO_USER_PROTOCOL`. */
export function decodeRegionIoFdsRequest(payload: Uint8Array): { argsz: number; index: number } {
  const what = 'DEVICE_GET_REGION_IO_FDS request';
  const view = viewOfAtLeast(what, payload, SIZE);
  const argsz = readArgsz(what, view, SIZE);
  if (view.getUint32(4, true) !== 0 || view.getUint32(12, true) !== 0) {
    throw protocolError(what, 'flags and count must be 0');
  }
  return { argsz, index: view.getUint32(8, true) };
}

/**
 * Encodes a DEVICE_GET_REGION_IO_FDS reply. When the client's room does not hold all entries they are left out, and `argsz`
 * tells how much is needed (vfio-user, Message sizes).
 *
 * @param room the request's `argsz`
 * @param entrySize 40 for the specification's entries, 48 for libvfio-user's
 * @throws TypeError `ERR_INVALID_ARG_VALUE` for a shadow entry in 40 bytes
 */
export function encodeRegionIoFdsReply(
  reply: Readonly<RegionIoFds>,
  room: number,
  entrySize: IoFdEntrySize,
): Uint8Array {
  const count = reply.entries.length;
  const needed = SIZE + count * entrySize;
  const fits = needed <= room;
  const payload = new Uint8Array(fits ? needed : SIZE);
  const view = viewOf(payload);
  writeU32(view, 0, needed, 'argsz');
  writeU32(view, 8, reply.index, 'index');
  view.setUint32(12, count, true);
  if (fits) {
    reply.entries.forEach((entry, i) => {
      encodeEntry(view, SIZE + i * entrySize, entry, entrySize);
    });
  }
  return payload;
}

function encodeEntry(view: DataView, at: number, entry: RegionIoFd, entrySize: IoFdEntrySize): void {
  writeU64(view, at, entry.offset, 'offset');
  writeU64(view, at + 8, entry.size, 'size');
  writeU32(view, at + 16, entry.fdIndex ?? U32_MAX, 'fdIndex');
  view.setUint32(at + 20, IoFdType[entry.type], true);
  writeU32(view, at + 24, entry.flags, 'flags');
  if (entry.type === 'ioregionfd') {
    writeU64(view, at + 32, entry.userData, 'userData');
    return;
  }
  writeU64(view, at + entrySize - 8, entry.datamatch, 'datamatch');
  if (entry.type === 'ioeventfdShadow') {
    if (entrySize !== LIBVFIO_USER_ENTRY_SIZE)
      throw invalidArgument('a shadow ioeventfd needs entries of 48 bytes');
    writeU32(view, at + 28, entry.shadowFdIndex, 'shadowFdIndex');
    writeU64(view, at + 32, entry.shadowOffset, 'shadowOffset');
  }
}

const REPLY = 'DEVICE_GET_REGION_IO_FDS reply';

/**
 * Decodes a DEVICE_GET_REGION_IO_FDS reply. The specification gives the layout of an entry but not its size: entries of
 * 48 bytes have libvfio-user's layout, of any other size from 40 the specification's. Whether an entry lies within the
 * region is for the caller to check.
 *
 * @param asked the index that was asked for, and the number of file descriptors that came with the reply
 * @throws VfioUserError `ERR_VFIO_USER_PROTOCOL`
 */
export function decodeRegionIoFdsReply(
  payload: Uint8Array,
  asked: Readonly<{ index: number; fdCount: number }>,
): RegionIoFdsReply {
  const view = viewOfAtLeast(REPLY, payload, SIZE);
  const argsz = view.getUint32(0, true);
  const index = view.getUint32(8, true);
  checkEcho(REPLY, 'index', index, asked.index);
  const count = view.getUint32(12, true);
  const complete = argsz <= payload.byteLength;
  const entries: RegionIoFd[] = [];
  if (complete && count > 0) {
    // Entries end within argsz, and so within the payload.
    const stride = entrySizeOf(argsz, count);
    for (let i = 0; i < count; i++) entries.push(readEntry(view, SIZE + i * stride, stride, asked.fdCount));
  }
  return { argsz, count, complete, index, entries };
}

/** `argsz` is the fixed part and the entries. The specification's formula takes 32 bytes for the fixed part, its table has 16. */
function entrySizeOf(argsz: number, count: number): number {
  const size = (argsz - SIZE) / count;
  if (size === SPEC_ENTRY_SIZE || size === LIBVFIO_USER_ENTRY_SIZE) return size;
  const byFormula = (argsz - 32) / count;
  if (byFormula === SPEC_ENTRY_SIZE || byFormula === LIBVFIO_USER_ENTRY_SIZE) return byFormula;
  if (Number.isInteger(size) && size > SPEC_ENTRY_SIZE) return size;
  throw protocolError(REPLY, `argsz is ${argsz}, which does not fit ${count} entries`);
}

function readEntry(view: DataView, at: number, entrySize: number, fdCount: number): RegionIoFd {
  const fd = view.getUint32(at + 16, true);
  const common: IoFdCommon = {
    offset: readSafeU64(view, at, REPLY, 'offset of an entry'),
    size: readSafeU64(view, at + 8, REPLY, 'size of an entry'),
    // libvfio-user sends -1 for an entry whose file descriptor the device did not give.
    fdIndex: fd === U32_MAX ? null : checkFdIndex(fd, fdCount),
    flags: view.getUint32(at + 24, true),
  };
  if (!Number.isSafeInteger(common.offset + common.size)) {
    throw protocolError(REPLY, 'offset plus size of an entry is beyond reason');
  }
  const type = view.getUint32(at + 20, true);
  const extended = entrySize === LIBVFIO_USER_ENTRY_SIZE;
  if (type === IoFdType.ioregionfd)
    return { type: 'ioregionfd', ...common, userData: readU64(view, at + 32) };
  if (type === IoFdType.ioeventfd) {
    return { type: 'ioeventfd', ...common, datamatch: readU64(view, at + (extended ? 40 : 32)) };
  }
  if (type === IoFdType.ioeventfdShadow && extended) {
    return {
      type: 'ioeventfdShadow',
      ...common,
      datamatch: readU64(view, at + 40),
      shadowFdIndex: checkFdIndex(view.getUint32(at + 28, true), fdCount),
      shadowOffset: readU64(view, at + 32),
    };
  }
  throw protocolError(REPLY, `type ${type} in an entry of ${entrySize} bytes`);
}

function checkFdIndex(index: number, fdCount: number): number {
  if (index >= fdCount) {
    throw protocolError(REPLY, `file descriptor ${index} of ${fdCount}`);
  }
  return index;
}
