// SPDX-License-Identifier: MIT
import { devicesOf, type DmaContainer } from '../dma/container';
import { invalidArgument } from '../errors';
import { KernelDmaTarget } from './dma-target';
import type { DeviceToOpen, IommuSpace, OpenedDevice } from './iommu-space';
import { IommufdSpace } from './iommufd-space';
import type { SystemRoots } from './roots';
import { Type1Space } from './type1-space';

/** A space of the kernel's, which the devices of a DMA container share. */
interface SharedSpace {
  readonly space: IommuSpace;
  readonly target: KernelDmaTarget;
  devices: number;
}

/** The space of each container that has devices of the kernel's VFIO. */
const spaces = new WeakMap<DmaContainer, SharedSpace>();

/** A device that was opened in the space of a container. */
export interface DeviceInSpace {
  readonly opened: OpenedDevice;
  readonly kind: IommuSpace['kind'];
  /** As that of the space. */
  readonly groupFd: (group: number) => number | undefined;
  /** Lets go of the device: to be called once, after its descriptor was closed. */
  readonly leave: () => void;
}

/**
 * Opens a device in the space of a container, which is made for its first device.
 *
 * @throws VfioUserError ERR_VFIO_USER_CONNECT, BUSY or SYSTEM; DMA when the device cannot be told of what is mapped
 */
export async function openInSpace(
  device: DeviceToOpen,
  through: 'iommufd' | 'group',
  dma: DmaContainer,
  roots: SystemRoots,
): Promise<DeviceInSpace> {
  const shared = spaces.get(dma);
  if (shared === undefined) return openFirst(device, through, dma, roots);
  const { space, target } = shared;
  if ((space.kind === 'iommufd') !== (through === 'iommufd') || (space.kind === 'noiommu') !== device.noiommu)
    throw invalidArgument(
      `${device.address} cannot share the container of ${target.name}, whose devices were opened by ${space.kind}; open both alike`,
    );
  const opened = space.open(device);
  target.join(device.address);
  shared.devices++;
  return deviceIn(space, opened, leaver(dma, shared, opened));
}

async function openFirst(
  device: DeviceToOpen,
  through: 'iommufd' | 'group',
  dma: DmaContainer,
  roots: SystemRoots,
): Promise<DeviceInSpace> {
  const { space, opened } =
    through === 'iommufd' ? IommufdSpace.create(device, roots) : Type1Space.create(device, roots);
  const target = new KernelDmaTarget(device.address, space, roots.proc);
  const shared: SharedSpace = { space, target, devices: 1 };
  spaces.set(dma, shared);
  const leave = leaver(dma, shared, opened);
  try {
    await devicesOf(dma).attach(target);
  } catch (error) {
    opened.file.close();
    leave();
    throw error;
  }
  return deviceIn(space, opened, leave);
}

function leaver(dma: DmaContainer, shared: SharedSpace, opened: OpenedDevice): () => void {
  return () => {
    opened.release();
    if (--shared.devices > 0) return;
    spaces.delete(dma);
    devicesOf(dma).detach(shared.target);
    shared.space.close();
  };
}

function deviceIn(space: IommuSpace, opened: OpenedDevice, leave: () => void): DeviceInSpace {
  return { opened, kind: space.kind, groupFd: (group) => space.groupFd(group), leave };
}
