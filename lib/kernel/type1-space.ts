// SPDX-License-Identifier: MIT
import { join } from 'node:path';
import { VfioUserError } from '../errors';
import { VfioContainer, VfioGroup, type DmaAccessBit, type Mapping } from '../native';
import { ContainerTracker } from './dirty-tracker';
import { decodeIommuInfo, type IommuInfo } from './iommu-info';
import type { DeviceToOpen, IommuSpace, OpenedDevice } from './iommu-space';
import { explainOpen, notViable } from './refusals';
import type { SystemRoots } from './roots';
import { PciSysfs } from './sysfs';

/** `VFIO_API_VERSION`, the only one that there has been. */
const API_VERSION = 0;
/** Types of IOMMU (`VFIO_TYPE1v2_IOMMU`, `VFIO_NOIOMMU_IOMMU`). */
const TYPE1_V2 = 3;
const NOIOMMU = 8;
/** `dma_entry_limit` of vfio_iommu_type1, of a kernel that does not tell what is left of it. */
const DEFAULT_MAPS = 65_535;

interface OpenGroup {
  readonly group: VfioGroup;
  devices: number;
}

/** A container of VFIO with the groups of its devices. */
export class Type1Space implements IommuSpace {
  readonly kind: 'group' | 'noiommu';
  readonly maxMaps: number;
  readonly #roots: SystemRoots;
  readonly #container: VfioContainer;
  readonly #groups = new Map<number, OpenGroup>();
  #info: IommuInfo = { pageSize: 4096, spans: undefined, available: undefined, logs: false };
  /** Shared by all devices: the container has one log. */
  readonly #dirtyTracker: ContainerTracker | null;

  /**
   * Opens a container, and the first device in it: a container has no IOMMU before.
   *
   * @throws VfioUserError ERR_VFIO_USER_CONNECT, BUSY or SYSTEM
   */
  static create(
    device: DeviceToOpen,
    roots: SystemRoots,
  ): { readonly space: Type1Space; readonly opened: OpenedDevice } {
    const container = explainOpen(device, roots, () => VfioContainer.open(join(roots.dev, 'vfio', 'vfio')));
    try {
      if (container.apiVersion !== API_VERSION)
        throw new VfioUserError(
          'ERR_VFIO_USER_UNSUPPORTED',
          `The kernel's VFIO has version ${container.apiVersion} of its interface, this package speaks ${API_VERSION}`,
        );
      const type = device.noiommu ? NOIOMMU : TYPE1_V2;
      if (!container.has(type))
        throw new VfioUserError(
          'ERR_VFIO_USER_UNSUPPORTED',
          device.noiommu
            ? `The kernel's VFIO offers no mode without an IOMMU; load the module vfio with enable_unsafe_noiommu_mode=1`
            : `The kernel's VFIO has no IOMMU of type 1, version 2: run modprobe vfio_iommu_type1`,
        );
      return Type1Space.#first(container, device, roots, type);
    } catch (error) {
      container.close();
      throw error;
    }
  }

  static #first(
    container: VfioContainer,
    device: DeviceToOpen,
    roots: SystemRoots,
    type: number,
  ): { readonly space: Type1Space; readonly opened: OpenedDevice } {
    const group = openGroup(device, roots);
    try {
      explainOpen(device, roots, () => {
        group.setContainer(container);
        container.setIommu(type);
      });
      const space = new Type1Space(container, device.noiommu, roots);
      return { space, opened: space.#openIn(device, group) };
    } catch (error) {
      group.close();
      throw error;
    }
  }

  private constructor(container: VfioContainer, noiommu: boolean, roots: SystemRoots) {
    this.kind = noiommu ? 'noiommu' : 'group';
    this.#container = container;
    this.#roots = roots;
    this.#look();
    this.maxMaps = this.#info.available ?? DEFAULT_MAPS;
    this.#dirtyTracker = this.#info.logs ? new ContainerTracker(container, this.#info.pageSize) : null;
  }

  get pageSize(): number {
    return this.#info.pageSize;
  }

  get spans(): IommuInfo['spans'] {
    return this.#info.spans;
  }

  open(device: DeviceToOpen): OpenedDevice {
    const known = this.#groups.get(device.iommuGroup ?? -1);
    if (known !== undefined) return this.#openIn(device, known.group);
    const group = openGroup(device, this.#roots);
    try {
      explainOpen(device, this.#roots, () => {
        group.setContainer(this.#container);
      });
      // What another device cannot reach, none can now.
      this.#look();
      return this.#openIn(device, group);
    } catch (error) {
      group.close();
      throw error;
    }
  }

  groupFd(group: number): number | undefined {
    return this.#groups.get(group)?.group.fd;
  }

  map(memory: Mapping, iova: bigint, access: DmaAccessBit): void {
    if (this.kind === 'noiommu')
      throw new VfioUserError(
        'ERR_VFIO_USER_UNSUPPORTED',
        'Without an IOMMU there is nothing that DMA memory could be mapped in: a device would be given physical addresses, ' +
          'and could write any memory of the system. Registers and interrupts work; for DMA enable the IOMMU',
      );
    this.#container.map(memory, iova, access);
  }

  unmap(iova: bigint, size: number): void {
    this.#container.unmap(iova, size);
  }

  close(): void {
    for (const { group } of this.#groups.values()) group.close();
    this.#groups.clear();
    this.#container.close();
  }

  #openIn(device: DeviceToOpen, group: VfioGroup): OpenedDevice {
    const number = device.iommuGroup ?? -1;
    const file = explainOpen(device, this.#roots, () => group.device(device.address, device.vfToken));
    const entry = this.#groups.get(number) ?? { group, devices: 0 };
    entry.devices++;
    this.#groups.set(number, entry);
    return {
      file,
      dirtyTracker: this.#dirtyTracker,
      release: () => {
        entry.devices--;
        if (entry.devices > 0) return;
        this.#groups.delete(number);
        // The container forgets the group with its last descriptor.
        group.close();
      },
    };
  }

  #look(): void {
    if (this.kind === 'group') this.#info = decodeIommuInfo(this.#container.iommuInfo());
  }
}

/** Opens the group of a device, which must be viable. */
function openGroup(device: DeviceToOpen, roots: SystemRoots): VfioGroup {
  const name = `${device.noiommu ? 'noiommu-' : ''}${device.iommuGroup ?? ''}`;
  const group = explainOpen(device, roots, () => VfioGroup.open(join(roots.dev, 'vfio', name)));
  try {
    if (!group.viable) throw notViable(device, new PciSysfs(roots.sys));
    return group;
  } catch (error) {
    group.close();
    throw error;
  }
}
