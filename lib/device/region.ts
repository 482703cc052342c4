// SPDX-License-Identifier: MIT
import { VfioUserError, invalidArgument, outOfRange } from '../errors';
import type { DeviceRegion, MappedArea, SparseArea } from '../pci/device';
import { RegisterAccess } from '../pci/registers';
import { RegionFlag } from '../protocol';
import type { RegionMappings } from './region-mappings';

/** What a device tells about one of its regions. */
export interface RegionDetails {
  readonly index: number;
  /** Bytes; 0 for a region that is absent. */
  readonly size: number;
  /** `RegionFlag` bits. */
  readonly flags: number;
  /** The parts that can be mapped. */
  readonly areas: readonly SparseArea[];
}

/**
 * A region of a device, with what is checked before an access whichever way that goes. How bytes are moved is for the classes
 * that extend this one.
 *
 * @typeParam Options how to write
 */
export abstract class Region<Options = never> extends RegisterAccess<Options> implements DeviceRegion {
  readonly index: number;
  readonly size: number;
  readonly readable: boolean;
  readonly writable: boolean;
  readonly areas: readonly SparseArea[];
  /** `VFIO_REGION_INFO_FLAG_*` bits as the device gave them (`linux/vfio.h`). */
  readonly flags: number;
  readonly #endpoint: string;

  /** @param endpoint name of the device. @internal */
  constructor(endpoint: string, { index, size, flags, areas }: RegionDetails) {
    super();
    this.#endpoint = endpoint;
    this.index = index;
    this.size = size;
    this.flags = flags;
    this.readable = (flags & RegionFlag.read) !== 0;
    this.writable = (flags & RegionFlag.write) !== 0;
    this.areas = areas;
  }

  abstract readBytes(offset: number, length: number): Promise<Uint8Array>;
  abstract writeBytes(offset: number, data: Uint8Array, options?: Options): Promise<void>;
  abstract readBytesSync(offset: number, length: number): Uint8Array;
  abstract writeBytesSync(offset: number, data: Uint8Array, options?: Options): void;

  /**
   * Maps bytes of the region: offset and length multiples of the page size, within one of {@link areas}.
   *
   * What is mapped of a vfio-user device is memory of the server of this connection: when that ends, the buffer is detached;
   * after the event `reconnect`, map anew. While a device of the kernel's does not answer, as in a reset or with its memory
   * decoding off, its memory reads as ones and takes no stores.
   *
   * @throws RangeError ERR_OUT_OF_RANGE when they are not within the region; VfioUserError ERR_VFIO_USER_UNSUPPORTED when the
   *   device does not let these bytes be mapped; CLOSED, DISCONNECTED, SYSTEM
   */
  map(offset: number, length: number): MappedArea {
    this.within(offset, length);
    return this.mappings().map(offset, length, () => this.where(offset, length));
  }

  /** The mappings, while there can be any. @throws VfioUserError. @internal */
  protected abstract mappings(): RegionMappings;

  /** @returns `offset` of a register. @internal */
  protected aligned(offset: number, width: number): number {
    this.within(offset, width);
    if (offset % width !== 0)
      throw invalidArgument(
        `${this.where(offset, width)}: a register of ${width} bytes starts at a multiple of ${width}`,
      );
    return offset;
  }

  /** @returns `offset` of bytes. @internal */
  protected within(offset: number, length: number): number {
    const valid = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 1;
    if (!valid || offset + length > this.size)
      throw outOfRange(
        `${length} bytes at offset ${offset} are not within region ${this.index} of ${this.#endpoint}, which has ${this.size} bytes`,
      );
    return offset;
  }

  /** @internal */
  protected assertReadable(offset: number, length: number): void {
    if (!this.readable) throw this.#refused(offset, length, 'is not readable');
  }

  /** @internal */
  protected assertWritable(offset: number, length: number): void {
    if (!this.writable) throw this.#refused(offset, length, 'is not writable');
  }

  /** Names bytes in a message. @internal */
  protected where(offset: number, length: number): string {
    return `region ${this.index} of ${this.#endpoint}, offset 0x${offset.toString(16)}, ${length} bytes`;
  }

  #refused(offset: number, length: number, what: string): VfioUserError {
    return new VfioUserError(
      'ERR_VFIO_USER_UNSUPPORTED',
      `${this.where(offset, length)} ${what}: the device does not offer it (region flags 0x${this.flags.toString(16)})`,
    );
  }
}
