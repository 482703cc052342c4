// SPDX-License-Identifier: MIT
import { VfioUserError, invalidArgument } from '../errors';
import { Mapping, closeFd, createSharedMemory, duplicateFd, fileSize } from '../native';
import { formatRange, type IovaTable } from './table';

/** What a device may do with a range. */
export type DmaAccess = 'read' | 'write' | 'readwrite';

/** A mapped range, as devices are told of it. */
export interface DmaRange {
  /** Address at which devices see the first byte, 0 to 2^64 - 1. */
  readonly iova: bigint;
  /** Bytes, at least 1; at most 2^53 - 1. */
  readonly size: number;
  /** What devices may do with the range. */
  readonly access: DmaAccess;
  /** Descriptor that a device may map, null when it has to send messages. Owned by the container; do not close. */
  readonly fd: number | null;
  /** Offset of the first byte in its file, in bytes; 0 without a file. */
  readonly fdOffset: number;
}

/** A range that is mapped in a container. */
export interface DmaMapping extends DmaRange {
  /**
   * Our view of the memory, null for a range without a file. Detached after {@link close}. The memory of a batch is
   * mapped when this is read first, which throws a VfioUserError ERR_VFIO_USER_SYSTEM when its file has shrunk since.
   */
  readonly buffer: ArrayBuffer | null;
  /** Takes the range from the devices, as the container's `unmap`. Idempotent. */
  close(): Promise<void>;
}

/** Who answers a device that asks for bytes of a range by message, when that is not this process. */
export interface DmaRelay {
  /** Reads bytes that are within the range. */
  read(iova: bigint, length: number): Promise<Uint8Array>;
  /** Writes bytes that are within the range. */
  write(iova: bigint, data: Uint8Array): Promise<void>;
}

/** A range to map. */
export interface DmaMapOptions {
  /** Address at which the device sees the first byte: 0 to 2^64 - 1, a multiple of the page size. */
  readonly iova: number | bigint;
  /** Bytes, a multiple of the page size. */
  readonly size: number;
  /** File with the memory; it is duplicated, and stays the caller's. Without it, the device can only send messages. */
  readonly fd?: number;
  /** Offset of the first byte in `fd`, a multiple of the page size. Default 0. */
  readonly offset?: number;
  /** What the device may do. Default `readwrite`. */
  readonly access?: DmaAccess;
  /** False: the device does not get `fd` and reaches the memory by message. Default: as the container's `directDma`. */
  readonly direct?: boolean;
  /** Takes the messages of devices for a range without `fd`. @internal */
  readonly relay?: DmaRelay;
}

/** When to use 2 MiB huge pages; see `DmaContainerOptions`. */
export type HugePages = 'auto' | 'always' | 'never';

/** A huge page, in bytes. */
export const HUGE_PAGE = 0x20_0000;

/** A descriptor of the container, which is closed with the last of the ranges that share it. */
class SharedFile {
  readonly fd: number;
  /** Bytes; 0 for a device, which has no size. */
  readonly size: number;
  #users = 0;

  /** @param fd taken over, also when this throws */
  constructor(fd: number) {
    try {
      this.size = fileSize(fd);
    } catch (error) {
      closeFd(fd);
      throw error;
    }
    this.fd = fd;
  }

  use(): void {
    this.#users++;
  }

  leave(): void {
    if (--this.#users === 0) closeFd(this.fd);
  }
}

/** What takes a range from the devices, and then releases it. */
interface RangeOwner {
  leave(range: MappedRange): Promise<void>;
}

/** A range and its memory, which is a part of a file. It is mapped here when it is first read: most memory is for devices only. */
export class MappedRange implements DmaMapping {
  readonly iova: bigint;
  readonly size: number;
  readonly access: DmaAccess;
  readonly relay: DmaRelay | null;
  readonly #direct: boolean;
  readonly #owner: RangeOwner;
  #file: SharedFile | null = null;
  #offset = 0;
  #mapping: Mapping | null = null;
  #released = false;
  /** The unmap that is under way. */
  leaving: { finished(): Promise<void> } | null = null;

