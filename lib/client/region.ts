// SPDX-License-Identifier: MIT
import { memoize } from '../async';
import { Region } from '../device/region';
import { RegionMappings } from '../device/region-mappings';
import { VfioUserError, invalidArgument } from '../errors';
import { closeFd } from '../native';
import { PciRegion } from '../pci/device';
import type { RegisterWidth } from '../pci/registers';
import { Command } from '../protocol/commands';
import {
  REGION_ACCESS_SIZE,
  decodeRegionReadReply,
  decodeRegionWriteReply,
  encodeRegionReadRequest,
  encodeRegionWriteRequest,
} from '../protocol/region-access';
import type { Reply } from '../transport';
import { RegionIoFds } from './io-fds';
import type { Link } from './link';
import type { PostedWrites } from './posted-writes';
import type { RegionDescription } from './region-description';
import type { SubRegion } from './sub-region';

/** How regions of this connection are accessed. */
export interface RegionAccess {
  /** Largest `count` of one message, in bytes. */
  readonly maxTransfer: number;
  readonly postedWrites: PostedWrites;
}

/** How to write to a region. */
export interface RegionWriteOptions {
  /**
   * True: no reply is asked for (vfio-user, "Header", No_reply), and the write is done when it has been queued: at once,
   * or when there is room. What the device makes of it, an error too, is not seen.
   *
   * The server takes posted writes and later messages in the order of the calls. A store to a mapped area is no message
   * and may overtake them: call the device's `flush()` before such a doorbell. Default: {@link VfioUserRegion.posted}.
   */
  readonly posted?: boolean;
}

/**
 * libvfio-user reads a request's body with one recv(2) and takes less for an error. The kernel cuts a message into
 * pieces of about 36 KiB, so that writes of at most 32 KiB always arrive whole.
 */
export const MAX_WRITE = 32 << 10;

/** A region of a vfio-user device, accessed by message or through its mapped areas. */
export class VfioUserRegion extends Region<RegionWriteOptions> {
  /** Number of descriptors that the server sent for the region. */
  readonly fdCount: number;
  /** Type of a device-specific region (`VFIO_REGION_TYPE_*`, `linux/vfio.h`), undefined of a region without one. */
  readonly type: number | undefined;
  /** Subtype within {@link type}. */
  readonly subtype: number | undefined;

  readonly #link: Link;
  readonly #maxRead: number;
  readonly #maxWrite: number;
  /** What the server of this connection lets be mapped, and the descriptors for that. */
  #mappings: RegionMappings;
  #fds: readonly number[];
  readonly #postedWrites: PostedWrites;
  #posted = false;
  #ioFds = memoize(() => this.#fetchIoFds());
  #openIoFds: RegionIoFds | null = null;
  /** Set while writes go to eventfds. */
  #eventFds: RegionIoFds | null = null;
  #closed = false;

  /** @internal */
  constructor(link: Link, description: RegionDescription, access: RegionAccess) {
    super(link.name, description);
    this.#link = link;
    this.fdCount = description.fds.length;
    this.#fds = description.fds;
    this.#mappings = new RegionMappings({ ...description, writable: this.writable });
    this.type = description.type?.type;
    this.subtype = description.type?.subtype;
    this.#maxRead = access.maxTransfer;
    this.#maxWrite = Math.min(access.maxTransfer, MAX_WRITE);
    this.#postedWrites = access.postedWrites;
  }

  /** Whether writes are posted unless their own {@link RegionWriteOptions} say otherwise. Default false. */
  get posted(): boolean {
    return this.#posted;
  }

  /** @throws TypeError ERR_INVALID_ARG_VALUE for configuration space, whose writes must be done when the call returns */
  set posted(posted: boolean) {
    this.#posted = this.#isPosted({ posted });
  }

  protected override readRegister(offset: number, width: RegisterWidth): Promise<Uint8Array> {
    return this.#readOnce(this.aligned(offset, width), width);
  }

  protected override readRegisterSync(offset: number, width: RegisterWidth): Uint8Array {
    return this.#readOnceSync(this.aligned(offset, width), width);
  }

  protected override writeRegister(
    offset: number,
    data: Uint8Array,
    options?: RegionWriteOptions,
  ): Promise<void> {
    return this.#write(this.aligned(offset, data.length), data, data.length, options);
  }

  protected override writeRegisterSync(offset: number, data: Uint8Array, options?: RegionWriteOptions): void {
    this.#writeSync(this.aligned(offset, data.length), data, data.length, options);
  }

