// SPDX-License-Identifier: MIT
import type { DmaContainer } from '../dma/container';
import type { EventFd } from '../native';
import type { Device, DeviceIrq, DeviceRegion, PciIrqName, PciRegionName } from '../pci/device';
import type { IrqChange } from '../protocol';

/** An interrupt index whose eventfds may be those of another process. */
export interface ProxiedIrq extends DeviceIrq {
  /** `IrqInfoFlag` bits. */
  readonly flags: number;
  /** Hands a change through as it is. */
  pass(change: Readonly<IrqChange>, eventFds?: readonly EventFd[]): Promise<void>;
}

/** A region, with what a vfio-user server tells of one of the device's own. */
export interface ProxiedRegion extends DeviceRegion {
  readonly type?: number | undefined;
  readonly subtype?: number | undefined;
}

/** What only a device behind a vfio-user socket has: its messages can be handed through, since they are those of its clients. */
export interface MessagePort {
  readonly negotiated: { readonly limits: { readonly maxDataXferSize: number } };
  readonly feature: {
    get(feature: number, data?: Uint8Array, room?: number): Promise<Uint8Array>;
    set(feature: number, data: Uint8Array): Promise<Uint8Array>;
    probe(feature: number, methods: { readonly get: boolean; readonly set: boolean }): Promise<boolean>;
  };
  readonly migration: {
    readData(size: number): Promise<Uint8Array>;
    writeData(data: Uint8Array): Promise<void>;
  };
}

/** A device that a proxy offers: behind a vfio-user socket, or the kernel's VFIO. */
export interface ProxiedDevice extends Device, Partial<MessagePort> {
  readonly dma: DmaContainer;
  region(region: PciRegionName | number): Promise<ProxiedRegion>;
  irq(index: PciIrqName | number): Promise<ProxiedIrq>;
}
