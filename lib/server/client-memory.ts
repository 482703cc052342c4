// SPDX-License-Identifier: MIT
import { Budget } from '../async';
import { IovaTable, formatRange, type IovaSegment } from '../dma/table';
import { VfioUserError } from '../errors';
import { Mapping } from '../native';
import { DmaMapFlag, type DmaMapRequest, type U64 } from '../protocol';
import { CommandError, Errno, type Connection } from '../transport';
import type { ClientMemory, ClientRange, MappedPlace } from './device-model';
import { ClientDirtyLog } from './dirty-log';
import { DmaMessages } from './dma-messages';
import { MappedRange, type Access, type RangeRequest } from './mapped-range';
import { inSlices } from './time-slice';

/**
 * Most bytes that are under way to and from a client by message, unless one access alone has more. A model may be made to ask for
 * thousands of accesses at a time, by a client that does not answer one of them.
 */
const MESSAGE_BYTES = 32 << 20;

/** Limits of a {@link ClientMemoryMap}. */
export interface ClientMemoryLimits {
  /** Most ranges at a time. */
  readonly maxDmaMaps: number;
  /** Page sizes, or'ed together; addresses and sizes are multiples of the smallest. */
  readonly pageSizes: number;
  /** Largest `count` of a DMA_READ or DMA_WRITE, in bytes. */
  readonly maxDataXferSize: number;
  /** See `ProcessLimits`. */
  readonly mappings: number;
}

/** A part of an access that has to go by message. */
interface DistantPart {
  readonly address: bigint;
  readonly part: Uint8Array;
}

/** The memory of one client: what it showed with DMA_MAP. */
export class ClientMemoryMap implements ClientMemory {
  readonly dirtyLog: ClientDirtyLog;
  readonly #ranges = new IovaTable<MappedRange>();
  readonly #messages: DmaMessages;
  readonly #budget = new Budget(MESSAGE_BYTES);
  readonly #limits: ClientMemoryLimits;
  readonly #report: (error: unknown) => void;
  #generation = 0;
  #busMaster = true;
  #closed = false;
  /** Ranges whose memory the client has truncated. */
  #lost = 0;
  /** The range of the last hit: a guest has few ranges, and uses one of them most of the time. */
  #recent: MappedRange | null = null;

  /**
   * @param connection for DMA_READ and DMA_WRITE
   * @param report told of memory that the client truncated (it reads as zero then), and of what cannot be unmapped
   */
  constructor(connection: Connection, limits: ClientMemoryLimits, report: (error: unknown) => void) {
    this.#messages = new DmaMessages(connection, limits.maxDataXferSize);
    this.#limits = limits;
    this.dirtyLog = new ClientDirtyLog(limits.maxDataXferSize);
    this.#report = report;
  }

  /** The client is gone. */
  get closed(): boolean {
    return this.#closed;
  }

  get generation(): number {
    return this.#generation;
  }

  get busMaster(): boolean {
    return this.#busMaster;
  }

