// SPDX-License-Identifier: MIT
import { invalidArgument } from '../errors';
import type { Socket } from '../native';
import { encodeRegionIoFdsReply, type RegionIoFd } from '../protocol';
import type { CommandReply } from '../transport';

interface SubRegionPlace {
  /** First byte in the region. */
  readonly offset: number;
  /**
   * In bytes. Of an eventfd the width of a write: 1, 2, 4 or 8, or 0 for any. Of an ioregionfd with posted writes 0 stands
   * for one register of any width.
   */
  readonly size: number;
}

interface ServedIoFdCommon extends SubRegionPlace {
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
  /**
   * A stream socket for the messages of the kernel's ioregionfd series, which the server makes, and serves by `read` and
   * `write` of the region. A read that they refuse gives all ones; there is no other way to tell.
   */
  | (SubRegionPlace & {
      readonly kind: 'ioregionfd';
      readonly fd?: undefined;
      /** Writes are not answered. */
      readonly postedWrites?: boolean;
    })
  /** The same, but `fd` is the client's end of a socket that the model serves; see `decodeIoRegionCommand`. */
  | (ServedIoFdCommon & {
      readonly kind: 'ioregionfd';
      /** Comes back in each command, to tell sub-regions apart that share a socket. */
      readonly userData: number | bigint;
      /** Writes are not answered. */
      readonly postedWrites?: boolean;
    });

/** A sub-region whose socket the server makes. */
type OwnIoRegion = Extract<ServedIoFd, { readonly fd?: undefined }>;

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
        `${where}: the ${kind} of ${size} bytes at ${offset} is not within its ${regionSize} bytes`,
      );
    }
    if (kind !== 'ioregionfd' && ![0, 1, 2, 4, 8].includes(size))
      throw invalidArgument(`${where}: an ${kind} is for writes of 1, 2, 4 or 8 bytes, or 0 for any`);
    if (kind === 'ioregionfd' && size === 0 && entry.postedWrites !== true)
      throw invalidArgument(`${where}: an ioregionfd of size 0 needs postedWrites`);
  }
}

function isOwn(entry: ServedIoFd): entry is OwnIoRegion {
  return entry.kind === 'ioregionfd' && entry.fd === undefined;
}

/** The sub-regions whose socket the server makes, by the user data of their commands: the place in the declaration. */
export function ownIoRegions(ioFds: readonly ServedIoFd[]): ReadonlyMap<number, SubRegionPlace> {
  return new Map([...ioFds.entries()].filter(([, entry]) => isOwn(entry)));
}

/** Stands for the socket of {@link OwnIoRegion}s, which is made when it is known that it will be sent. */
const OWN_SOCKET = -1;

/**
 * Answers DEVICE_GET_REGION_IO_FDS: entries of 40 bytes, or of libvfio-user's 48 when there is shadow memory. What needs
 * more descriptors than a client takes is left out from the end: it is accessed by message then.
 *
 * @param room the request's `argsz`
 * @param openSocket makes the client's end of the socket for the sub-regions that the server itself serves
 */
export function answerIoFds(
  index: number,
  ioFds: readonly ServedIoFd[],
  room: number,
  maxMsgFds: number,
  openSocket: () => Socket,
): CommandReply {
  const fds: number[] = [];
  const entries: RegionIoFd[] = [];
  ioFds.forEach((entry, position) => {
    const fd = entry.fd ?? OWN_SOCKET;
    const needed = entry.kind === 'shadow-ioeventfd' ? [fd, entry.shadow.fd] : [fd];
    const missing = new Set(needed.filter((one) => !fds.includes(one)));
    if (fds.length + missing.size > maxMsgFds) return;
    fds.push(...missing);
    entries.push(toWire(entry, position, fds));
  });
  const shadowed = entries.some(({ type }) => type === 'ioeventfdShadow');
  const payload = encodeRegionIoFdsReply({ index, entries }, room, shadowed ? 48 : 40);
  if (new DataView(payload.buffer).getUint32(0, true) > payload.byteLength) return { payload };
  if (!fds.includes(OWN_SOCKET)) return { payload, fds };
  const socket = openSocket();
  return {
    payload,
    fds: fds.map((fd) => (fd === OWN_SOCKET ? socket.fd : fd)),
    sent: () => {
      socket.close();
    },
  };
}

function toWire(entry: ServedIoFd, position: number, fds: readonly number[]): RegionIoFd {
  const { offset, size } = entry;
  const fdIndex = fds.indexOf(entry.fd ?? OWN_SOCKET);
  if (entry.kind === 'ioregionfd') {
    const flags = entry.postedWrites === true ? POSTED_WRITES : 0;
    const userData = isOwn(entry) ? position : entry.userData;
    return { type: 'ioregionfd', offset, size, fdIndex, flags, userData };
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
