// SPDX-License-Identifier: MIT
import { CommandError, Errno } from '../../transport';
import { Mapping, closeFd, createSharedMemory, pageSize } from '../../native';
import type { ServedRegion } from '../../server/device-model';
import { Register } from '../spec';

/**
 * What the doorbell of a queue that does not exist holds, so that it is seen when a host writes anything there, even 0. A dump of the
 * page reads NONE.
 */
const UNUSED = 0x454e_4f4e;

/** Bytes of the page of shadows. */
const SHADOW_BYTES = 4096;

/** BAR 0 has at least this many bytes, since hosts map that much at once. */
const MIN_BAR_BYTES = 0x4000;

/** A file of doorbells, whose size and seals nobody can change, and its mapping. */
class DoorbellFile {
  readonly fd: number;
  readonly mapping: Mapping;

  /** @throws VfioUserError `ERR_VFIO_USER_SYSTEM` */
  constructor(barBytes: number) {
    const bytes = Math.ceil(barBytes / pageSize) * pageSize;
    this.fd = createSharedMemory(bytes, { name: 'nvme-doorbells' });
    try {
      this.mapping = Mapping.map(this.fd, 0, bytes);
    } catch (error) {
      closeFd(this.fd);
      throw error;
    }
  }

  /** Idempotent. */
  close(): void {
    if (this.mapping.closed) return;
    this.mapping.close();
    closeFd(this.fd);
  }
}

/**
 * The doorbell registers, a tail and a head for each queue id (NVMe over PCIe transport 1.0, 3.1.2). They lie in a file
 * that hosts may map, and which has the layout of BAR 0: clients expect one offset for both.
 *
 * A host that is gone may have kept the file, so the next one gets another, see {@link renew}.
 */
export class Doorbells {
  /** Bytes of BAR 0, which holds the registers and the doorbells. */
  readonly barBytes: number;
  /** What hosts may map of BAR 0; undefined when every doorbell is a message. */
  readonly shared: ServedRegion['shared'] | undefined;
  /**
   * Whether hosts may have shadows of the doorbells in their memory (Doorbell Buffer Config; NVMe base 2.0, 5.8). One that maps the
   * doorbells is better off without, and all shadows have to fit a page.
   */
  readonly shadows: boolean;
  /** CAP.DSTRD */
  readonly dstrd: number;
  /** Number of doorbells: twice that of the queue ids. */
  readonly count: number;
  /** Bytes from one doorbell to the next. */
  readonly #stride: number;
  #file: DoorbellFile;
  #words: Int32Array;

  /**
   * @param queuePairs pairs with doorbells, the admin queues included
   * @param dstrd CAP.DSTRD
   * @param mappable whether hosts may map the doorbells
   * @throws VfioUserError `ERR_VFIO_USER_SYSTEM` when there is no memory to be had
   */
  constructor(queuePairs: number, dstrd: number, mappable: boolean) {
    this.dstrd = dstrd;
    this.count = 2 * queuePairs;
    this.#stride = 4 << dstrd;
    const end = Register.doorbells + this.count * this.#stride;
    this.barBytes = Math.max(MIN_BAR_BYTES, 2 ** Math.ceil(Math.log2(end)));
    this.#file = new DoorbellFile(this.barBytes);
    this.#words = new Int32Array(this.#file.mapping.buffer);
    this.clear();
    // With pages above 4 KiB, the registers would lie in the page of the doorbells.
    if (mappable && Register.doorbells % pageSize === 0) {
      const size = Math.ceil((end - Register.doorbells) / pageSize) * pageSize;
      this.shared = {
        fd: () => this.#file.fd,
        offset: 0,
        areas: [{ offset: Register.doorbells, size }],
      };
    }
    this.shadows = this.shared === undefined && this.count * this.#stride <= SHADOW_BYTES;
  }

  /** The file as 32-bit words, see {@link tailWord} and {@link headWord}. Valid until {@link renew}. */
  get words(): Int32Array {
    return this.#words;
  }

  /**
   * Begins a new file, with no doorbell in use, for a host that has not seen the one before.
   * @throws VfioUserError `ERR_VFIO_USER_SYSTEM` when there is no memory to be had; the file before stays then
   */
  renew(): void {
    const file = new DoorbellFile(this.barBytes);
    this.#file.close();
    this.#file = file;
    this.#words = new Int32Array(file.mapping.buffer);
    this.clear();
  }

  /** Index in {@link words} of the tail doorbell of a submission queue. */
  tailWord(queueId: number): number {
    return this.#word(2 * queueId);
  }

  /** Index in {@link words} of the head doorbell of a completion queue. */
  headWord(queueId: number): number {
    return this.#word(2 * queueId + 1);
  }

  /**
   * The index of the doorbell at an offset of BAR 0: twice the queue id, and one more for the head of a completion queue.
   * @throws CommandError EINVAL when there is none, or when not all of it is accessed
   */
  index(offset: number, length: number): number {
    const index = (offset - Register.doorbells) / this.#stride;
    if (length === 4 && Number.isInteger(index) && index < this.count) return index;
    throw new CommandError(
      Errno.EINVAL,
      `There is no doorbell at 0x${offset.toString(16)} for ${length} bytes`,
    );
  }

  /** Reads a doorbell; one that is not in use is 0. */
  read(index: number, data: Uint8Array): void {
    const value = Atomics.load(this.words, this.#word(index));
    new DataView(data.buffer, data.byteOffset, data.byteLength).setInt32(
      0,
      value === UNUSED ? 0 : value,
      true,
    );
  }

  /** Writes a doorbell. */
  write(index: number, data: Uint8Array): void {
    const value = new DataView(data.buffer, data.byteOffset, data.byteLength).getInt32(0, true);
    Atomics.store(this.words, this.#word(index), value);
  }

  /** Whether the doorbell of a queue that does not exist was written since it was looked at last. */
  takeUnused(index: number): boolean {
    if (this.#words[this.#word(index)] === UNUSED) return false;
    this.retire(index);
    return true;
  }

  /** The queue of a doorbell does not exist any more. */
  retire(index: number): void {
    this.#words[this.#word(index)] = UNUSED;
  }

  /** No doorbell is in use any more, as after a controller reset. */
  clear(): void {
    for (let index = 0; index < this.count; index++) this.retire(index);
  }

  /** Frees the memory. Idempotent. */
  close(): void {
    this.#file.close();
  }

  #word(index: number): number {
    return (Register.doorbells + index * this.#stride) / 4;
  }
}