  /**
   * Reads any number of bytes. More than one message can carry are read with several messages in flight.
   *
   * @throws RangeError ERR_OUT_OF_RANGE when they are not within the region; VfioUserError ERR_VFIO_USER_UNSUPPORTED when it
   *   is not readable, REMOTE and others of a message
   */
  async readBytes(offset: number, length: number): Promise<Uint8Array> {
    this.within(offset, length);
    // Copied, since small payloads share their buffer with others.
    if (length <= this.#maxRead) return (await this.#readOnce(offset, length)).slice();
    const data = new Uint8Array(length);
    await Promise.all(
      chunks(length, this.#maxRead).map(async ({ start, size }) => {
        data.set(await this.#readOnce(offset + start, size), start);
      }),
    );
    return data;
  }

  /** Reads any number of bytes, blocking the thread. Errors are those of {@link readBytes}. */
  readBytesSync(offset: number, length: number): Uint8Array {
    this.within(offset, length);
    const data = new Uint8Array(length);
    for (const { start, size } of chunks(length, this.#maxRead)) {
      data.set(this.#readOnceSync(offset + start, size), start);
    }
    return data;
  }

  /**
   * Writes any number of bytes, in order. `data` must not change before the promise settles.
   *
   * @throws RangeError ERR_OUT_OF_RANGE when they are not within the region; VfioUserError ERR_VFIO_USER_UNSUPPORTED when it
   *   is not writable, REMOTE and others of a message
   */
  async writeBytes(offset: number, data: Uint8Array, options?: RegionWriteOptions): Promise<void> {
    this.within(offset, data.length);
    await this.#write(offset, data, this.#maxWrite, options);
  }

  /** Writes any number of bytes, in order, blocking the thread. Errors are those of {@link writeBytes}. */
  writeBytesSync(offset: number, data: Uint8Array, options?: RegionWriteOptions): void {
    this.within(offset, data.length);
    this.#writeSync(offset, data, this.#maxWrite, options);
  }

  /**
   * The parts of the region whose accesses go to descriptors instead of messages: register writes to eventfds, accesses to
   * sockets. The server is asked once. Sub-regions whose descriptor cannot be used here are left out.
   *
   * From then on, a write that an ioeventfd stands for signals it instead of sending a message. The device sees such a
   * signal apart from messages, in no order with them.
   *
   * The descriptors are those of this connection. When it ends they are closed, and writes go by message until this is
   * called again.
   *
   * @param options `useForWrites` false: writes go by message as before. Default true
   * @throws VfioUserError ERR_VFIO_USER_REMOTE when the server does not offer this; PROTOCOL and others of a message
   */
  async ioFds(options: { readonly useForWrites?: boolean } = {}): Promise<readonly SubRegion[]> {
    const ioFds = await this.#ioFds();
    this.#assertOpen();
    const current = ioFds === this.#openIoFds;
    this.#eventFds = options.useForWrites === false || !current ? null : ioFds;
    return ioFds.subRegions;
  }

  /** @internal */
  protected override mappings(): RegionMappings {
    this.#assertOpen();
    this.#link.assertConnected(`mapping region ${this.index}`);
    return this.#mappings;
  }

  /** Unmaps everything and closes the descriptors. @internal */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.connectionEnded();
  }

  /**
   * Unmaps everything and closes the descriptors, which were those of a server that has gone.
   *
   * @returns number of mappings and sub-regions that were still in use
   * @internal
   */
  connectionEnded(): { mappings: number; subRegions: number } {
    const lost = { mappings: this.#mappings.close(), subRegions: this.#openIoFds?.subRegions.length ?? 0 };
    for (const fd of this.#fds) closeFd(fd);
    this.#fds = [];
    this.#mappings = new RegionMappings({ areas: this.areas, fds: [], fdOffset: 0, writable: this.writable });
    this.#openIoFds?.close();
    this.#openIoFds = null;
    this.#eventFds = null;
    this.#ioFds = memoize(() => this.#fetchIoFds());
    return lost;
  }

  /** Takes the descriptors of the server of a new connection, which has the same region. @internal */
  renew(description: RegionDescription): void {
    this.#fds = description.fds;
    this.#mappings = new RegionMappings({ ...description, writable: this.writable });
  }

  async #fetchIoFds(): Promise<RegionIoFds> {
    const ioFds = await RegionIoFds.fetch(this.#link, this.index, this.size);
    if (!this.#closed && this.#link.state === 'connected') {
      this.#openIoFds = ioFds;
      return ioFds;
    }
    // They came just before the connection ended.
    ioFds.close();
    return this.#closed ? ioFds : this.#fetchIoFds();
  }

  async #readOnce(offset: number, count: number): Promise<Uint8Array> {
    return this.#readReply(await this.#link.request(this.#readRequest(offset, count)), offset, count);
  }

  #readOnceSync(offset: number, count: number): Uint8Array {
    return this.#readReply(this.#link.requestSync(this.#readRequest(offset, count)), offset, count);
  }

  #readRequest(offset: number, count: number): { command: number; payload: Uint8Array; maxReply: number } {
    this.assertReadable(offset, count);
    this.#fits(offset, count);
    const payload = encodeRegionReadRequest({ offset, region: this.index, count });
    return { command: Command.regionRead, payload, maxReply: REGION_ACCESS_SIZE + count };
  }

  #readReply(reply: Reply, offset: number, count: number): Uint8Array {
    const { data } = decodeRegionReadReply(reply.payload, { offset, region: this.index, count });
    this.#complete('REGION_READ', offset, count, data.length);
    return data;
  }

