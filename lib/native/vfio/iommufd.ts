// SPDX-License-Identifier: MIT
import { addon } from '../addon';
import { slotOf, type Mapping } from '../memory';
import { DeviceNode, openNode } from './device-node';
import type { DmaAccessBit } from './dma-access';

/** More intervals than reserved regions leave of an address space. */
const MOST_SPANS = 4096;

/** The iommufd (`linux/iommufd.h`), which has I/O address spaces by id. */
export class Iommufd extends DeviceNode {
  static open(path: string): Iommufd {
    return new Iommufd(path, openNode(path));
  }

  /** `IOMMU_IOAS_ALLOC`: the id of a new I/O address space. */
  allocateSpace(): number {
    return this.checked(addon().vfio.allocateSpace(this.fd), 'IOMMU_IOAS_ALLOC');
  }

  /** `IOMMU_DESTROY`; EBUSY while a device uses it. */
  destroy(id: number): void {
    this.checked(addon().vfio.destroyObject(this.fd, id), 'IOMMU_DESTROY');
  }

  /** `IOMMU_IOAS_IOVA_RANGES`: the addresses that can be mapped, by address. Devices that are attached make them fewer. */
  iovaRanges(space: number): { first: bigint; last: bigint }[] {
    for (let room = 16; ; room = MOST_SPANS) {
      const words = new BigUint64Array(2 * room);
      const bytes = new Uint8Array(words.buffer);
      const count = this.checked(addon().vfio.iovaRanges(this.fd, space, bytes), 'IOMMU_IOAS_IOVA_RANGES');
      if (count > room && room < MOST_SPANS) continue;
      return Array.from({ length: Math.min(count, room) }, (_, index) => ({
        first: words[2 * index] as bigint,
        last: words[2 * index + 1] as bigint,
      }));
    }
  }

  /** `IOMMU_IOAS_MAP` of all of a mapping, whose pages are then locked. */
  map(space: number, mapping: Mapping, iova: bigint, access: DmaAccessBit): void {
    const result = addon().vfio.mapSpace(this.fd, space, mapping.buffer, slotOf(mapping), iova, access);
    this.checked(result, 'IOMMU_IOAS_MAP');
  }

  /** `IOMMU_IOAS_UNMAP`; ENOENT when nothing is mapped there. */
  unmap(space: number, iova: bigint, size: number): void {
    this.checked(addon().vfio.unmapSpace(this.fd, space, iova, size), 'IOMMU_IOAS_UNMAP');
  }
}
