// SPDX-License-Identifier: MIT
import { invalidArgument } from '../errors';
import type { Socket } from '../native';
import { checkKeys, checkKind, type Keys, type KeyTable, type KeysByKind } from '../pci/check-keys';
import { encodeRegionIoFdsReply, type RegionIoFd } from '../protocol';
import type { CommandReply } from '../transport';

/** Where a sub-region is in its region. */
export interface SubRegionPlace {
  /** First byte in the region. */
  readonly offset: number;
  /**
   * Bytes. For an eventfd it is the width of a write: 1, 2, 4 or 8, or 0 for any. For an ioregionfd with posted writes 0
   * stands for one register of any width.
   */
  readonly size: number;
}

/** An eventfd that is signalled for writes (`KVM_IOEVENTFD`). The value that is written is not told. */
export interface ServedIoEventFd extends SubRegionPlace {
  /** Tells the descriptors apart. */
  readonly kind: 'ioeventfd';
  /** The eventfd. It is sent to clients that ask for it, and stays the model's; sub-regions may share one. */
  readonly fd: number;
  /** The only value that is signalled, up to 2^64 - 1. Default: any. */
  readonly datamatch?: number | bigint;
}

/** An eventfd that is signalled for writes, whose value is stored in a file first. An extension of libvfio-user. */
export interface ServedShadowIoEventFd extends SubRegionPlace {
  /** Tells the descriptors apart. */
  readonly kind: 'shadow-ioeventfd';
  /** The eventfd. It is sent to clients that ask for it, and stays the model's; sub-regions may share one. */
  readonly fd: number;
  /** The only value that is signalled, up to 2^64 - 1. Default: any. */
  readonly datamatch?: number | bigint;
  /** Where the value is stored. */
  readonly shadow: ShadowPlace;
}

/** A place in a file. */
export interface ShadowPlace {
  /** Stays the model's. */
  readonly fd: number;
  /** In bytes. */
  readonly offset: number;
}

/**
 * A stream socket for the messages of the kernel's ioregionfd series, which the server makes, and serves by `read` and
 * `write` of the region. A read that they refuse gives all ones; there is no other way to tell.
 */
export interface ServedIoRegionFd extends SubRegionPlace {
  /** Tells the descriptors apart. */
  readonly kind: 'ioregionfd';
  /** The server makes the socket. */
  readonly fd?: undefined;
  /** Writes are not answered. Default false. */
  readonly postedWrites?: boolean;
}

/** A stream socket for the messages of the kernel's ioregionfd series, which the model serves; see `decodeIoRegionCommand`. */
export interface ModelIoRegionFd extends SubRegionPlace {
  /** Tells the descriptors apart. */
  readonly kind: 'ioregionfd';
  /** The client's end of the socket. It stays the model's; sub-regions may share one. */
  readonly fd: number;
  /** Comes back in each command, to tell sub-regions apart that share a socket; up to 2^64 - 1. */
  readonly userData: number | bigint;
  /** Writes are not answered. Default false. */
  readonly postedWrites?: boolean;
}

/**
 * A part of a region whose accesses a client may bring to a descriptor instead of by message (vfio-user,
 * VFIO_USER_DEVICE_GET_REGION_IO_FDS). Clients need not, so `read` and `write` of the region serve it too.
 */
export type ServedIoFd = ServedIoEventFd | ServedShadowIoEventFd | ServedIoRegionFd | ModelIoRegionFd;

const PLACE: Keys<SubRegionPlace> = { offset: 'required', size: 'required' };
const SHADOW: Keys<ShadowPlace> = { fd: 'required', offset: 'required' };
const KINDS: KeysByKind<ServedIoEventFd | ServedShadowIoEventFd> & { readonly ioregionfd: KeyTable } = {
  ioeventfd: { ...PLACE, kind: 'required', fd: 'required', datamatch: 'optional' },
  'shadow-ioeventfd': {
    ...PLACE,
    kind: 'required',
    fd: 'required',
    datamatch: 'optional',
    shadow: 'required',
  },
  ioregionfd: { ...PLACE, kind: 'required', fd: 'optional', userData: 'optional', postedWrites: 'optional' },
};

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
    checkKind(`ioFds of ${where}`, entry, KINDS);
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
    if (kind === 'shadow-ioeventfd') checkKeys(`shadow in ioFds of ${where}`, entry.shadow, SHADOW);
    const userData = 'userData' in entry ? entry.userData : undefined;
    if (kind === 'ioregionfd' && (entry.fd === undefined) !== (userData === undefined))
      throw invalidArgument(`${where}: an ioregionfd has both fd and userData, or neither`);
  }
}

function isOwn(entry: ServedIoFd): entry is ServedIoRegionFd {
  return entry.kind === 'ioregionfd' && entry.fd === undefined;
}

/** The sub-regions whose socket the server makes, by the user data of their commands: the place in the declaration. */
export function ownIoRegions(ioFds: readonly ServedIoFd[]): ReadonlyMap<number, SubRegionPlace> {
  return new Map([...ioFds.entries()].filter(([, entry]) => isOwn(entry)));
}

/** Stands for the socket that the server makes when it is known that it will be sent. */
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
