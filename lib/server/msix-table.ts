// SPDX-License-Identifier: MIT
import { outOfRange } from '../errors';
import type { MsixDeclaration } from '../pci/declaration';
import { CommandError, Errno } from '../transport';
import type { ServedRegion } from './device-model';
import { after } from './model-calls';

/** Bytes of a table entry; Vector Control is the last dword, its bit 0 the mask (PCI Local Bus 3.0, 6.8.2.6 to 6.8.2.9). */
const ENTRY_BYTES = 16;
const VECTOR_CONTROL = 12;

/** Where the messages go: the client's vectors. */
export interface MessagePort {
  /** Signals a vector; false when that does not reach the client now. */
  send(vector: number): boolean;
  /** Whether a vector was signalled while the client masked it with a message, and still waits for the mask to go. */
  pending(vector: number): boolean;
}

/**
 * The MSI-X table and pending bits of a function (PCI Local Bus 3.0, 6.8.2 and 6.8.3).
 *
 * The masks of the table count from the client's first write to it on. Clients that emulate the table themselves, as QEMU
 * and cloud-hypervisor do, never write to it, and would get no interrupt if the masks after a reset counted.
 */
export class MsixTable {
  /** The client's vectors; null without a client. */
  port: MessagePort | null = null;
  readonly #declaration: MsixDeclaration;
  readonly #table: Uint8Array;
  readonly #view: DataView;
  readonly #pending = new Set<number>();
  #written = false;
  #held = false;

  constructor(declaration: MsixDeclaration) {
    this.#declaration = declaration;
    this.#table = new Uint8Array(declaration.vectors * ENTRY_BYTES);
    this.#view = new DataView(this.#table.buffer);
    this.reset();
  }

  /** Holds all messages back: Function Mask of Message Control, or a function that is no bus master. */
  set held(value: boolean) {
    this.#held = value;
    if (!value) this.#deliver();
  }

  /** Puts the table back to its state after a reset: all vectors are masked, and nothing is pending. */
  reset(): void {
    this.#table.fill(0);
    for (let at = VECTOR_CONTROL; at < this.#table.length; at += ENTRY_BYTES) this.#table[at] = 1;
    this.#pending.clear();
    this.#written = false;
  }

  /**
   * Signals a vector. While it is masked it becomes pending, and is signalled once when the mask goes.
   *
   * @returns whether the client has been signalled
   * @throws RangeError when there is no such vector
   */
  trigger(vector: number): boolean {
    const { vectors } = this.#declaration;
    if (!Number.isInteger(vector) || vector < 0 || vector >= vectors)
      throw outOfRange(`There is no MSI-X vector ${vector}; the table has ${vectors}, from 0 on`);
    if (this.#masked(vector)) {
      this.#pending.add(vector);
      return false;
    }
    return this.port?.send(vector) ?? false;
  }

  /** What clients see of a BAR: the structures that are in it, and what `bar` has elsewhere. */
  over(index: number, bar: ServedRegion): ServedRegion {
    const { table, pba, vectors } = this.#declaration;
    const tableAt = table.bar === index ? table.offset : Infinity;
    const tableEnd = tableAt + this.#table.length;
    const pbaAt = pba.bar === index ? pba.offset : Infinity;
    const pbaEnd = pbaAt + 8 * Math.ceil(vectors / 64);
    if (table.bar !== index && pba.bar !== index) return bar;
    const within = (offset: number): boolean =>
      (offset >= tableAt && offset < tableEnd) || (offset >= pbaAt && offset < pbaEnd);
    return {
      ...bar,
      read: (offset, data) =>
        after(within(offset) ? undefined : bar.read?.(offset, data), () => {
          overlap(offset, data, tableAt, tableEnd, (at, part) => {
            part.set(this.#table.subarray(at, at + part.length));
          });
          overlap(offset, data, pbaAt, pbaEnd, (at, part) => {
            this.#readPba(at, part);
          });
        }),
      write: (offset, data, posted) => {
        if (!within(offset)) return bar.write?.(offset, data, posted);
        // The pending bits cannot be written.
        if (offset >= tableAt && offset < tableEnd) this.#write(offset - tableAt, data);
        return undefined;
      },
    };
  }

  /** @throws CommandError EINVAL for other accesses than of 4 or 8 aligned bytes (PCI Local Bus 3.0, 6.8.2) */
  #write(offset: number, data: Uint8Array): void {
    if ((data.length !== 4 && data.length !== 8) || offset % data.length !== 0) {
      throw new CommandError(
        Errno.EINVAL,
        `the MSI-X table is written by 4 or 8 aligned bytes, not by ${data.length} at ${offset}`,
      );
    }
    this.#written = true;
    this.#table.set(data, offset);
    this.#deliver();
  }

  /** Reads the pending bit array (PCI Local Bus 3.0, 6.8.2.10). */
  #readPba(offset: number, data: Uint8Array): void {
    for (let index = 0; index < data.length; index++) {
      let byte = 0;
      for (let bit = 0; bit < 8; bit++) {
        const vector = (offset + index) * 8 + bit;
        if (this.#pending.has(vector) || this.port?.pending(vector) === true) byte |= 1 << bit;
      }
      data[index] = byte;
    }
  }

  /** Whether a vector is masked here, so that its signals become pending. */
  #masked(vector: number): boolean {
    if (this.#held) return true;
    return this.#written && (this.#view.getUint32(vector * ENTRY_BYTES + VECTOR_CONTROL, true) & 1) !== 0;
  }

  /** Signals what is pending and not masked any more. */
  #deliver(): void {
    for (const vector of [...this.#pending]) {
      if (this.#masked(vector)) continue;
      this.#pending.delete(vector);
      this.port?.send(vector);
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
