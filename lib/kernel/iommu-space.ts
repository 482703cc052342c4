// SPDX-License-Identifier: MIT
import type { IovaSpan } from '../dma/iova-spans';
import type { DmaAccessBit, Mapping, VfioDeviceFile } from '../native';
import type { DirtyTracker } from './dirty-tracker';
import type { VfioDeviceInfo } from './sysfs';

/** A device that is to be opened. */
export interface DeviceToOpen extends VfioDeviceInfo {
  /** Address of the physical function whose virtual function it is; null when it is none. */
  readonly physicalFunction: string | null;
  /** What proves that it may be, of a function of a device with virtual ones; a UUID. */
  readonly vfToken?: string | undefined;
}

/** A device that an {@link IommuSpace} has opened. */
export interface OpenedDevice {
  readonly file: VfioDeviceFile;
  /** How the IOMMU tells what the device writes; null when it does not. */
  readonly dirtyTracker: DirtyTracker | null;
  /** Lets go of what the device needed beside its own descriptor, which is closed already. */
  readonly release: () => void;
}

/** An I/O address space of the kernel's, which devices share: a container of VFIO, or a space of an iommufd. */
export interface IommuSpace {
  /** How it is reached, for messages and reports. */
  readonly kind: 'iommufd' | 'group' | 'noiommu';
  /** Most mappings. */
  readonly maxMaps: number;
  /** Smallest page that can be mapped, in bytes. */
  readonly pageSize: number;
  /** The addresses that all its devices can use; undefined when the kernel does not tell. */
  readonly spans: readonly IovaSpan[] | undefined;
  /**
   * Opens a device, and lets it use the space.
   *
   * @throws VfioUserError ERR_VFIO_USER_CONNECT, BUSY or SYSTEM
   */
  open(device: DeviceToOpen): OpenedDevice;
  /** The descriptor of a group of devices that was opened in it; undefined of another. */
  groupFd(group: number): number | undefined;
  /** @throws VfioUserError ERR_VFIO_USER_SYSTEM, UNSUPPORTED */
  map(memory: Mapping, iova: bigint, access: DmaAccessBit): void;
  /** @throws VfioUserError ERR_VFIO_USER_SYSTEM */
  unmap(iova: bigint, size: number): void;
  /** Gives it back, with all mappings. Idempotent. */
  close(): void;
}