  /** @param direct whether devices get the descriptor, unless the options tell */
  constructor(options: DmaMapOptions, direct: boolean, owner: RangeOwner) {
    this.iova = BigInt(options.iova);
    this.size = options.size;
    this.access = options.access ?? 'readwrite';
    this.relay = options.relay ?? null;
    this.#direct = options.direct ?? direct;
    this.#owner = owner;
  }

  get fd(): number | null {
    return this.#direct ? this.ownFd : null;
  }

  get fdOffset(): number {
    return this.#offset;
  }

  /** The descriptor, also when devices do not get it. */
  get ownFd(): number | null {
    return this.#file?.fd ?? null;
  }

  get buffer(): ArrayBuffer | null {
    if (this.#released && this.#file !== null && this.#mapping === null) return new ArrayBuffer(0);
    return this.memory()?.buffer ?? null;
  }

  memory(): Mapping | null {
    if (this.#file !== null && !this.#released)
      this.#mapping ??= Mapping.map(this.#file.fd, this.#offset, this.size);
    return this.#mapping;
  }

  /** Whether the container has let go of it. */
  get released(): boolean {
    return this.#released;
  }

  /** Gives it a part of a file, to be mapped when {@link buffer} is read. */
  back(file: SharedFile, offset: number): void {
    file.use();
    this.#file = file;
    this.#offset = offset;
  }

  /**
   * Gives it a part of a file, and maps that.
   *
   * @param alignment of our own mapping, in bytes
   * @throws VfioUserError ERR_VFIO_USER_SYSTEM when it cannot be mapped; the range has no memory then
   */
  backNow(file: SharedFile, offset: number, alignment = 0): void {
    file.use();
    try {
      this.#mapping = Mapping.map(file.fd, offset, this.size, { alignment });
    } catch (error) {
      file.leave();
      throw error;
    }
    this.#file = file;
    this.#offset = offset;
  }

  /**
   * Gives it new memory, and maps that.
   *
   * @param alignment of our own mapping, in bytes
   * @param hugePages `never` unless the size is a multiple of {@link HUGE_PAGE}
   */
  allocate(alignment: number, hugePages: HugePages): void {
    if (hugePages !== 'never') {
      try {
        this.backNow(
          new SharedFile(createSharedMemory(this.size, { hugePageSize: HUGE_PAGE })),
          0,
          alignment,
        );
        return;
      } catch (error) {
        // mmap reserves the huge pages, so a lack of them shows here and not as a fault later.
        if (hugePages === 'always') throw error;
      }
    }
    this.backNow(new SharedFile(createSharedMemory(this.size)), 0, alignment);
  }

  async close(): Promise<void> {
    if (!this.#released) await this.#owner.leave(this);
  }

  /** Closes the memory. Idempotent. */
  release(): void {
    if (this.#released) return;
    this.#released = true;
    this.#mapping?.close();
    this.#file?.leave();
  }
}

/**
 * Takes parts of the caller's files, through one duplicate of each descriptor. To be used within one turn, as the caller
 * may give a number to another file later.
 */
export class BorrowedFiles {
  readonly #files = new Map<number, SharedFile>();

  /**
   * Gives a range a part of a file. The first part of each file is mapped at once, which tells whether it can be; of the
   * others it is checked that they are within the file.
   *
   * @throws VfioUserError ERR_VFIO_USER_SYSTEM (EBADF, EMFILE; ENXIO, EACCES and others of `mmap`); RangeError
   */
  back(range: MappedRange, fd: number, offset: number): void {
    const known = this.#files.get(fd);
    if (known !== undefined && offset >= 0 && offset + range.size <= known.size) {
      range.back(known, offset);
      return;
    }
    // A device file has no size to check against. A part that is not within its file is tried for the error of mmap.
    const file = known ?? new SharedFile(duplicateFd(fd));
    range.backNow(file, offset);
    this.#files.set(fd, file);
  }
}

/**
 * Checks that a range to map is made of whole pages.
 *
 * @param unit size of a page in bytes
 * @throws TypeError ERR_INVALID_ARG_VALUE
 */
export function checkPages({ iova, size, offset = 0 }: DmaMapOptions, unit: number): void {
  if (!isMultiple(iova, unit)) throw notPages('iova', iova, unit);
  if (!isMultiple(size, unit)) throw notPages('size', size, unit);
  if (!isMultiple(offset, unit)) throw notPages('offset', offset, unit);
}

function isMultiple(value: number | bigint, unit: number): boolean {
  // The remainder of a double is exact, however large it is, and NaN for what is no number.
  return typeof value === 'bigint' ? value % BigInt(unit) === 0n : value % unit === 0;
}

function notPages(name: string, value: number | bigint, unit: number): Error {
  return invalidArgument(`${name} ${value} is not a multiple of the page size, ${unit} bytes`);
}

/**
 * Copies what a device asks for by message; a promise when others have to be asked for it.
 *
 * @throws VfioUserError ERR_VFIO_USER_DMA when a byte is not mapped, not readable, or without memory of this process
 */
export function readMemory(
  table: IovaTable<MappedRange>,
  iova: bigint,
  length: number,
): Uint8Array | Promise<Uint8Array> {
  const segments = accessible(table, iova, length, 'read');
  const data = new Uint8Array(length);
  const relayed: Promise<void>[] = [];
  let at = 0;
  for (const { bytes, relay, address, size } of segments) {
    const into = data.subarray(at, at + size);
    if (bytes !== null) into.set(bytes);
    else
      relayed.push(
        relay.read(address, size).then((read) => {
          into.set(read);
        }),
      );
    at += size;
  }
  return relayed.length === 0 ? data : Promise.all(relayed).then(() => data);
}

/** Stores what a device sends by message, as {@link readMemory}. */
export function writeMemory(
  table: IovaTable<MappedRange>,
  iova: bigint,
  data: Uint8Array,
): undefined | Promise<void> {
  const segments = accessible(table, iova, data.length, 'write');
  const relayed: Promise<void>[] = [];
  let at = 0;
  for (const { bytes, relay, address, size } of segments) {
    const part = data.subarray(at, at + size);
    if (bytes !== null) bytes.set(part);
    else relayed.push(relay.write(address, part));
    at += size;
  }
  return relayed.length === 0 ? undefined : Promise.all(relayed).then(() => undefined);
}

/** A part of what a message reaches: bytes of this process, or somebody who has them. */
type Segment = { readonly address: bigint; readonly size: number } & (
  { readonly bytes: Uint8Array; readonly relay: null } | { readonly bytes: null; readonly relay: DmaRelay }
);

/** What a message reaches, in order. */
function accessible(
  table: IovaTable<MappedRange>,
  iova: bigint,
  length: number,
  access: 'read' | 'write',
): Segment[] {
  const segments = table.lookup(iova, length);
  const asked = `the device asked to ${access} ${formatRange({ iova, size: length })}, which`;
  if (segments === undefined)
    throw new VfioUserError('ERR_VFIO_USER_DMA', `${asked} is not mapped. Mapped: ${table.dump()}`);
  return segments.map(({ range, offset, length: size }) => {
    if (range.access !== 'readwrite' && range.access !== access)
      throw new VfioUserError(
        'ERR_VFIO_USER_DMA',
        `${asked} is mapped for ${range.access} only; map it with another access`,
      );
    const { buffer, relay } = range;
    const place = { address: range.iova + BigInt(offset), size };
    if (buffer !== null) return { ...place, bytes: new Uint8Array(buffer, offset, size), relay: null };
    if (relay !== null) return { ...place, bytes: null, relay };
    throw new VfioUserError(
      'ERR_VFIO_USER_DMA',
      `${asked} was mapped without memory of this process; map it with a descriptor`,
    );
  });
}
