// SPDX-License-Identifier: MIT
import { constants } from 'node:buffer';
import { VfioUserError, invalidArgument, outOfRange, systemError } from '../errors';
import { addon, checked } from './addon';
import { checkFd } from './fd';
import { Ready, Watcher } from './watcher';

/** Size of a huge page that {@link createSharedMemory} can use, in bytes; 0 for ordinary pages. */
export type HugePageSize = 0 | 0x200000 | 0x40000000;

/** Options of {@link createSharedMemory}. */
export interface SharedMemoryOptions {
  /** Shown in /proc, for people; at most 249 bytes. Default `vfio-user`. */
  readonly name?: string;
  /** Size of the pages that the memory is made of, in bytes. Default 0, for ordinary ones. */
  readonly hugePageSize?: HugePageSize;
  /**
   * Seals the size, and the file against further seals: nobody who gets the descriptor can truncate the memory, let it
   * grow, or forbid others to write it. Default true.
   */
  readonly sealed?: boolean;
}

const ENXIO = 6;
const ENOMEM = 12;
/** mmap(2) has one errno for all of these. */
export const NO_MEMORY =
  'there is no memory, no free huge page (vm.nr_hugepages), or no mapping left (vm.max_map_count)';

/**
 * Creates memory that can be shared: a zeroed memfd, closed on exec.
 *
 * @param size in bytes, a multiple of the huge page size if one is given
 * @returns a descriptor, which belongs to the caller; close it with `fs.closeSync`
 * @throws VfioUserError `ERR_VFIO_USER_SYSTEM` (EMFILE, ENOMEM)
 * @throws RangeError `ERR_OUT_OF_RANGE` for a size that is not positive, or no whole number of huge pages
 */
export function createSharedMemory(size: number, options: SharedMemoryOptions = {}): number {
  const { name = 'vfio-user', hugePageSize = 0, sealed = true } = options;
  if (!Number.isSafeInteger(size) || size <= 0) {
    throw outOfRange(`The size of shared memory is a positive integer, got ${size}`);
  }
  if (![0, 0x200000, 0x40000000].includes(hugePageSize)) {
    throw invalidArgument(`A huge page is 2 MiB or 1 GiB, got ${hugePageSize}`);
  }
  if (hugePageSize !== 0 && size % hugePageSize !== 0) {
    throw outOfRange(`${size} bytes are no whole number of huge pages of ${hugePageSize} bytes`);
  }
  const result = addon().createMemory(name, size, hugePageSize, sealed);
  return checked(result, 'memfd_create', `Creating ${size} bytes of shared memory`);
}

/** Options of {@link Mapping.map}. */
export interface MappingOptions {
  /** Whether stores are allowed. Default true. A store to a mapping that is not writable kills the process. */
  readonly writable?: boolean;
  /** The address will be a multiple of this: a multiple of the page size, up to 1 GiB. Default: the page size. */
  readonly alignment?: number;
}

/** Live mappings by slot, for telling them that their file was truncated. */
const live = new Map<number, WeakRef<Mapping>>();
/**
 * A mapping lives as long as its buffer, which is what programs keep: the loss of memory that is in use is told whether or not
 * anybody has kept the object that tells of it.
 */
const mappingOfBuffer = new WeakMap<ArrayBuffer, Mapping>();
let lostWatcher: Watcher | undefined;
const slotOut = new Int32Array(1);

/** The slot of a live mapping, by which the addon finds its address. For this room alone. */
export let slotOf: (mapping: Mapping) => number;

/**
 * Maps the memory of devices again that was away when it was accessed: a device that is reset, or whose memory decoding is
 * off, does not answer, and its memory reads as ones meanwhile. This happens by itself in the next turn of the event loop
 * of the thread that made the access; call it when it is known that the device answers again.
 *
 * @returns number of mappings, of all threads
 */
export function restoreDeviceMappings(): number {
  return addon().restoreDevices();
}

/** Listens, without keeping the process alive, to the event that the addon's SIGBUS guard signals. */
function watchForLoss(): void {
  if (lostWatcher !== undefined) return;
  const event = checked(addon().lostEvent(), 'eventfd', 'Creating the event for lost mappings');
  // Not drained by the watcher, which would take the event from the other watchers that a process has when this module
  // is loaded twice: all are called before the first one's read takes effect.
  lostWatcher = new Watcher(event, Ready.read, false, () => {
    addon().eventfdRead(event);
    restoreDeviceMappings();
    for (const reference of live.values()) {
      const mapping = reference.deref();
      if (mapping !== undefined) tellLoss(mapping);
    }
  });
  lostWatcher.unref();
}

