// SPDX-License-Identifier: MIT
import { CommandError, Errno } from '../../transport';
import { Mapping, closeFd, createSharedMemory, pageSize } from '../../native';
import type { ServedRegion } from '../../server/device-model';
import { Register } from '../spec';

/** Least size of BAR 0: what hosts map at once. */
const MIN_BAR_BYTES = 0x4000;

/** What {@link DoorbellBar} needs. */
export interface DoorbellBarContext {
  /** Doorbells, two for each queue pair and the admin queue. */
  readonly doorbells: number;
  /** CAP.DSTRD */
  readonly dstrd: number;
  /** Whether clients may map the doorbells. */
  readonly mappable: boolean;
  /** Access to a register below the doorbells. */
  readonly readRegister: (offset: number, data: Uint8Array) => void;
  readonly writeRegister: (offset: number, data: Uint8Array) => void;
  /** A doorbell was written by message. */
  readonly rung: (index: number) => void;
}

/** BAR 0: registers, which are accessed by message, and doorbells, which lie in shared memory. */
export class DoorbellBar implements ServedRegion {
  readonly size: number;
  readonly shared?: NonNullable<ServedRegion['shared']>;
  /** The doorbells as 32-bit words: the word of doorbell i is `doorbellWord(i)`. */
  readonly words: Int32Array;
  readonly #context: DoorbellBarContext;
  readonly #fd: number;
  readonly #mapping: Mapping;

  /** @throws VfioUserError `ERR_VFIO_USER_SYSTEM` */
  constructor(context: DoorbellBarContext) {
    this.#context = context;
    const end = Register.doorbells + context.doorbells * (4 << context.dstrd);
    this.size = Math.max(MIN_BAR_BYTES, 2 ** Math.ceil(Math.log2(end)));
    // The file has the layout of the BAR, also where nothing can be mapped: clients expect one offset for both.
    const bytes = Math.ceil(this.size / pageSize) * pageSize;
    this.#fd = createSharedMemory(bytes, { name: 'nvme-doorbells' });
    try {
      this.#mapping = Mapping.map(this.#fd, 0, bytes);
    } catch (error) {
      closeFd(this.#fd);
      throw error;
    }
    this.words = new Int32Array(this.#mapping.buffer);
    // With pages above 4 KiB, the registers would lie in the page of the doorbells.
    if (context.mappable && Register.doorbells % pageSize === 0) {
      const size = Math.ceil((end - Register.doorbells) / pageSize) * pageSize;
      this.shared = { fd: this.#fd, offset: 0, areas: [{ offset: Register.doorbells, size }] };
    }
  }

  /** Index in {@link words} of a doorbell. */
  word(index: number): number {
    return (Register.doorbells + index * (4 << this.#context.dstrd)) / 4;
  }

  /** @throws CommandError EINVAL */
  read(offset: number, data: Uint8Array): void {
    if (offset < Register.doorbells) {
      this.#context.readRegister(offset, data);
      return;
    }
    const value = Atomics.load(this.words, this.word(this.#index(offset, data.length)));
    new DataView(data.buffer, data.byteOffset, data.byteLength).setInt32(0, value, true);
  }

  /** @throws CommandError EINVAL */
  write(offset: number, data: Uint8Array): void {
    if (offset < Register.doorbells) {
      this.#context.writeRegister(offset, data);
      return;
    }
    const index = this.#index(offset, data.length);
    const value = new DataView(data.buffer, data.byteOffset, data.byteLength).getInt32(0, true);
    Atomics.store(this.words, this.word(index), value);
    this.#context.rung(index);
  }

  close(): void {
    if (this.#mapping.closed) return;
    this.#mapping.close();
    closeFd(this.#fd);
  }

  /** Index of the doorbell at an offset. */
  #index(offset: number, length: number): number {
    const index = (offset - Register.doorbells) / (4 << this.#context.dstrd);
    if (length === 4 && Number.isInteger(index) && index < this.#context.doorbells) return index;
    throw new CommandError(
      Errno.EINVAL,
      `There is no doorbell at 0x${offset.toString(16)} for ${length} bytes`,
    );
  }
}
