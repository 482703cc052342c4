// SPDX-License-Identifier: MIT
import { VfioUserError } from '../errors';
import { Mapping } from '../native';
import type { MappedArea, SparseArea } from '../pci/device';

/** Where the bytes of a region are in its descriptors, which stay the caller's. */
export interface RegionFiles {
  readonly areas: readonly SparseArea[];
  /** No descriptor, one for all areas, or one for each area. */
  readonly fds: readonly number[];
  /** Offset of the region's first byte in the descriptor. */
  readonly fdOffset: number;
  readonly writable: boolean;
}

/** The mapped areas of a region. */
export class RegionMappings {
  readonly #files: RegionFiles;
  readonly #mapped = new Set<Mapping>();

  constructor(files: RegionFiles) {
    this.#files = files;
  }

  /**
   * Maps bytes that are within the region.
   *
   * @param where names them in the error
   * @throws VfioUserError ERR_VFIO_USER_UNSUPPORTED when the device does not let them be mapped; ERR_VFIO_USER_SYSTEM
   */
  map(offset: number, length: number, where: () => string): MappedArea {
    const { areas, fds, fdOffset: start, writable } = this.#files;
    const area = areas.findIndex((a) => offset >= a.offset && offset + length <= a.offset + a.size);
    const fd = fds.length === 1 ? fds[0] : fds[area];
    if (area < 0 || fd === undefined) {
      throw new VfioUserError(
        'ERR_VFIO_USER_UNSUPPORTED',
        `${where()} cannot be mapped; the device offers ${this.#offered()}`,
      );
    }
    const fdOffset = start + offset;
    const mapping = Mapping.map(fd, fdOffset, length, { writable });
    this.#mapped.add(mapping);
    return {
      offset,
      size: length,
      buffer: mapping.buffer,
      fd,
      fdOffset,
      close: () => {
        this.#mapped.delete(mapping);
        mapping.close();
      },
    };
  }

  /**
   * Unmaps everything.
   *
   * @returns number of mappings that were still in use
   */
  close(): number {
    const count = this.#mapped.size;
    for (const mapping of this.#mapped) mapping.close();
    this.#mapped.clear();
    return count;
  }

  #offered(): string {
    const { areas, fds } = this.#files;
    if (areas.length === 0 || fds.length === 0) return 'no mapping of this region';
    return areas.map((a) => `0x${a.offset.toString(16)}+0x${a.size.toString(16)}`).join(', ');
  }
}
