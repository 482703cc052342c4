// SPDX-License-Identifier: MIT
import { readSync, writeSync } from 'node:fs';
import { promised } from '../async';
import { Region } from '../device/region';
import { RegionMappings } from '../device/region-mappings';
import { systemError } from '../errors';
import { pageSize, restoreDeviceMappings, type VfioDeviceFile } from '../native';
import { PciCommand, PciConfig } from '../pci/config-header';
import { PciRegion, type SparseArea } from '../pci/device';
import type { RegisterWidth } from '../pci/registers';
import { RegionFlag, type RegionInfo } from '../protocol';

const EIO = 5;

/** A region of a device of the kernel's VFIO, accessed by pread(2) and pwrite(2) or through its mapped areas. */
export class KernelRegion extends Region {
  readonly #file: VfioDeviceFile;
  readonly #start: number;
  readonly #mappings: RegionMappings;

  /** @internal */
  constructor(file: VfioDeviceFile, info: RegionInfo, areas: readonly SparseArea[]) {
    super(file.name, { ...info, areas });
    this.#file = file;
    this.#start = info.offset;
    const { writable } = this;
    this.#mappings = new RegionMappings({ areas, fds: [file.fd], fdOffset: info.offset, writable });
  }

  protected override readRegister(offset: number, width: RegisterWidth): Promise<Uint8Array> {
    return promised(() => this.readRegisterSync(offset, width));
  }

  protected override readRegisterSync(offset: number, width: RegisterWidth): Uint8Array {
    return this.#read(this.aligned(offset, width), width);
  }

  protected override writeRegister(offset: number, data: Uint8Array): Promise<void> {
    return promised(() => {
      this.writeRegisterSync(offset, data);
    });
  }

  protected override writeRegisterSync(offset: number, data: Uint8Array): void {
    this.#write(this.aligned(offset, data.length), data);
  }

  /**
   * Reads any number of bytes, which the kernel divides into accesses of 1, 2, 4 and, since Linux 6.11, 8 bytes.
   *
   * @throws RangeError ERR_OUT_OF_RANGE when they are not within the region; VfioUserError ERR_VFIO_USER_UNSUPPORTED when it
   *   is not readable, SYSTEM when the device does not answer
   */
  readBytes(offset: number, length: number): Promise<Uint8Array> {
    return promised(() => this.readBytesSync(offset, length));
  }

  /** As {@link readBytes}. */
  readBytesSync(offset: number, length: number): Uint8Array {
    return this.#read(this.within(offset, length), length);
  }

  /**
   * Writes any number of bytes, as {@link readBytes} reads them.
   *
   * @throws RangeError ERR_OUT_OF_RANGE when they are not within the region; VfioUserError ERR_VFIO_USER_UNSUPPORTED when it
   *   is not writable, SYSTEM when the device does not answer
   */
  writeBytes(offset: number, data: Uint8Array): Promise<void> {
    return promised(() => {
      this.writeBytesSync(offset, data);
    });
  }

  /** As {@link writeBytes}. */
  writeBytesSync(offset: number, data: Uint8Array): void {
    this.#write(this.within(offset, data.length), data);
  }

  /** Unmaps everything. @internal */
  close(): void {
    this.#mappings.close();
  }

  /** @internal */
  protected override mappings(): RegionMappings {
    this.#file.assertOpen();
    return this.#mappings;
  }

  #read(offset: number, length: number): Uint8Array {
    this.assertReadable(offset, length);
    const data = new Uint8Array(length);
    const { fd } = this.#file;
    for (let at = 0; at < length;)
      at += this.#moved('pread', offset, length, () =>
        readSync(fd, data, at, length - at, this.#start + offset + at),
      );
    return data;
  }

  #write(offset: number, data: Uint8Array): void {
    const { length } = data;
    this.assertWritable(offset, length);
    const { fd } = this.#file;
    for (let at = 0; at < length;)
      at += this.#moved('pwrite', offset, length, () =>
        writeSync(fd, data, at, length - at, this.#start + offset + at),
      );
    // Registers that were away may answer from now on.
    if (
      this.index === PciRegion.config &&
      offset <= PciConfig.command &&
      offset + length > PciConfig.command
    ) {
      const low = data[PciConfig.command - offset] ?? 0;
      if ((low & PciCommand.memory) !== 0) restoreDeviceMappings();
    }
  }

  /** Bytes that a system call has moved, at least one. */
  #moved(syscall: string, offset: number, length: number, call: () => number): number {
    let errno = EIO;
    try {
      const moved = call();
      if (moved > 0) return moved;
    } catch (error) {
      errno = Math.abs((error as NodeJS.ErrnoException).errno ?? EIO);
    }
    throw systemError(
      syscall,
      errno,
      this.where(offset, length),
      errno === EIO
        ? 'the device does not answer: its memory decoding may be off (command register), it may be in a low power state, or be gone'
        : undefined,
    );
  }
}

/** The table of MSI-X vectors, in its BAR. */
export interface MsixTablePlace {
  readonly region: number;
  readonly offset: number;
  readonly size: number;
}

/**
 * The parts of a region that can be mapped. Where the kernel would let the MSI-X table be mapped too
 * (`VFIO_REGION_INFO_CAP_MSIX_MAPPABLE`), its pages are left out: the kernel writes the table, and a store of ours would send
 * the device's interrupts elsewhere.
 */
export function mappableAreas(info: RegionInfo, table: MsixTablePlace | null): readonly SparseArea[] {
  if ((info.flags & RegionFlag.mmap) === 0 || info.size === 0) return [];
  const sparse = info.capabilities.find((capability) => capability.kind === 'sparseMmap');
  if (sparse !== undefined) return sparse.areas.filter(({ size }) => size > 0);
  if (table?.region !== info.index) return [{ offset: 0, size: info.size }];
  const begin = Math.floor(table.offset / pageSize) * pageSize;
  const end = Math.ceil((table.offset + table.size) / pageSize) * pageSize;
  return [
    { offset: 0, size: begin },
    { offset: end, size: info.size - end },
  ].filter(({ size }) => size > 0);
}
