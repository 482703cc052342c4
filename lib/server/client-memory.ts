// SPDX-License-Identifier: MIT
import { constants } from 'node:buffer';
import { VfioUserError } from '../errors';
import { Mapping, closeFd } from '../native';
import { IovaMap, formatRange, type IovaSegment } from '../pci/iova-map';
import {
  Command,
  DmaMapFlag,
  decodeDmaReadReply,
  decodeDmaWriteReply,
  encodeDmaReadRequest,
  encodeDmaWriteRequest,
  type DmaCountSize,
  type DmaMapRequest,
  type U64,
} from '../protocol';
import { CommandError, Errno, type Connection, type FdList } from '../transport';
import type { ClientMemory, ClientRange, MappedPlace } from './device-model';
import { ClientDirtyLog } from './dirty-log';

/** Limits of a {@link ClientMemoryMap}. */
export interface ClientMemoryLimits {
  /** Most ranges at a time. */
  readonly maxDmaMaps: number;
  /** Page sizes, or'ed together; addresses and sizes are multiples of the smallest. */
  readonly pageSizes: number;
  /** Largest `count` of a DMA_READ or DMA_WRITE, in bytes. */
  readonly maxDataXferSize: number;
}

type Access = 'read' | 'write' | 'readwrite';

/**
 * Most bytes that are asked for with a DMA_READ. QEMU (hw/vfio-user/proxy.c, vfio_user_send_one) sends a message with one
 * call and forgets what the socket's send buffer did not take, 208 KiB of an idle one. The kernel takes pieces of about
 * 36 KiB whole or not at all.
 */
const MAX_READ = 32 << 10;

/** A range that the client has mapped, and our view of it. */
class MappedRange implements ClientRange {
  readonly iova: bigint;
  readonly size: number;
  readonly readable: boolean;
  readonly writable: boolean;
  /** First address as a number, NaN above 2^53, so that comparisons with it fail. */
  readonly first: number;
  readonly #mapping: Mapping | null;

  constructor(iova: bigint, size: number, flags: number, mapping: Mapping | null) {
    this.iova = iova;
    this.size = size;
    this.readable = (flags & DmaMapFlag.read) !== 0;
    this.writable = (flags & DmaMapFlag.write) !== 0;
    this.first = iova + BigInt(size) <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(iova) : NaN;
    this.#mapping = mapping;
  }

  get buffer(): ArrayBuffer | null {
    return this.#mapping === null || this.#mapping.closed ? null : this.#mapping.buffer;
  }

  allows(access: Access): boolean {
    return (access === 'write' || this.readable) && (access === 'read' || this.writable);
  }

  close(): void {
    this.#mapping?.close();
  }
}

/** The memory of one client: what it showed with DMA_MAP. */
export class ClientMemoryMap implements ClientMemory {
  readonly dirtyLog: ClientDirtyLog;
  readonly #ranges = new IovaMap<MappedRange>();
  readonly #connection: Connection;
  readonly #limits: ClientMemoryLimits;
  readonly #report: (error: unknown) => void;
  #generation = 0;
  /** The range of the last hit: a guest has few ranges, and uses one of them most of the time. */
  #recent: MappedRange | null = null;
  /** How the client writes counts, once it is known to deviate. */
  #countSize: DmaCountSize | undefined;

  /** @param report told of memory that the client truncated (it reads as zero then), and of what cannot be unmapped */
  constructor(connection: Connection, limits: ClientMemoryLimits, report: (error: unknown) => void) {
    this.#connection = connection;
    this.#limits = limits;
    this.dirtyLog = new ClientDirtyLog(limits.maxDataXferSize);
    this.#report = report;
  }

  get generation(): number {
    return this.#generation;
  }

