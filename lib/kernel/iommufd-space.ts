// SPDX-License-Identifier: MIT
import { join } from 'node:path';
import type { IovaSpan } from '../dma/iova-spans';
import { Iommufd, VfioDeviceFile, pageSize, type DmaAccessBit, type Mapping } from '../native';
import { PageTableTracker } from './dirty-tracker';
import type { DeviceToOpen, IommuSpace, OpenedDevice } from './iommu-space';
import { explainOpen } from './refusals';
import type { SystemRoots } from './roots';

/** An I/O address space of an iommufd, with devices that were opened by their own nodes. */
export class IommufdSpace implements IommuSpace {
  readonly kind = 'iommufd';
  /** There is no limit but memory. */
  readonly maxMaps = 2 ** 31;
  readonly pageSize = pageSize;
  readonly #roots: SystemRoots;
  readonly #iommufd: Iommufd;
  readonly #space: number;
  #spans: readonly IovaSpan[] = [];

  /** @throws VfioUserError ERR_VFIO_USER_CONNECT, BUSY or SYSTEM */
  static create(
    device: DeviceToOpen,
    roots: SystemRoots,
  ): { readonly space: IommufdSpace; readonly opened: OpenedDevice } {
    const iommufd = explainOpen(device, roots, () => Iommufd.open(join(roots.dev, 'iommu')));
    try {
      const space = new IommufdSpace(iommufd, roots);
      return { space, opened: space.open(device) };
    } catch (error) {
      iommufd.close();
      throw error;
    }
  }

  private constructor(iommufd: Iommufd, roots: SystemRoots) {
    this.#roots = roots;
    this.#iommufd = iommufd;
    this.#space = iommufd.allocateSpace();
  }

  get spans(): readonly IovaSpan[] {
    return this.#spans;
  }

  open(device: DeviceToOpen): OpenedDevice {
    const node = join(this.#roots.dev, 'vfio', 'devices', device.vfioNode ?? '');
    const file = explainOpen(device, this.#roots, () => VfioDeviceFile.open(node, device.address));
    try {
      const id = explainOpen(device, this.#roots, () => {
        const bound = file.bind(this.#iommufd, device.vfToken);
        file.attach(this.#space);
        return bound;
      });
      this.#spans = this.#iommufd.iovaRanges(this.#space);
      const logs = this.#iommufd.logs(id);
      const dirtyTracker = logs ? new PageTableTracker(this.#iommufd, file, id, this.#space) : null;
      return { file, dirtyTracker, release: () => undefined };
    } catch (error) {
      file.close();
      throw error;
    }
  }

  /** Devices are opened without their groups. */
  groupFd(): undefined {
    return undefined;
  }

  map(memory: Mapping, iova: bigint, access: DmaAccessBit): void {
    this.#iommufd.map(this.#space, memory, iova, access);
  }

  unmap(iova: bigint, size: number): void {
    this.#iommufd.unmap(this.#space, iova, size);
  }

  close(): void {
    this.#iommufd.close();
  }
}