/** The error of a runtime that allows no ArrayBuffer over memory of the addon. For this room alone. */
export function noExternalBuffers(): VfioUserError {
  return new VfioUserError(
    'ERR_VFIO_USER_ADDON',
    'This runtime does not allow an ArrayBuffer over mapped memory, as Electron does not. Use Node.js, or access the device by messages only.',
  );
}

/** Calls `onLost` of a mapping that was lost, once. */
let tellLoss: (mapping: Mapping) => void;

/**
 * A shared mapping of a file, as an ArrayBuffer.
 *
 * When the file is truncated under the mapping, its lost part reads as zero, {@link lost} becomes true and
 * {@link onLost} is called; without this guard the process would die of SIGBUS. The memory of a device is not lost
 * but away for a while, and reads as ones until the device answers again.
 */
export class Mapping {
  /** The bytes. Detached once closed: its length is 0, and typed arrays over it read `undefined`. */
  readonly buffer: ArrayBuffer;
  /** Size in bytes, also after {@link close}. */
  readonly length: number;
  /** Called once, soon after the first access to a lost part. */
  onLost: ((mapping: Mapping) => void) | null = null;
  readonly #slot: number;
  #closed = false;
  #told = false;
  #lost = false;

  private constructor(buffer: ArrayBuffer, slot: number) {
    this.buffer = buffer;
    this.length = buffer.byteLength;
    this.#slot = slot;
    live.set(slot, new WeakRef(this));
    mappingOfBuffer.set(buffer, this);
  }

  /**
   * Maps a part of a file. The descriptor stays the caller's, and may be closed while the mapping lives.
   *
   * @param offset in bytes, a multiple of the file's page size
   * @param length in bytes; 1 to `buffer.constants.MAX_LENGTH`, which is 4 GiB on Node.js 20
   * @throws VfioUserError `ERR_VFIO_USER_SYSTEM` (ENXIO when the part exceeds the file, EACCES, ENODEV, ENOMEM);
   *   `ERR_VFIO_USER_ADDON` when this runtime allows no ArrayBuffer over mapped memory
   */
  static map(fd: number, offset: number, length: number, options: MappingOptions = {}): Mapping {
    const { writable = true, alignment = 0 } = options;
    if (!Number.isSafeInteger(offset) || offset < 0) {
      throw outOfRange(`The offset of a mapping is an integer of at least 0, got ${offset}`);
    }
    if (!Number.isSafeInteger(length) || length <= 0 || length > constants.MAX_LENGTH) {
      throw outOfRange(
        `The length of a mapping is an integer from 1 to ${constants.MAX_LENGTH}, the longest ArrayBuffer of this Node.js, got ${length}`,
      );
    }
    if (!Number.isInteger(alignment) || alignment < 0 || alignment > 0x40000000) {
      throw outOfRange(`The alignment of a mapping is an integer from 0 to 1 GiB, got ${alignment}`);
    }
    watchForLoss();
    const result = addon().map(checkFd(fd), offset, length, writable, alignment, slotOut);
    if (typeof result !== 'number') return new Mapping(result, slotOut[0] as number);
    const range = `bytes ${offset} to ${offset + length - 1} of file descriptor ${fd}`;
    if (result === 0) throw noExternalBuffers();
    if (result === -ENXIO) throw systemError('mmap', ENXIO, `Mapping ${range}, which exceed the file`);
    throw systemError('mmap', -result, `Mapping ${range}`, result === -ENOMEM ? NO_MEMORY : undefined);
  }

  /** Number of live mappings in this process, those of all its threads. */
  static get count(): number {
    return addon().mappingCount();
  }

  /** Whether {@link close} was called. */
  get closed(): boolean {
    return this.#closed;
  }

  /** Whether an access found the file truncated. Stays true after {@link close}. */
  get lost(): boolean {
    if (!this.#lost && !this.#closed) this.#lost = addon().isLost(this.#slot);
    return this.#lost;
  }

  /** Detaches {@link buffer}, then unmaps. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#lost = this.lost;
    this.#closed = true;
    live.delete(this.#slot);
    checked(
      addon().unmap(this.buffer, this.#slot),
      'munmap',
      'Closing a mapping whose buffer was detached by others',
    );
  }

  /** Calls {@link close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  static {
    slotOf = (mapping) => mapping.#slot;
    tellLoss = (mapping) => {
      if (mapping.#told || !mapping.lost) return;
      mapping.#told = true;
      // Each handler has a task of its own, so that the exception of one does not keep the event from the others.
      queueMicrotask(() => mapping.onLost?.(mapping));
    };
  }
}
