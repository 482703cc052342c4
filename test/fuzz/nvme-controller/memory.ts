// SPDX-License-Identifier: MIT
import { Mapping, closeFd, createSharedMemory } from '../../../lib/native';
import type { ClientMemory, ClientRange, MappedPlace } from '../../../lib/server';
import { turns } from '../waiting';

/** Where ranges of the host's memory are, and how they can be reached. */
interface Layout {
  readonly iova: number;
  readonly size: number;
  readonly readable: boolean;
  readonly writable: boolean;
  /** Reached by message only. */
  readonly distant: boolean;
}

export const QUEUES = 0x10_0000;
export const DATA = 0x20_0000;
/** Data, the second half of which holds PRP lists and SGL segments. */
const DATA_BYTES = 0x8_0000;
export const LISTS = DATA + DATA_BYTES / 2;

const range = (iova: number, size: number, how: Partial<Layout> = {}): Layout => ({
  iova,
  size,
  readable: true,
  writable: true,
  distant: false,
  ...how,
});

export const LAYOUT: readonly Layout[] = [
  range(QUEUES, 0x8_0000),
  range(DATA, DATA_BYTES),
  range(0x30_0000, 0x1_0000, { writable: false }),
  range(0x40_0000, 0x1_0000, { readable: false }),
  range(0x50_0000, 0x4_0000, { distant: true }),
  // Joins the one before it.
  range(0x54_0000, 0x4000),
  range(2 ** 52, 0x4000),
];

/** A range that is mapped. Its memory really goes when it is unmapped, as that of a served client does. */
class HostRange implements ClientRange {
  readonly iova: bigint;
  readonly size: number;
  readonly readable: boolean;
  readonly writable: boolean;
  readonly #mapping: Mapping;
  readonly distant: boolean;

  constructor(layout: Layout, fd: number, offset: number) {
    this.iova = BigInt(layout.iova);
    this.size = layout.size;
    this.readable = layout.readable;
    this.writable = layout.writable;
    this.distant = layout.distant;
    this.#mapping = Mapping.map(fd, offset, layout.size);
  }

  get buffer(): ArrayBuffer | null {
    return this.distant || this.#mapping.closed ? null : this.#mapping.buffer;
  }

  close(): void {
    this.#mapping.close();
  }
}

/** The memory of an NVMe host, as the controller sees it. */
export class HostMemory implements ClientMemory {
  generation = 0;
  #busMaster = true;
  readonly #fd = createSharedMemory(LAYOUT.reduce((sum, { size }) => sum + size, 0));
  /** All of it, as the host sees it. */
  readonly #mapping = Mapping.map(
    this.#fd,
    0,
    LAYOUT.reduce((sum, { size }) => sum + size, 0),
  );
  readonly #bytes = new Uint8Array(this.#mapping.buffer);
  readonly #ranges: (HostRange | null)[] = LAYOUT.map(() => null);
  #messages = 0;
  /** All messages are answered as they should be. */
  honest = false;

  get busMaster(): boolean {
    return this.#busMaster;
  }

  set busMaster(value: boolean) {
    this.#busMaster = value;
    this.generation++;
  }

  get ranges(): readonly ClientRange[] {
    return this.#ranges.filter((one) => one !== null);
  }

  /** The range with this number in {@link LAYOUT}; null while it is unmapped. */
  range(index: number): ClientRange | null {
    return this.#ranges[index] ?? null;
  }

  map(index: number): void {
    const layout = LAYOUT[index];
    if (layout === undefined || this.#ranges[index] !== null) return;
    this.#ranges[index] = new HostRange(layout, this.#fd, offsetOf(index));
    this.generation++;
  }

  /** The controller must have let go of it. */
  unmap(index: number): void {
    this.#ranges[index]?.close();
    this.#ranges[index] = null;
    this.generation++;
  }

  place(iova: number | bigint, length: number, access: 'read' | 'write' | 'readwrite'): MappedPlace | null {
    const found = this.#find(BigInt(iova), length, access);
    if (found === undefined) return null;
    const { buffer } = found;
    return buffer === null ? null : { range: found, buffer, offset: Number(BigInt(iova) - found.iova) };
  }

  async read(iova: number | bigint, length: number): Promise<Uint8Array> {
    await this.#message();
    return this.bytes(this.#allowed(iova, length, 'read'), length).slice();
  }

  async write(iova: number | bigint, data: Uint8Array): Promise<void> {
    await this.#message();
    this.bytes(this.#allowed(iova, data.length, 'write'), data.length).set(data);
  }

  markDirty(): void {
    // Nobody logs dirty pages of this memory.
  }

  /** The host's view of bytes that are within one range, mapped or not. */
  bytes(address: number, length: number): Uint8Array {
    const index = LAYOUT.findIndex(({ iova, size }) => address >= iova && address + length <= iova + size);
    const layout = LAYOUT[index];
    if (layout === undefined) throw new RangeError(`0x${address.toString(16)} is no memory of the host`);
    const at = offsetOf(index) + address - layout.iova;
    return this.#bytes.subarray(at, at + length);
  }

  words(address: number, count: number): Uint32Array {
    const { buffer, byteOffset } = this.bytes(address, count * 4);
    return new Uint32Array(buffer, byteOffset, count);
  }

  close(): void {
    for (const index of this.#ranges.keys()) this.unmap(index);
    this.#mapping.close();
    closeFd(this.#fd);
  }

  /** Messages take their time; some are not answered as they should be, unless the host is honest. */
  async #message(): Promise<void> {
    this.#messages++;
    await turns(this.#messages % 3);
    if (!this.honest && this.#messages % 17 === 0) throw new Error('the host does not answer');
  }

  #allowed(iova: number | bigint, length: number, access: 'read' | 'write'): number {
    if (this.#find(BigInt(iova), length, access) === undefined) throw new Error('not mapped');
    return Number(iova);
  }

  #find(iova: bigint, length: number, access: 'read' | 'write' | 'readwrite'): HostRange | undefined {
    if (!this.#busMaster) return undefined;
    const found = this.#ranges
      .filter((one) => one !== null)
      .find((one) => iova >= one.iova && iova + BigInt(length) <= one.iova + BigInt(one.size));
    if (found === undefined || (access !== 'write' && !found.readable)) return undefined;
    return access !== 'read' && !found.writable ? undefined : found;
  }
}

function offsetOf(index: number): number {
  return LAYOUT.slice(0, index).reduce((sum, { size }) => sum + size, 0);
}
