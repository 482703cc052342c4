// SPDX-License-Identifier: MIT
import { VfioUserError, invalidArgument, outOfRange } from '../errors';
import { Mapping, pageSize, type EventFd } from '../native';
import { RegisterAccess, bigintOf, registerBytes, type RegisterWidth } from '../pci/registers';
import { decodeIoRegionResponse, encodeIoRegionCommand, type U64 } from '../protocol';
import type { IoRegionChannel } from './io-region-channel';

/** A part of a region whose accesses a descriptor takes. */
export type SubRegion = IoEventFd | IoRegionFd;

/** `KVM_IOEVENTFD_FLAG_*` (`linux/kvm.h`). */
const IoEventFdFlag = { datamatch: 1, pio: 2 } as const;
/** `KVM_IOREGION_*` of the ioregionfd series. */
const IoRegionFlag = { pio: 1, postedWrites: 2 } as const;

/** Where a shadow ioeventfd keeps the value that was written. */
export interface ShadowMemory {
  readonly fd: number;
  readonly offset: number;
}

/** What an {@link IoEventFd} is made of. */
export interface IoEventFdDescription {
  readonly offset: number;
  readonly size: number;
  readonly flags: number;
  readonly datamatch: U64;
}

/**
 * A register for whose writes an eventfd is signalled instead of sending a message (vfio-user, VFIO_USER_DEVICE_GET_REGION_IO_FDS, and
 * `KVM_IOEVENTFD` of the kernel). The device learns that there was a write, but neither its value nor its width, except
 * with shadow memory, libvfio-user's extension, where the value is stored first.
 */
export class IoEventFd {
  /** Tells the two kinds of sub-region apart. */
  readonly kind = 'ioeventfd';
  /** First byte in the region. */
  readonly offset: number;
  /** Width of a write in bytes, 0 for any. */
  readonly size: number;
  /** Only writes of this value count; null for any value. */
  readonly datamatch: bigint | null;
  /** Whether the region is in I/O space. */
  readonly portIo: boolean;
  readonly #eventFd: EventFd;
  readonly #shadow: Mapping | null;
  readonly #shadowAt: number;

  /** @throws VfioUserError ERR_VFIO_USER_SYSTEM when the shadow memory cannot be mapped. @internal */
  constructor(description: IoEventFdDescription, eventFd: EventFd, shadow: ShadowMemory | null) {
    this.offset = description.offset;
    this.size = description.size;
    this.datamatch =
      (description.flags & IoEventFdFlag.datamatch) === 0 ? null : BigInt(description.datamatch);
    this.portIo = (description.flags & IoEventFdFlag.pio) !== 0;
    this.#eventFd = eventFd;
    this.#shadowAt = (shadow?.offset ?? 0) % pageSize;
    this.#shadow =
      shadow === null
        ? null
        : Mapping.map(
            shadow.fd,
            shadow.offset - this.#shadowAt,
            this.#shadowAt + (this.size === 0 ? 8 : this.size),
          );
  }

  /** Whether the device learns the value that was written. */
  get shadowed(): boolean {
    return this.#shadow !== null;
  }

  /** The eventfd, for KVM or a worker thread. It belongs to this object. */
  get fd(): number {
    return this.#eventFd.fd;
  }

  /** Whether a write of these bytes at this offset of the region signals the eventfd. */
  matches(offset: number, data: Uint8Array): boolean {
    if (offset !== this.offset || (this.size !== 0 && data.length !== this.size)) return false;
    return isWidth(data.length) && (this.datamatch === null || bigintOf(data) === this.datamatch);
  }

  /**
   * Does what a write of `value` does: stores it in the shadow memory, if any, and signals.
   *
   * @param value an unsigned integer of `size` bytes. Default: {@link datamatch}, or 0
   * @throws TypeError ERR_INVALID_ARG_VALUE for another value than {@link datamatch}; RangeError ERR_OUT_OF_RANGE for one that
   *   does not fit
   */
  signal(value: number | bigint = this.datamatch ?? 0): void {
    if (this.datamatch !== null && BigInt(value) !== this.datamatch) {
      throw invalidArgument(
        `the ioeventfd at 0x${this.offset.toString(16)} is for writes of 0x${this.datamatch.toString(16)} only`,
      );
    }
    this.signalData(registerBytes(BigInt(value), this.size === 0 ? 8 : (this.size as RegisterWidth)));
  }