  get ranges(): readonly ClientRange[] {
    return [...this.#ranges];
  }

  place(iova: number | bigint, length: number, access: Access): MappedPlace | null {
    const range = this.#find(iova, length);
    const buffer = range?.buffer ?? null;
    if (range === null || buffer === null || !range.allows(access)) return null;
    const offset = typeof iova === 'number' ? iova - range.first : Number(iova - range.iova);
    return { range, buffer, offset };
  }

  async read(iova: number | bigint, length: number): Promise<Uint8Array> {
    const segments = this.#accessible(iova, length, 'read');
    const data = new Uint8Array(length);
    const distant: { address: bigint; part: Uint8Array }[] = [];
    // What is mapped is read now: it may be unmapped while we wait for messages.
    eachPart(segments, data, (part, { range, offset }) => {
      if (range.buffer === null) distant.push({ address: range.iova + BigInt(offset), part });
      else part.set(new Uint8Array(range.buffer, offset, part.byteLength));
    });
    for (const { address, part } of distant) await this.#readByMessage(address, part);
    return data;
  }

  async write(iova: number | bigint, data: Uint8Array): Promise<void> {
    const segments = this.#accessible(iova, data.byteLength, 'write');
    const distant: { address: bigint; part: Uint8Array }[] = [];
    eachPart(segments, data, (part, { range, offset }) => {
      if (range.buffer === null) distant.push({ address: range.iova + BigInt(offset), part });
      else new Uint8Array(range.buffer, offset, part.byteLength).set(part);
    });
    this.dirtyLog.mark(iova, data.byteLength);
    try {
      for (const { address, part } of distant) await this.#writeByMessage(address, part);
    } finally {
      // Again: the log may have been asked meanwhile.
      if (distant.length > 0) this.dirtyLog.mark(iova, data.byteLength);
    }
  }

  markDirty(iova: number | bigint, length: number): void {
    this.#accessible(iova, length, 'write');
    this.dirtyLog.mark(iova, length);
  }

  /**
   * Enters the range of a DMA_MAP (vfio-user, VFIO_USER_DMA_MAP), and maps the descriptor that came with it, if any.
   * A range that is too long for an ArrayBuffer of this Node.js is reached by messages.
   *
   * @throws CommandError EINVAL, EEXIST for an overlap, ENOSPC, or the errno of mmap(2)
   */
  map(request: Readonly<DmaMapRequest>, fds: FdList): ClientRange {
    const { flags, offset, address, size } = request;
    const iova = BigInt(address);
    const known = DmaMapFlag.read | DmaMapFlag.write;
    if ((flags & ~known) !== 0)
      throw new CommandError(Errno.EINVAL, `DMA_MAP flags are 0x${flags.toString(16)}`);
    if (fds.length > 1)
      throw new CommandError(Errno.EINVAL, `DMA_MAP with ${fds.length} file descriptors`);
    const unit = BigInt(this.#limits.pageSizes) & -BigInt(this.#limits.pageSizes);
    if (iova % unit !== 0n || BigInt(size) % unit !== 0n || BigInt(offset) % unit !== 0n)
      throw new CommandError(Errno.EINVAL, `a DMA_MAP that is not made of pages of ${unit} bytes`);
    if (typeof size !== 'number' || typeof offset !== 'number')
      throw new CommandError(Errno.EINVAL, 'a DMA_MAP that is beyond reason');
    if (this.#ranges.overlap(iova, size) !== undefined)
      throw new CommandError(Errno.EEXIST, `${formatRange({ iova, size })} overlaps what is mapped`);
    if (this.#ranges.size >= this.#limits.maxDmaMaps)
      throw new CommandError(Errno.ENOSPC, `${this.#ranges.size} ranges are mapped, no more can be`);
    const mapping = size > constants.MAX_LENGTH ? null : mapDescriptor(fds, offset, size, flags);
    if (mapping !== null) {
      mapping.onLost = () => {
        this.#report(lostError({ iova, size }));
      };
    }
    const range = new MappedRange(iova, size, flags, mapping);
    this.#ranges.add(range);
    this.#generation++;
    return range;
  }

  /** The range with exactly this address and size, which a DMA_UNMAP must name; undefined when there is none. */
  get(address: U64, size: U64): ClientRange | undefined {
    return this.#ranges.get(BigInt(address), Number(size));
  }

  /** Takes a range away, and unmaps it. Does nothing when it is gone already. */
  remove(range: ClientRange): void {
    const own = this.#ranges.get(range.iova, range.size);
    if (own === undefined || own !== range) return;
    this.#ranges.delete(own);
    this.dirtyLog.clear(own.iova, own.size);
    this.#recent = null;
    this.#generation++;
    try {
      own.close();
    } catch (error) {
      this.#report(error);
    }
  }

  /** Takes everything away. */
  close(): void {
    for (const range of this.ranges) this.remove(range);
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

  #accessible(iova: number | bigint, length: number, access: 'read' | 'write'): IovaSegment<MappedRange>[] {
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

  async #readByMessage(address: bigint, into: Uint8Array): Promise<void> {
    for (const { at, part } of chunks(into, Math.min(this.#limits.maxDataXferSize, MAX_READ))) {
      const asked = { address: address + BigInt(at), count: part.byteLength };
      const { payload, fds } = await this.#connection.request({
        command: Command.dmaRead,
        payload: encodeDmaReadRequest(asked),
      });
      fds.close();
      const { count, data, countSize } = decodeDmaReadReply(payload, asked, this.#countSize);
      if (countSize === 4) this.#countSize = countSize;
      if (count < asked.count) throw shortTransfer('DMA_READ', count, asked.count);
      part.set(data);
    }
  }

  async #writeByMessage(address: bigint, from: Uint8Array): Promise<void> {
    for (const { at, part } of chunks(from, this.#limits.maxDataXferSize)) {
      const asked = { address: address + BigInt(at), count: part.byteLength };
      const { payload, fds } = await this.#connection.request({
        command: Command.dmaWrite,
        payload: encodeDmaWriteRequest(asked),
        data: part,
      });
      fds.close();
      const { count } = decodeDmaWriteReply(payload, asked);
      if (count < asked.count) throw shortTransfer('DMA_WRITE', count, asked.count);
    }
  }
}

function* chunks(data: Uint8Array, most: number): Generator<{ at: number; part: Uint8Array }> {
  for (let at = 0; at < data.byteLength; at += most) yield { at, part: data.subarray(at, at + most) };
}

/** Calls `visit` with the part of `data` that belongs to each segment. */
function eachPart(
  segments: readonly IovaSegment<MappedRange>[],
  data: Uint8Array,
  visit: (part: Uint8Array, segment: IovaSegment<MappedRange>) => void,
): void {
  let at = 0;
  for (const segment of segments) {
    visit(data.subarray(at, at + segment.length), segment);
    at += segment.length;
  }
}

function mapDescriptor(fds: FdList, offset: number, size: number, flags: number): Mapping | null {
  const fd = fds.take(0);
  if (fd === undefined) return null;
  try {
    return Mapping.map(fd, offset, size, { writable: (flags & DmaMapFlag.write) !== 0 });
  } catch (error) {
    const errno = error instanceof VfioUserError ? error.errno : undefined;
    throw new CommandError(
      errno ?? Errno.EIO,
      error instanceof VfioUserError ? error.message : String(error),
    );
  } finally {
    closeFd(fd);
  }
}

function lostError(range: { iova: bigint; size: number }): VfioUserError {
  return new VfioUserError(
    'ERR_VFIO_USER_MAPPING_LOST',
    `the client truncated the memory that it had mapped at ${formatRange(range)}; the lost part reads as zero`,
  );
}

function shortTransfer(command: string, count: number, asked: number): VfioUserError {
  return new VfioUserError(
    'ERR_VFIO_USER_DMA',
    `the client transferred ${count} of ${asked} bytes with ${command}`,
    { command },
  );
}
