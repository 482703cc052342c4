// SPDX-License-Identifier: MIT
import { addon } from '../addon';
import { DeviceNode, openNode } from './device-node';
import type { Iommufd } from './iommufd';
import { MigrationFile } from './migration-file';

/** Of what tells its own size, more than any kernel fills: the answer is cut to that. */
const ROOM = 4096;
/** Devices that a hot reset can concern are those of a bus. */
const HOT_RESET_ROOM = 64 << 10;

/** A device of the kernel's VFIO (`linux/vfio.h`). Structures are as vfio-user has them too, and its codecs read them. */
export class VfioDeviceFile extends DeviceNode {
  /**
   * Opens the node that a device has for itself, `/dev/vfio/devices/vfioN`. Nothing works before {@link bind}.
   *
   * @param name for messages
   */
  static open(path: string, name: string): VfioDeviceFile {
    return new VfioDeviceFile(name, openNode(path));
  }

  /** @param fd taken over */
  static fromFd(name: string, fd: number): VfioDeviceFile {
    return new VfioDeviceFile(name, fd);
  }

  /**
   * `VFIO_DEVICE_BIND_IOMMUFD`: takes the device.
   *
   * @param vfToken a UUID, which Linux takes from 6.17 on
   * @returns its id
   */
  bind(iommufd: Iommufd, vfToken?: string): number {
    const token = vfToken === undefined ? null : Buffer.from(vfToken.replaceAll('-', ''), 'hex');
    const result = addon().vfio.bindIommufd(this.fd, iommufd.fd, token);
    return this.checked(result, 'VFIO_DEVICE_BIND_IOMMUFD');
  }

  /** `VFIO_DEVICE_ATTACH_IOMMUFD_PT`: what the device may access is a space of its iommufd, or what a page table has. */
  attach(space: number): void {
    this.checked(addon().vfio.attachIommufd(this.fd, space), 'VFIO_DEVICE_ATTACH_IOMMUFD_PT');
  }

  /**
   * `VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE`: brings the device into a state.
   *
   * @returns what its data go through; null when no transfer begins
   */
  async setMigrationState(state: number): Promise<MigrationFile | null> {
    const result = await addon().vfio.setMigrationState(this.fd, state);
    const found = this.checked(result, 'VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE');
    return found === 0 ? null : new MigrationFile(this.name, found - 1);
  }

  /**
   * `VFIO_DEVICE_FEATURE_DMA_LOGGING_START`: the device logs the pages that it writes.
   *
   * @param ranges pairs of 64-bit words, address and bytes
   * @returns the size of page that the device has chosen
   */
  startLog(pageSize: number, ranges: Uint8Array): number {
    const result = addon().vfio.startDeviceLog(this.fd, pageSize, ranges);
    return this.checked(result, 'VFIO_DEVICE_FEATURE_DMA_LOGGING_START');
  }

  /** `VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP`. */
  stopLog(): void {
    this.checked(addon().vfio.stopDeviceLog(this.fd), 'VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP');
  }

  /**
   * `VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT`, which clears the log.
   *
   * @param bitmap gets a bit for each page of `pageSize` bytes that was written
   */
  takeLog(iova: bigint, length: number, pageSize: number, bitmap: Uint8Array): void {
    const result = addon().vfio.reportDeviceLog(this.fd, iova, length, pageSize, bitmap);
    this.checked(result, 'VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT');
  }

  /** `struct vfio_device_info`. */
  info(): Uint8Array {
    const out = new Uint8Array(ROOM);
    this.checked(addon().vfio.deviceInfo(this.fd, out), 'VFIO_DEVICE_GET_INFO');
    return sized(out);
  }

  /** `struct vfio_region_info` with its capabilities. */
  regionInfo(index: number): Uint8Array {
    const out = new Uint8Array(ROOM);
    this.checked(
      addon().vfio.regionInfo(this.fd, index, out),
      `VFIO_DEVICE_GET_REGION_INFO of region ${index}`,
    );
    return sized(out);
  }

  /** `struct vfio_irq_info`. */
  irqInfo(index: number): Uint8Array {
    const out = new Uint8Array(ROOM);
    this.checked(addon().vfio.irqInfo(this.fd, index, out), `VFIO_DEVICE_GET_IRQ_INFO of index ${index}`);
    return sized(out);
  }

  /**
   * `VFIO_DEVICE_SET_IRQS`.
   *
   * @param flags `IrqSetFlag` bits
   * @param eventfds `count` of them, -1 for none; null for an action without data
   */
  setIrqs(
    index: number,
    flags: number,
    start: number,
    count: number,
    eventfds: readonly number[] | null,
  ): void {
    const fds = eventfds === null ? null : Int32Array.from(eventfds);
    const result = addon().vfio.setIrqs(this.fd, index, flags, start, count, fds);
    this.checked(result, `VFIO_DEVICE_SET_IRQS of index ${index}`);
  }

  /** `VFIO_DEVICE_RESET`. */
  async reset(): Promise<void> {
    this.checked(await addon().vfio.reset(this.fd), 'VFIO_DEVICE_RESET');
  }

  /** `struct vfio_pci_hot_reset_info`: the devices that are reset together. ENODEV when that cannot be done. */
  hotResetInfo(): Uint8Array {
    const out = new Uint8Array(HOT_RESET_ROOM);
    this.checked(addon().vfio.hotResetInfo(this.fd, out), 'VFIO_DEVICE_GET_PCI_HOT_RESET_INFO');
    return out;
  }

  /**
   * `VFIO_DEVICE_PCI_HOT_RESET`.
   *
   * @param groups descriptors of the groups of all devices concerned; none for devices of an iommufd
   */
  async hotReset(groups: readonly number[]): Promise<void> {
    const result = await addon().vfio.hotReset(this.fd, Int32Array.from(groups));
    this.checked(result, 'VFIO_DEVICE_PCI_HOT_RESET');
  }

  /**
   * `VFIO_DEVICE_FEATURE`.
   *
   * @param inOut `struct vfio_device_feature` and room for its data, which the answer takes the place of
   */
  feature(inOut: Uint8Array): void {
    this.checked(addon().vfio.deviceFeature(this.fd, inOut), 'VFIO_DEVICE_FEATURE');
  }
}

/** A structure that begins with the size that it needs, as far as there was room. */
function sized(out: Uint8Array): Uint8Array {
  const argsz = new DataView(out.buffer).getUint32(0, true);
  return out.subarray(0, Math.min(argsz, out.length));
}