  set busMaster(value: boolean) {
    if (value === this.#busMaster) return;
    this.#busMaster = value;
    this.#changed();
  }

  get ranges(): readonly ClientRange[] {
    return [...this.#ranges];
  }

  place(iova: number | bigint, length: number, access: Access): MappedPlace | null {
    if (!this.#busMaster) return null;
    const range = this.#find(iova, length);
    const buffer = range?.buffer ?? null;
    if (range === null || buffer === null || !range.allows(access)) return null;
    const offset = typeof iova === 'number' ? iova - range.first : Number(iova - range.iova);
    return { range, buffer, offset };
  }

  async read(iova: number | bigint, length: number): Promise<Uint8Array> {
    return this.#transfer(iova, length, 'read', async (segments) => {
      const data = new Uint8Array(length);
      // What is mapped is read now: it may be unmapped while we wait for messages.
      const distant = visitMapped(segments, data, (mapped, part) => {
        part.set(mapped);
      });
      for (const { address, part } of distant) await this.#messages.read(address, part);
      return data;
    });
  }

  async write(iova: number | bigint, data: Uint8Array): Promise<void> {
    return this.#transfer(iova, data.byteLength, 'write', async (segments) => {
      const distant = visitMapped(segments, data, (mapped, part) => {
        mapped.set(part);
      });
      this.dirtyLog.mark(iova, data.byteLength);
      try {
        for (const { address, part } of distant) await this.#messages.write(address, part);
      } finally {
        // Marked again, as the log may have been read meanwhile.
        if (distant.length > 0) this.dirtyLog.mark(iova, data.byteLength);
      }
    });
  }

  markDirty(iova: number | bigint, length: number): void {
    this.#allowed(iova, length, 'write');
    this.dirtyLog.mark(iova, length);
  }

  /**
   * Enters the range of a DMA_MAP (vfio-user, VFIO_USER_DMA_MAP), and maps the descriptor that came with it, if any.
   *
   * @param fd stays the caller's; null when none came
   * @throws CommandError EINVAL, EEXIST for an overlap, ENOSPC for too many ranges, ENOMEM for too many mappings, or the
   *   errno of mmap(2)
   */
  map(request: Readonly<DmaMapRequest>, fd: number | null): ClientRange {
    const checked = this.#check(request);
    if (this.#ranges.overlap(checked.iova, checked.size) !== undefined)
      throw new CommandError(Errno.EEXIST, `${formatRange(checked)} overlaps what is mapped`);
    if (this.#ranges.size >= this.#limits.maxDmaMaps)
      throw new CommandError(Errno.ENOSPC, `${this.#ranges.size} ranges are mapped, no more can be`);
    if (fd !== null && Mapping.count >= this.#limits.mappings)
      throw new CommandError(
        Errno.ENOMEM,
        `${Mapping.count} mappings are in use, no more are made for clients`,
      );
    const range = new MappedRange(checked, fd, (lost) => {
      this.#onLost(lost);
    });
    this.#ranges.add(range);
    this.#changed();
    return range;
  }

  /**
   * The ranges that a DMA_UNMAP names, by address: all that lie within it. There may be none: QEMU with a virtual IOMMU unmaps
   * whole address spaces.
   *
   * @throws CommandError EINVAL when it cuts through a range, or names no bytes
   */
  within(address: U64, size: U64): ClientRange[] {
    if (BigInt(size) === 0n) throw new CommandError(Errno.EINVAL, 'a DMA_UNMAP of 0 bytes');
    const { ranges, cut } = this.#ranges.within(BigInt(address), BigInt(size));
    if (cut === undefined) return ranges;
    throw new CommandError(
      Errno.EINVAL,
      `a DMA_UNMAP of 0x${size.toString(16)} bytes at 0x${address.toString(16)} cuts through ${formatRange(cut)}`,
    );
  }

  /** The range with exactly this address and size; undefined when there is none. */
  get(address: U64, size: U64): ClientRange | undefined {
    return this.#ranges.get(BigInt(address), Number(size));
  }

  /** Takes a range away, and unmaps it. Does nothing when it is gone already. */
  remove(range: ClientRange): void {
    const own = this.#ranges.get(range.iova, range.size);
    if (own === undefined || own !== range) return;
    this.#ranges.delete(own);
    this.dirtyLog.clear(own.iova, own.size);
    this.#changed();
    this.#unmap(own);
  }

  /** Takes everything away, for good. Resolves when all is unmapped, in a time that is proportional to the number of ranges. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#budget.cancelAll();
    if (this.#lost > 1) this.#report(lostError(`in ${this.#lost} ranges`));
    const ranges = [...this.#ranges];
    this.#ranges.clear();
    this.dirtyLog.clearAll();
    this.#changed();
    await inSlices(ranges, (range) => {
      this.#unmap(range);
    });
  }

  /** The first range is told at once, the others when the client is gone: there may be thousands. */
  #onLost(range: MappedRange): void {
    if (this.#lost++ === 0) this.#report(lostError(`at ${formatRange(range)}`));
  }

  #changed(): void {
    this.#recent = null;
    this.#generation++;
  }

  #unmap(range: MappedRange): void {
    try {
      range.close();
    } catch (error) {
      this.#report(error);
    }
  }

  #check({ flags, offset, address, size }: Readonly<DmaMapRequest>): RangeRequest {
    const iova = BigInt(address);
    const known = DmaMapFlag.read | DmaMapFlag.write;
    if ((flags & ~known) !== 0)
      throw new CommandError(Errno.EINVAL, `DMA_MAP flags are 0x${flags.toString(16)}`);
    const unit = BigInt(this.#limits.pageSizes) & -BigInt(this.#limits.pageSizes);
    if (iova % unit !== 0n || BigInt(size) % unit !== 0n || BigInt(offset) % unit !== 0n)
      throw new CommandError(Errno.EINVAL, `a DMA_MAP that is not made of pages of ${unit} bytes`);
    if (typeof size !== 'number' || typeof offset !== 'number')
      throw new CommandError(Errno.EINVAL, 'a DMA_MAP that is beyond reason');
    return { iova, size, flags, offset };
  }

  /**
   * Calls `move` with the segments of an access: at once when it needs no messages, or there is room for them; otherwise when others
   * have ended, with what is mapped then.
   */
  async #transfer<T>(
    iova: number | bigint,
    length: number,
    access: 'read' | 'write',
    move: (segments: IovaSegment<MappedRange>[]) => Promise<T>,
  ): Promise<T> {
    const segments = this.#accessible(iova, length, access);
    let distant = 0;
    for (const segment of segments) if (segment.range.buffer === null) distant += segment.length;
    if (distant === 0) return move(segments);
    const claim = this.#budget.take(distant);
    if (claim !== null && !(await claim.granted)) throw goneError(access);
    try {
      return await move(claim === null ? segments : this.#accessible(iova, length, access));
    } finally {
      this.#budget.give(distant);
    }
  }

  #find(iova: number | bigint, length: number): MappedRange | null {
    const recent = this.#recent;
    if (typeof iova === 'number') {
      if (!Number.isSafeInteger(iova)) return null;
      if (
        recent !== null &&
        length > 0 &&
        iova >= recent.first &&
        iova + length <= recent.first + recent.size
      )
        return recent;
    }
    if (!Number.isSafeInteger(length) || length < 1) return null;
    const [segment, other] = this.#ranges.lookup(BigInt(iova), length) ?? [];
    if (segment === undefined || other !== undefined) return null;
    return (this.#recent = segment.range);
  }

  /** The segments of an access, if it is allowed now. */
  #accessible(iova: number | bigint, length: number, access: 'read' | 'write'): IovaSegment<MappedRange>[] {
    if (this.#busMaster) return this.#allowed(iova, length, access);
    throw new VfioUserError(
      'ERR_VFIO_USER_DMA',
      'the client does not let the device reach memory: Bus Master Enable of its command register is clear',
    );
  }

  #allowed(iova: number | bigint, length: number, access: 'read' | 'write'): IovaSegment<MappedRange>[] {
    const valid = typeof iova === 'bigint' || Number.isSafeInteger(iova);
    const segments = valid ? this.#ranges.lookup(BigInt(iova), length) : undefined;
    if (segments?.every(({ range }) => range.allows(access)) === true) return segments;
    const problem =
      segments === undefined ? 'is not mapped' : `may not be ${access === 'read' ? 'read' : 'written'}`;
    throw new VfioUserError(
      'ERR_VFIO_USER_DMA',
      `${length} bytes at 0x${iova.toString(16)}: client memory that ${problem}. Mapped: ${this.#ranges.dump()}`,
    );
  }
}

function goneError(access: 'read' | 'write'): VfioUserError {
  return new VfioUserError(
    'ERR_VFIO_USER_DISCONNECTED',
    `the client went away before its memory could be ${access === 'read' ? 'read' : 'written'}`,
  );
}

function lostError(where: string): VfioUserError {
  return new VfioUserError(
    'ERR_VFIO_USER_MAPPING_LOST',
    `the client truncated the memory that it had mapped ${where}; the lost part reads as zero`,
  );
}

/**
 * Calls `visit` for what is mapped here, with the memory and the part of `data` that belongs to it.
 *
 * @returns the parts of `data` that are not mapped here
 */
function visitMapped(
  segments: readonly IovaSegment<MappedRange>[],
  data: Uint8Array,
  visit: (mapped: Uint8Array, part: Uint8Array) => void,
): DistantPart[] {
  const distant: DistantPart[] = [];
  let at = 0;
  for (const { range, offset, length } of segments) {
    const part = data.subarray(at, at + length);
    at += length;
    if (range.buffer === null) distant.push({ address: range.iova + BigInt(offset), part });
    else visit(new Uint8Array(range.buffer, offset, length), part);
  }
  return distant;
}
