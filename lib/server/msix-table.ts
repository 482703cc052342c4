// SPDX-License-Identifier: MIT
import { invalidArgument, outOfRange } from '../errors';
import { PciIrq } from '../pci/device';
import type { ConfigEffect } from '../pci/config-space';
import { CommandError, Errno } from '../transport';
import type { Client, ServedRegion } from './device-model';

/** Bytes of a table entry; Vector Control is the last dword, its bit 0 the mask (PCI Local Bus 3.0, 6.8.2.6 to 6.8.2.9). */
const ENTRY_BYTES = 16;
const VECTOR_CONTROL = 12;

/** Where the structures are in a BAR of their own, for {@link MsixTable.region}. */
export interface MsixLayout {
  /** Bytes of the BAR. */
  readonly size: number;
  /** Offset of the table in bytes, a multiple of 8. */
  readonly table: number;
  /** Offset of the pending bit array in bytes, a multiple of 8. */
  readonly pba: number;
}

/**
 * The MSI-X table and pending bits of a device model (PCI Local Bus 3.0, 6.8.2 and 6.8.3).
 *
 * The masks of the table count from the client's first write to it on. Clients that emulate the table themselves, as QEMU
 * and cloud-hypervisor do, never write to it, and would get no interrupt if the masks after a reset counted.
 *
 * @example
 * readonly msix = new MsixTable(4);
 * regions = new Map([
 *   [PciRegion.bar4, this.msix.region({ size: 0x2000, table: 0, pba: 0x1000 })],
 *   [PciRegion.config, configRegion(space, (effect) => this.msix.configure(effect))],
 * ]);
 * attach(client) { this.msix.attach(client); }
 * … this.msix.trigger(2);
 */
export class MsixTable {
  /** Entries of the table, 1 to 2048. */
  readonly vectors: number;
  readonly #table: Uint8Array;
  readonly #view: DataView;
  readonly #pending = new Set<number>();
  #client: Client | null = null;
  #written = false;
  #functionMask = false;

  /**
   * @param vectors 1 to 2048
   * @throws RangeError for another number
   */
  constructor(vectors: number) {
    if (!Number.isInteger(vectors) || vectors < 1 || vectors > 2048)
      throw outOfRange(`${vectors} MSI-X vectors; 1 to 2048 are possible`);
    this.vectors = vectors;
    this.#table = new Uint8Array(vectors * ENTRY_BYTES);
    this.#view = new DataView(this.#table.buffer);
    this.reset();
  }

  /** Bytes of the table. */
  get tableBytes(): number {
    return this.#table.length;
  }

  /** Bytes of the pending bit array. */
  get pbaBytes(): number {
    return 8 * Math.ceil(this.vectors / 64);
  }

  /** A client whose interrupts these are; for `attach` of a device model. */
  attach(client: Client): void {
    this.#client = client;
  }

  /** The client is gone; for `detach` of a device model. What is pending stays. */
  detach(): void {
    this.#client = null;
  }

