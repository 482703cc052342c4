// SPDX-License-Identifier: MIT
import { VfioUserError } from '../errors';
import { EventFd, Socket, closeFd } from '../native';
import { Command, decodeRegionIoFdsReply, encodeRegionIoFdsRequest, type RegionIoFd } from '../protocol';
import type { FdList } from '../transport';
import { ask } from './ask';
import { IoRegionChannel } from './io-region-channel';
import type { Link } from './link';
import { IoEventFd, IoRegionFd, type SubRegion } from './sub-region';

/** Room for 84 entries; more take a second message. */
const FIRST_ROOM = 4096;
/** Most room that a server is given. libvfio-user takes no `argsz` above this. */
const MAX_ROOM = 1 << 20;

/** The sub-regions of a region that have descriptors, and these descriptors. */
export class RegionIoFds {
  readonly subRegions: readonly SubRegion[];
  readonly #eventFds: readonly IoEventFd[];

  private constructor(subRegions: readonly SubRegion[]) {
    this.subRegions = subRegions;
    this.#eventFds = subRegions.filter((one) => one.kind === 'ioeventfd');
  }

  /**
   * Asks the server (vfio-user, VFIO_USER_DEVICE_GET_REGION_IO_FDS).
   *
   * @throws VfioUserError ERR_VFIO_USER_REMOTE, PROTOCOL and others of a message
   */
  static async fetch(link: Link, index: number, size: number): Promise<RegionIoFds> {
    const { told, fds, room } = await ask(link, {
      command: Command.deviceGetRegionIoFds,
      room: FIRST_ROOM,
      mostRoom: MAX_ROOM,
      encode: (argsz) => encodeRegionIoFdsRequest({ index, argsz }),
      decode: (payload, { length }) => decodeRegionIoFdsReply(payload, { index, fdCount: length }),
    });
    try {
      if (told.complete) return new RegionIoFds(open(told.entries, fds, size, link));
      throw protocolError(`${told.count} entries need ${told.argsz} bytes, of which ${room} were there`);
    } finally {
      fds.close();
    }
  }

  /** Signals the eventfd that stands for this write; false when there is none. */
  signal(offset: number, data: Uint8Array): boolean {
    const eventFd = this.#eventFds.find((one) => one.matches(offset, data));
    eventFd?.signalData(data);
    return eventFd !== undefined;
  }

  close(): void {
    for (const one of this.subRegions) one.close();
  }
}

/** Takes the descriptors that are used. All or nothing: after an error none stays open. */
function open(entries: readonly RegionIoFd[], fds: FdList, size: number, link: Link): readonly SubRegion[] {
  const eventFds = new Map<number, EventFd>();
  const channels = new Map<number, IoRegionChannel | null>();
  const memories = new Map<number, number>();
  const subRegions: SubRegion[] = [];
  try {
    for (const entry of entries) {
      const { fdIndex, offset } = entry;
      if (offset + entry.size > size || offset >= size) {
        throw protocolError(
          `a sub-region of ${entry.size} bytes at ${offset} is not within the ${size} bytes of the region`,
        );
      }
      // Without a descriptor, the sub-region is accessed by message like any other part.
      if (fdIndex === null) continue;
      if (entry.type === 'ioregionfd') {
        let channel = channels.get(fdIndex);
        if (channel === undefined) {
          channel = openChannel(takeOnce(fds, fdIndex), link);
          channels.set(fdIndex, channel);
        }
        if (channel !== null) subRegions.push(new IoRegionFd(entry, channel));
        continue;
      }
      if (![0, 1, 2, 4, 8].includes(entry.size))
        throw protocolError(`an ioeventfd for writes of ${entry.size} bytes`);
      let eventFd = eventFds.get(fdIndex);
      if (eventFd === undefined) {
        eventFd = openEventFd(takeOnce(fds, fdIndex));
        eventFds.set(fdIndex, eventFd);
      }
      subRegions.push(new IoEventFd(entry, eventFd, shadowOf(entry, fds, memories)));
    }
    return subRegions;
  } catch (error) {
    for (const one of subRegions) one.close();
    for (const eventFd of eventFds.values()) eventFd.close();
    for (const channel of channels.values()) channel?.close();
    if (!(error instanceof VfioUserError) || error.code !== 'ERR_VFIO_USER_SYSTEM') throw error;
    throw protocolError(error.message, error);
  } finally {
    for (const fd of memories.values()) closeFd(fd);
  }
}

/** Takes the descriptor of an entry. Other entries with the same index share the object that is made of it. */
function takeOnce(fds: FdList, index: number): number {
  const fd = fds.take(index);
  if (fd === undefined) throw protocolError(`descriptor ${index} is to be an eventfd and something else`);
  return fd;
}

function openEventFd(fd: number): EventFd {
  try {
    return EventFd.fromFd(fd);
  } catch (error) {
    closeFd(fd);
    throw error;
  }
}

/** Returns null when the descriptor is no stream socket: then the sub-region is accessed by message. */
function openChannel(fd: number, link: Link): IoRegionChannel | null {
  try {
    const name = `ioregionfd of ${link.name}`;
    return new IoRegionChannel(Socket.fromFd(fd), name, link.connection.messageTimeout);
  } catch {
    closeFd(fd);
    return null;
  }
}

/** The shadow memory of an entry, if it has any. Its mapping outlives the descriptor. */
function shadowOf(
  entry: RegionIoFd,
  fds: FdList,
  memories: Map<number, number>,
): { fd: number; offset: number } | null {
  if (entry.type !== 'ioeventfdShadow') return null;
  const { shadowFdIndex, shadowOffset } = entry;
  if (typeof shadowOffset !== 'number') throw protocolError('the offset in shadow memory is beyond reason');
  const fd = memories.get(shadowFdIndex) ?? takeOnce(fds, shadowFdIndex);
  memories.set(shadowFdIndex, fd);
  return { fd, offset: shadowOffset };
}

function protocolError(problem: string, cause?: unknown): VfioUserError {
  return new VfioUserError('ERR_VFIO_USER_PROTOCOL', `DEVICE_GET_REGION_IO_FDS reply: ${problem}`, {
    command: 'DEVICE_GET_REGION_IO_FDS',
    cause,
  });
}
