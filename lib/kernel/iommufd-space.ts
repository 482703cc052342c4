// SPDX-License-Identifier: MIT
import { join } from 'node:path';
import type { IovaSpan } from '../dma/iova-spans';
import { Iommufd, VfioDeviceFile, pageSize, type DmaAccessBit, type Mapping } from '../native';
import type { IommuSpace, OpenedDevice } from './iommu-space';
import { explainOpen } from './refusals';
import type { SystemRoots } from './roots';
import type { PciFunctionInfo } from './sysfs';

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
    device: PciFunctionInfo,
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

  open(device: PciFunctionInfo): OpenedDevice {
    const node = join(this.#roots.dev, 'vfio', 'devices', device.vfioNode ?? '');
    const file = explainOpen(device, this.#roots, () => VfioDeviceFile.open(node, device.address));
    try {
      explainOpen(device, this.#roots, () => {
        file.bind(this.#iommufd);
        file.attach(this.#space);
      });
      this.#spans = this.#iommufd.iovaRanges(this.#space);
      return { file, release: () => undefined };
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