  /** Writes with messages of at most `most` bytes. */
  async #write(offset: number, data: Uint8Array, most: number, options?: RegionWriteOptions): Promise<void> {
    if (this.#eventFds?.signal(offset, data) === true) return;
    if (this.#isPosted(options)) {
      if (!this.#post(offset, data, most)) await this.#link.connection.drained();
      return;
    }
    const parts = chunks(data.length, most).map(async ({ start, size }) => {
      const part = data.subarray(start, start + size);
      const reply = await this.#link.request(this.#writeRequest(offset + start, part));
      this.#writeReply(reply, offset + start, part);
    });
    await Promise.all(parts);
  }

  #writeSync(offset: number, data: Uint8Array, most: number, options?: RegionWriteOptions): void {
    if (this.#eventFds?.signal(offset, data) === true) return;
    if (this.#isPosted(options)) {
      if (!this.#post(offset, data, most)) this.#link.connection.drainSync();
      return;
    }
    for (const { start, size } of chunks(data.length, most)) {
      const part = data.subarray(start, start + size);
      const reply = this.#link.requestSync(this.#writeRequest(offset + start, part));
      this.#writeReply(reply, offset + start, part);
    }
  }

  /** Posts all parts at once, so that nothing comes between them. Returns false when the caller should wait for room. */
  #post(offset: number, data: Uint8Array, most: number): boolean {
    let room = true;
    for (const { start, size } of chunks(data.length, most)) {
      const part = data.subarray(start, start + size);
      this.#checkWrite(offset + start, size);
      room = this.#postedWrites.write(this.index, offset + start, part);
    }
    return room;
  }

  #isPosted(options: RegionWriteOptions | undefined): boolean {
    const posted = options?.posted ?? this.#posted;
    if (posted && this.index === PciRegion.config) {
      throw invalidArgument(
        `writes to configuration space of ${this.#link.name} cannot be posted: what they change must hold when they return`,
      );
    }
    return posted;
  }

  #writeRequest(
    offset: number,
    data: Uint8Array,
  ): { command: number; payload: Uint8Array; data: Uint8Array } {
    this.#checkWrite(offset, data.length);
    const payload = encodeRegionWriteRequest({ offset, region: this.index, count: data.length });
    return { command: Command.regionWrite, payload, data };
  }

  #writeReply(reply: Reply, offset: number, data: Uint8Array): void {
    const written = decodeRegionWriteReply(reply.payload, { offset, region: this.index, count: data.length });
    this.#complete('REGION_WRITE', offset, data.length, written.count);
  }

  /** Refuses an access that was done in part: the protocol does not tell how to go on after that. */
  #complete(command: string, offset: number, asked: number, done: number): void {
    if (done === asked) return;
    throw new VfioUserError(
      'ERR_VFIO_USER_PROTOCOL',
      `${this.where(offset, asked)}: the server answered ${command} for ${done} bytes only`,
      { command },
    );
  }

  /** Checks that one message takes the bytes. Only a register can be too wide, as it cannot be accessed in parts. */
  #fits(offset: number, count: number): void {
    if (count <= this.#maxRead) return;
    throw new VfioUserError(
      'ERR_VFIO_USER_UNSUPPORTED',
      `${this.where(offset, count)}: one message takes at most ${this.#maxRead} bytes (max_data_xfer_size); access a narrower register`,
    );
  }

  #checkWrite(offset: number, length: number): void {
    this.assertWritable(offset, length);
    this.#fits(offset, length);
  }

  #assertOpen(): void {
    if (this.#closed)
      throw new VfioUserError(
        'ERR_VFIO_USER_CLOSED',
        `region ${this.index}: the device ${this.#link.name} is closed`,
      );
  }
}

function chunks(length: number, limit: number): { start: number; size: number }[] {
  const list = [];
  for (let start = 0; start < length; start += limit)
    list.push({ start, size: Math.min(limit, length - start) });
  return list;
}
