// SPDX-License-Identifier: MIT
import { addon } from '../addon';
import { slotOf, type Mapping } from '../memory';
import { DeviceNode, openNode } from './device-node';
import type { DmaAccessBit } from './dma-access';

/** More intervals than reserved regions leave of an address space. */
const MOST_SPANS = 4096;
/** `IOMMU_HW_CAP_DIRTY_TRACKING`. */
const CAP_DIRTY_TRACKING = 1;

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

  /** `IOMMU_GET_HW_INFO`: whether the IOMMU of a device logs what is written; false before Linux 6.7, which does not tell. */
  logs(device: number): boolean {
    const result = addon().vfio.hardwareCapabilities(this.fd, device);
    return result >= 0 && (result & CAP_DIRTY_TRACKING) !== 0;
  }

  /** `IOMMU_HWPT_ALLOC` with IOMMU_HWPT_ALLOC_DIRTY_TRACKING: the id of a page table for a device, with what a space has. */
  allocatePageTable(device: number, space: number): number {
    return this.checked(addon().vfio.allocatePageTable(this.fd, device, space), 'IOMMU_HWPT_ALLOC');
  }

  /** `IOMMU_HWPT_SET_DIRTY_TRACKING`. */
  log(table: number, on: boolean): void {
    this.checked(addon().vfio.logPageTable(this.fd, table, on), 'IOMMU_HWPT_SET_DIRTY_TRACKING');
  }

  /**
   * `IOMMU_HWPT_GET_DIRTY_BITMAP`, which clears the log.
   *
   * @param bitmap gets a bit for each page of `pageSize` bytes that was written
   */
  takeLog(table: number, iova: bigint, length: number, pageSize: number, bitmap: Uint8Array): void {
    const result = addon().vfio.reportPageTableLog(this.fd, table, iova, length, pageSize, bitmap);
    this.checked(result, 'IOMMU_HWPT_GET_DIRTY_BITMAP');
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