  /** Does what a write that {@link matches} does. @internal */
  signalData(data: Uint8Array): void {
    if (this.#shadow !== null) store(this.#shadow.buffer, this.#shadowAt, data);
    this.#eventFd.signal();
  }

  /** @internal */
  close(): void {
    this.#shadow?.close();
    this.#eventFd.close();
  }
}

/** What an {@link IoRegionFd} is made of. */
export interface IoRegionFdDescription {
  readonly offset: number;
  readonly size: number;
  readonly flags: number;
  readonly userData: U64;
}

/**
 * A part of a region whose accesses go to a socket of their own. Offsets are in the region. After an access that failed with
 * ERR_VFIO_USER_TIMEOUT, DISCONNECTED or CLOSED, the sub-region has to be accessed through its region.
 */
export class IoRegionFd extends RegisterAccess {
  /** Tells the two kinds of sub-region apart. */
  readonly kind = 'ioregionfd';
  /** First byte in the region. */
  readonly offset: number;
  /** In bytes; 0 for a single register of any width. */
  readonly size: number;
  /** Whether writes are not answered. They are done when the server reads them. */
  readonly postedWrites: boolean;
  /** Whether the region is in I/O space. */
  readonly portIo: boolean;
  /** What tells the server which sub-region is meant. */
  readonly userData: U64;
  readonly #channel: IoRegionChannel;

  /** @internal */
  constructor(description: IoRegionFdDescription, channel: IoRegionChannel) {
    super();
    this.offset = description.offset;
    this.size = description.size;
    this.postedWrites = (description.flags & IoRegionFlag.postedWrites) !== 0;
    this.portIo = (description.flags & IoRegionFlag.pio) !== 0;
    this.userData = description.userData;
    this.#channel = channel;
  }

  protected override async readRegister(offset: number, width: RegisterWidth): Promise<Uint8Array> {
    return this.#bytes(await this.#channel.request(this.#command(offset, width, null), true), width);
  }

  protected override readRegisterSync(offset: number, width: RegisterWidth): Uint8Array {
    return this.#bytes(this.#channel.requestSync(this.#command(offset, width, null), true), width);
  }

  protected override async writeRegister(offset: number, data: Uint8Array): Promise<void> {
    await this.#channel.request(this.#write(offset, data), !this.postedWrites);
  }

  protected override writeRegisterSync(offset: number, data: Uint8Array): void {
    this.#channel.requestSync(this.#write(offset, data), !this.postedWrites);
  }

  /** @internal */
  close(): void {
    this.#channel.close();
  }

  #bytes(response: Uint8Array, width: RegisterWidth): Uint8Array {
    return registerBytes(decodeIoRegionResponse(response, width), width);
  }

  #write(offset: number, data: Uint8Array): Uint8Array {
    return this.#command(offset, data.length as RegisterWidth, bigintOf(data));
  }

  /** @param data null for a read */
  #command(offset: number, width: RegisterWidth, data: bigint | null): Uint8Array {
    const size = this.size === 0 ? width : this.size;
    const inside = offset - this.offset;
    if (!Number.isSafeInteger(offset) || inside < 0 || inside + width > size) {
      throw outOfRange(
        `${width} bytes at offset ${offset} are not within the sub-region of ${size} bytes at ${this.offset}`,
      );
    }
    if (offset % width !== 0)
      throw invalidArgument(`a register of ${width} bytes starts at a multiple of ${width}`);
    return encodeIoRegionCommand({
      write: data !== null,
      width,
      respond: data === null || !this.postedWrites,
      userData: this.userData,
      offset: inside,
      data: data ?? 0n,
    });
  }
}

const isWidth = (length: number): boolean => length === 1 || length === 2 || length === 4 || length === 8;

/** Uses a single store where the place is aligned, since the device may read the value at any time. */
function store(buffer: ArrayBuffer, at: number, data: Uint8Array): void {
  if (buffer.byteLength === 0) {
    throw new VfioUserError(
      'ERR_VFIO_USER_CLOSED',
      'the shadow memory of an ioeventfd is gone: its device is closed, or was disconnected',
    );
  }
  const width = data.length;
  const value = bigintOf(data);
  if (at % width !== 0) new Uint8Array(buffer).set(data, at);
  else if (width === 8) Atomics.store(new BigUint64Array(buffer, at, 1), 0, value);
  else {
    const Register = width === 4 ? Uint32Array : width === 2 ? Uint16Array : Uint8Array;
    Atomics.store(new Register(buffer, at, 1), 0, Number(value));
  }
}
