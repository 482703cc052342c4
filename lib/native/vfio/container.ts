// SPDX-License-Identifier: MIT
import { addon } from '../addon';
import { slotOf, type Mapping } from '../memory';
import { DeviceNode, openNode } from './device-node';
import { VfioDeviceFile } from './device-file';
import { type DmaAccessBit } from './dma-access';

/** `VFIO_GROUP_FLAGS_VIABLE`: all devices of the group are free, or VFIO's. */
const GROUP_VIABLE = 1;
/** Room for the capabilities of an IOMMU: those that exist take a few hundred bytes. */
const INFO_BYTES = 4096;

/** A container of VFIO: the I/O address space that devices share by their groups (`linux/vfio.h`). */
export class VfioContainer extends DeviceNode {
  static open(path: string): VfioContainer {
    return new VfioContainer(path, openNode(path));
  }

  /** `VFIO_GET_API_VERSION`. */
  get apiVersion(): number {
    return this.checked(addon().vfio.apiVersion(this.fd), 'VFIO_GET_API_VERSION');
  }

  /** `VFIO_CHECK_EXTENSION`: whether the container knows a type of IOMMU, or another extension. */
  has(extension: number): boolean {
    return this.checked(addon().vfio.checkExtension(this.fd, extension), 'VFIO_CHECK_EXTENSION') > 0;
  }

  /** `VFIO_SET_IOMMU`, once the container has a group. */
  setIommu(type: number): void {
    this.checked(addon().vfio.setIommu(this.fd, type), 'VFIO_SET_IOMMU');
  }

  /** `VFIO_IOMMU_GET_INFO`: `struct vfio_iommu_type1_info` and its capabilities. */
  iommuInfo(): Uint8Array {
    const out = new Uint8Array(INFO_BYTES);
    this.checked(addon().vfio.iommuInfo(this.fd, out), 'VFIO_IOMMU_GET_INFO');
    return out;
  }

  /** `VFIO_IOMMU_MAP_DMA` of all of a mapping, whose pages are then locked. */
  map(mapping: Mapping, iova: bigint, access: DmaAccessBit): void {
    const result = addon().vfio.mapDma(this.fd, mapping.buffer, slotOf(mapping), iova, access);
    this.checked(result, 'VFIO_IOMMU_MAP_DMA');
  }

  /** `VFIO_IOMMU_UNMAP_DMA`. Returns the number of bytes that were mapped. */
  unmap(iova: bigint, size: number): number {
    return this.checked(addon().vfio.unmapDma(this.fd, iova, size), 'VFIO_IOMMU_UNMAP_DMA');
  }

  /** `VFIO_IOMMU_UNMAP_DMA` of everything; EINVAL before Linux 5.12. */
  unmapAll(): void {
    this.checked(addon().vfio.unmapAllDma(this.fd), 'VFIO_IOMMU_UNMAP_DMA');
  }

  /** `VFIO_IOMMU_DIRTY_PAGES`: begins or ends the log of all mappings. */
  log(on: boolean): void {
    this.checked(addon().vfio.logContainer(this.fd, on), 'VFIO_IOMMU_DIRTY_PAGES');
  }

  /**
   * `VFIO_IOMMU_DIRTY_PAGES` of a range that was mapped as a whole.
   *
   * @param pageSize smallest page of the container
   * @param bitmap gets a bit for each page that was written
   */
  takeLog(iova: bigint, length: number, pageSize: number, bitmap: Uint8Array): void {
    const result = addon().vfio.reportContainerLog(this.fd, iova, length, pageSize, bitmap);
    this.checked(result, 'VFIO_IOMMU_DIRTY_PAGES');
  }
}

/** An IOMMU group: the devices that the IOMMU cannot tell apart, or keep apart. */
export class VfioGroup extends DeviceNode {
  static open(path: string): VfioGroup {
    return new VfioGroup(path, openNode(path));
  }

  /** Whether all devices of the group are free to use (`VFIO_GROUP_GET_STATUS`). */
  get viable(): boolean {
    const flags = this.checked(addon().vfio.groupStatus(this.fd), 'VFIO_GROUP_GET_STATUS');
    return (flags & GROUP_VIABLE) !== 0;
  }

  /** `VFIO_GROUP_SET_CONTAINER`. */
  setContainer(container: VfioContainer): void {
    this.checked(addon().vfio.setContainer(this.fd, container.fd), 'VFIO_GROUP_SET_CONTAINER');
  }

  /** `VFIO_GROUP_UNSET_CONTAINER`; EBUSY while a device of the group is open. */
  unsetContainer(): void {
    this.checked(addon().vfio.unsetContainer(this.fd), 'VFIO_GROUP_UNSET_CONTAINER');
  }

  /**
   * `VFIO_GROUP_GET_DEVICE_FD`.
   *
   * @param vfToken a UUID, which the kernel wants behind the address
   */
  device(address: string, vfToken?: string): VfioDeviceFile {
    const name = vfToken === undefined ? address : `${address} vf_token=${vfToken}`;
    const result = addon().vfio.groupDevice(this.fd, name);
    return VfioDeviceFile.fromFd(address, this.checked(result, `VFIO_GROUP_GET_DEVICE_FD of ${address}`));
  }
}
