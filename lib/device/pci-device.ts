// SPDX-License-Identifier: MIT
import { EventEmitter } from 'node:events';
import { memoize } from '../async';
import type { DmaContainer } from '../dma/container';
import { outOfRange } from '../errors';
import { IrqExclusion } from '../irq/exclusion';
import {
  PciIrq,
  PciRegion,
  type Device,
  type DeviceEvents,
  type DeviceInfo,
  type DeviceIrq,
  type DeviceRegion,
  type PciIrqName,
  type PciRegionName,
  type RegisterSpace,
} from '../pci/device';
import { PciFunction } from '../pci/pci-function';

/**
 * Most regions, and most interrupt indexes, of a device; what one announces beyond that is left out. PCI has nine regions and
 * five interrupts, and drivers add some of their own behind those.
 */
export const MAX_INDEXES = 4096;

/**
 * A PCI device with a way to its regions and interrupts, each of which is asked for once. What asks is for the classes that
 * extend this one.
 *
 * @typeParam RegionType its regions
 * @typeParam IrqType its interrupts
 */
export abstract class PciDevice<RegionType extends DeviceRegion, IrqType extends DeviceIrq>
  extends EventEmitter<DeviceEvents>
  implements Device
{
  readonly name: string;
  /** The memory that the device may access, in a container of its own or one that devices share. */
  readonly dma: DmaContainer;
  /** The device as a PCI function: configuration space, capabilities, BARs. */
  readonly pci: PciFunction;
  /** Shared by the interrupts of the device. @internal */
  protected readonly irqExclusion = new IrqExclusion();
  readonly #regions = memoize((index: number) => this.fetchRegion(index));
  readonly #irqs = memoize((index: number) => this.fetchIrq(index));

  /** @internal */
  constructor(name: string, dma: DmaContainer) {
    super();
    this.name = name;
    this.dma = dma;
    this.pci = new PciFunction(this);
  }

  abstract get config(): RegisterSpace;
  abstract info(): Promise<DeviceInfo>;
  abstract reset(): Promise<void>;
  abstract close(): Promise<void>;
  /** @internal */
  protected abstract fetchRegion(index: number): Promise<RegionType>;
  /** @internal */
  protected abstract fetchIrq(index: number): Promise<IrqType>;

  /**
   * A region by name or index. The device is asked once, since what a region is does not change, and not by {@link reset}
   * either. The object, its mappings and descriptors are valid until {@link close}.
   *
   * @throws RangeError ERR_OUT_OF_RANGE for an index that no device has; VfioUserError for one that this device does not
   *   have, ERR_VFIO_USER_REMOTE by a server and SYSTEM by the kernel; CLOSED, and those of a message
   */
  async region(region: PciRegionName | number): Promise<RegionType> {
    return this.#regions(this.#index('region', region, PciRegion, 'bar0 or config'));
  }

  /**
   * An interrupt index by name or number. The device is asked once.
   *
   * @throws RangeError ERR_OUT_OF_RANGE for an index that no device has; VfioUserError as {@link region}
   */
  async irq(irq: PciIrqName | number): Promise<IrqType> {
    return this.#irqs(this.#index('interrupt', irq, PciIrq, 'msix'));
  }

  /** Calls {@link close}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Emits an event. What a listener throws is an uncaught exception, and does not stop what is under way. @internal */
  protected tell<Name extends keyof DeviceEvents>(event: Name, ...args: DeviceEvents[Name]): void {
    try {
      (this as EventEmitter).emit(event, ...args);
    } catch (error) {
      queueMicrotask(() => {
        throw error;
      });
    }
  }

  #index<Name extends string>(
    what: string,
    asked: Name | number,
    indexes: Readonly<Record<Name, number>>,
    examples: string,
  ): number {
    const index = typeof asked === 'number' ? asked : indexes[asked];
    if (!Number.isInteger(index) || index < 0 || index >= MAX_INDEXES)
      throw outOfRange(
        `${this.name} has no ${what} ${asked}; give a name such as ${examples}, or an index from 0 to ${MAX_INDEXES - 1}`,
      );
    return index;
  }
}