  /** Puts the table back to its state after a reset: all vectors are masked, and nothing is pending. */
  reset(): void {
    this.#table.fill(0);
    for (let at = VECTOR_CONTROL; at < this.#table.length; at += ENTRY_BYTES) this.#table[at] = 1;
    this.#pending.clear();
    this.#written = false;
    this.#functionMask = false;
  }

  /** Follows Function Mask of Message Control; takes what `configRegion` tells. */
  configure(effect: ConfigEffect): void {
    if (effect.kind !== 'msix') return;
    this.#functionMask = effect.functionMask;
    this.#deliver();
  }

  /** Whether a vector is masked here, so that its signals become pending. */
  masked(vector: number): boolean {
    if (this.#functionMask) return true;
    return this.#written && (this.#view.getUint32(vector * ENTRY_BYTES + VECTOR_CONTROL, true) & 1) !== 0;
  }

  /**
   * Signals a vector. While it is masked it becomes pending, and is signalled once when the mask goes.
   *
   * @returns whether the client has been signalled
   * @throws RangeError when there is no such vector
   */
  trigger(vector: number): boolean {
    if (!Number.isInteger(vector) || vector < 0 || vector >= this.vectors)
      throw outOfRange(`There is no MSI-X vector ${vector}; the table has ${this.vectors}, from 0 on`);
    if (this.masked(vector)) {
      this.#pending.add(vector);
      return false;
    }
    return this.#client?.trigger(PciIrq.msix, vector) ?? false;
  }

  /**
   * Reads the table. What is beyond its end is left as it is.
   *
   * @param offset in bytes, from the start of the table
   */
  readTable(offset: number, data: Uint8Array): void {
    data.set(this.#table.subarray(offset, offset + data.length));
  }

  /**
   * Writes the table. What is beyond its end is ignored.
   *
   * @param offset in bytes, from the start of the table
   * @throws CommandError EINVAL for other accesses than of 4 or 8 aligned bytes (PCI Local Bus 3.0, 6.8.2)
   */
  writeTable(offset: number, data: Uint8Array): void {
    if ((data.length !== 4 && data.length !== 8) || offset % data.length !== 0) {
      throw new CommandError(
        Errno.EINVAL,
        `the MSI-X table is written by 4 or 8 aligned bytes, not by ${data.length} at ${offset}`,
      );
    }
    if (offset + data.length > this.#table.length) return;
    this.#written = true;
    this.#table.set(data, offset);
    this.#deliver();
  }

  /**
   * Reads the pending bit array (PCI Local Bus 3.0, 6.8.2.10). Its bits cannot be written.
   *
   * @param offset in bytes, from the start of the array
   */
  readPba(offset: number, data: Uint8Array): void {
    for (let index = 0; index < data.length; index++) {
      let byte = 0;
      for (let bit = 0; bit < 8; bit++) {
        if (this.#isPending((offset + index) * 8 + bit)) byte |= 1 << bit;
      }
      data[index] = byte;
    }
  }

  /**
   * A BAR that has both structures, and nothing else.
   *
   * @throws TypeError ERR_INVALID_ARG_VALUE when they overlap, do not fit or are not aligned
   */
  region({ size, table, pba }: MsixLayout): ServedRegion {
    const tableEnd = table + this.tableBytes;
    const pbaEnd = pba + this.pbaBytes;
    if (table % 8 !== 0 || pba % 8 !== 0 || table < 0 || pba < 0 || Math.max(tableEnd, pbaEnd) > size)
      throw invalidArgument(
        `the MSI-X structures do not fit ${size} bytes, or do not begin at multiples of 8`,
      );
    if (table < pbaEnd && pba < tableEnd)
      throw invalidArgument('the MSI-X table and the pending bit array overlap');
    return {
      size,
      read: (offset, data) => {
        overlap(offset, data, table, tableEnd, (at, part) => {
          this.readTable(at, part);
        });
        overlap(offset, data, pba, pbaEnd, (at, part) => {
          this.readPba(at, part);
        });
      },
      write: (offset, data) => {
        if (offset >= table && offset < tableEnd) this.writeTable(offset - table, data);
      },
    };
  }

  #isPending(vector: number): boolean {
    return this.#pending.has(vector) || this.#client?.pending(PciIrq.msix, vector) === true;
  }

  /** Signals what is pending and not masked any more. */
  #deliver(): void {
    for (const vector of [...this.#pending]) {
      if (this.masked(vector)) continue;
      this.#pending.delete(vector);
      this.#client?.trigger(PciIrq.msix, vector);
    }
  }
}

/** Calls `read` with the part of `data` that is for bytes from `begin` to `end`. */
function overlap(
  offset: number,
  data: Uint8Array,
  begin: number,
  end: number,
  read: (at: number, part: Uint8Array) => void,
): void {
  const first = Math.max(offset, begin);
  const last = Math.min(offset + data.length, end);
  if (first < last) read(first - begin, data.subarray(first - offset, last - offset));
}
