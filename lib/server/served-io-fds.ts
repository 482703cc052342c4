// SPDX-License-Identifier: MIT
import { invalidArgument } from '../errors';
import { encodeRegionIoFdsReply, type RegionIoFd } from '../protocol';
import type { CommandReply } from '../transport';

interface ServedIoFdCommon {
  /** First byte in the region. */
  readonly offset: number;
  /** In bytes. Of an eventfd the width of a write: 1, 2, 4 or 8, or 0 for any. */
  readonly size: number;
  /** Sent to clients that ask for it; stays the model's. Entries may share one. */
  readonly fd: number;
}

/**
 * A part of a region whose accesses a client may bring to a descriptor instead of by message (vfio-user,
 * VFIO_USER_DEVICE_GET_REGION_IO_FDS). Clients need not, so `read` and `write` of the region serve it too.
 */
export type ServedIoFd =
  /** `fd` is an eventfd that is signalled for writes: of `datamatch`, or of any value. The value is not told. */
  | (ServedIoFdCommon & { readonly kind: 'ioeventfd'; readonly datamatch?: number | bigint })
  /** The same, but the value is stored at `shadow.offset` of a file first. libvfio-user's extension. */
  | (ServedIoFdCommon & {
      readonly kind: 'shadow-ioeventfd';
      readonly datamatch?: number | bigint;
      readonly shadow: { readonly fd: number; readonly offset: number };
    })
  /** `fd` is a stream socket for the messages of the kernel's ioregionfd series; see `decodeIoRegionCommand`. */
  | (ServedIoFdCommon & {
      readonly kind: 'ioregionfd';
      /** Comes back in each command, to tell sub-regions apart that share a socket. */
      readonly userData: number | bigint;
      /** Writes are not answered. */
      readonly postedWrites?: boolean;
    });

/** `KVM_IOEVENTFD_FLAG_DATAMATCH` (`linux/kvm.h`). */
const DATAMATCH = 1;
/** `KVM_IOREGION_POSTED_WRITES` of the ioregionfd series. */
const POSTED_WRITES = 2;

/**
 * Checks a declaration.
 *
 * @param where for messages
 * @throws TypeError ERR_INVALID_ARG_VALUE
 */
export function checkIoFds(ioFds: readonly ServedIoFd[], regionSize: number, where: string): void {
  for (const entry of ioFds) {
    const { kind, offset, size } = entry;
    const integers = Number.isSafeInteger(offset) && Number.isSafeInteger(size);
    if (!integers || offset < 0 || size < 0 || offset + size > regionSize || offset >= regionSize) {
      throw invalidArgument(
        `${where}: the ${kind} of ${String(size)} bytes at ${String(offset)} is not within its ${String(regionSize)} bytes`,
      );
    }
    if (kind !== 'ioregionfd' && ![0, 1, 2, 4, 8].includes(size))
      throw invalidArgument(`${where}: an ${kind} is for writes of 1, 2, 4 or 8 bytes, or 0 for any`);
    if (kind === 'ioregionfd' && size === 0 && entry.postedWrites !== true)
      throw invalidArgument(`${where}: an ioregionfd of size 0 needs postedWrites`);
  }
}

/**
 * Answers DEVICE_GET_REGION_IO_FDS: entries of 40 bytes, or of libvfio-user's 48 when there is shadow memory. What needs
 * more descriptors than a client takes is left out from the end: it is accessed by message then.
 *
 * @param room the request's `argsz`
 */
export function answerIoFds(
  index: number,
  ioFds: readonly ServedIoFd[],
  room: number,
  maxMsgFds: number,
): CommandReply {
  const fds: number[] = [];
  const entries: RegionIoFd[] = [];
  for (const entry of ioFds) {
    const needed = entry.kind === 'shadow-ioeventfd' ? [entry.fd, entry.shadow.fd] : [entry.fd];
    const missing = new Set(needed.filter((fd) => !fds.includes(fd)));
    if (fds.length + missing.size > maxMsgFds) continue;
    fds.push(...missing);
    entries.push(toWire(entry, fds));
  }
  const shadowed = entries.some(({ type }) => type === 'ioeventfdShadow');
  const payload = encodeRegionIoFdsReply({ index, entries }, room, shadowed ? 48 : 40);
  const complete = new DataView(payload.buffer).getUint32(0, true) <= payload.byteLength;
  return { payload, fds: complete ? fds : [] };
}

function toWire(entry: ServedIoFd, fds: readonly number[]): RegionIoFd {
  const { offset, size } = entry;
  const fdIndex = fds.indexOf(entry.fd);
  if (entry.kind === 'ioregionfd') {
    const flags = entry.postedWrites === true ? POSTED_WRITES : 0;
    return { type: 'ioregionfd', offset, size, fdIndex, flags, userData: entry.userData };
  }
  const { datamatch } = entry;
  const common = {
    offset,
    size,
    fdIndex,
    flags: datamatch === undefined ? 0 : DATAMATCH,
    datamatch: datamatch ?? 0,
  };
  if (entry.kind === 'ioeventfd') return { type: 'ioeventfd', ...common };
  const shadowFdIndex = fds.indexOf(entry.shadow.fd);
  return { type: 'ioeventfdShadow', ...common, shadowFdIndex, shadowOffset: entry.shadow.offset };
}
