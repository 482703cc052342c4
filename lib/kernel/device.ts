// SPDX-License-Identifier: MIT
import { memoize } from '../async';
import type { DirtyLog } from '../device/dirty-log';
import { DeviceMigration } from '../device/migration';
import { devicesOf, type DmaContainer } from '../dma/container';
import { MAX_INDEXES, PciDevice } from '../device/pci-device';
import { VfioUserError, systemError } from '../errors';
import { restoreDeviceMappings, type VfioDeviceFile } from '../native';
import { PCIE_CONFIG_BYTES } from '../pci/config-header';
import { PciIrq, PciRegion, type DeviceInfo, type RegisterSpace } from '../pci/device';
import {
  DeviceFlag,
  RegionFlag,
  decodeDeviceInfoReply,
  decodeIrqInfoReply,
  decodeRegionInfoReply,
  type RegionInfoReply,
} from '../protocol';
import { KernelFeatures, isUnsupported } from './device-feature';
import { KernelDirtyLog } from './dirty-log';
import { DeviceTracker } from './dirty-tracker';
import { decodeHotResetInfo, type DependentFunction } from './hot-reset';
import { KernelIrq } from './irq';
import { MigratingKernelDevice } from './migration';
import { KernelRegion, mappableAreas, type MsixTablePlace } from './region';
import type { DeviceInSpace } from './spaces';

/** What the kernel answers when there is nothing that a hot reset could reset. */
const NO_BUS: ReadonlySet<string | undefined> = new Set(['ENODEV', 'ENOTTY']);

/** What `openPci` makes for a device. */
export interface KernelDeviceMakings {
  readonly address: string;
  readonly inSpace: DeviceInSpace;
  readonly dma: DmaContainer;
  /** Whether the container is closed with the device. */
  readonly ownsDma: boolean;
}

/** A PCI device behind the kernel's VFIO, whose name is its PCI address, or the UUID of a mediated one. Made by `openPci`. */
export class KernelDevice extends PciDevice<KernelRegion, KernelIrq> {
  /** Features by index, such as migration and power management. */
  readonly feature: KernelFeatures;
  /** Moves the device's state to another device, where the kernel has a driver for that. */
  readonly migration: DeviceMigration;
  /** Tells which memory the device writes. */
  readonly dirtyLog: DirtyLog;
  /** How the kernel was asked for the device: through an iommufd, its group, or its group without an IOMMU. */
  readonly through: 'iommufd' | 'group' | 'noiommu';
  /** False: a device that has gone is opened anew. */
  readonly reconnects = false;
  readonly #makings: KernelDeviceMakings;
  readonly #file: VfioDeviceFile;
  readonly #info: DeviceInfo;
  readonly #migrating: MigratingKernelDevice;
  readonly #log: KernelDirtyLog;
  readonly #openRegions = new Set<KernelRegion>();
  readonly #openIrqs = new Set<KernelIrq>();
  #config: KernelRegion | undefined;

  /** @internal */
  constructor(makings: KernelDeviceMakings) {
    super(makings.address, makings.dma);
    const { address, inSpace } = makings;
    this.#makings = makings;
    this.#file = inSpace.opened.file;
    this.through = inSpace.kind;
    this.feature = new KernelFeatures(this.#file);
    this.#migrating = new MigratingKernelDevice(this.#file, this.feature, () => this.reset());
    this.migration = new DeviceMigration(this.#migrating);
    this.#log = new KernelDirtyLog(
      this.name,
      this.feature,
      devicesOf(this.dma),
      new DeviceTracker(this.#file),
      inSpace.opened.dirtyTracker,
    );
    this.dirtyLog = this.#log;
    const info = decodeDeviceInfoReply(this.#file.info());
    if ((info.flags & DeviceFlag.pci) === 0)
      throw new VfioUserError('ERR_VFIO_USER_PCI', `${address} is not a PCI device for the kernel's VFIO`);
    this.#info = {
      resettable: (info.flags & DeviceFlag.reset) !== 0,
      regionCount: Math.min(info.numRegions, MAX_INDEXES),
      irqCount: Math.min(info.numIrqs, MAX_INDEXES),
    };
  }

  /** Whether the device is gone: by {@link close}, or because the kernel has asked for it back. */
  get closed(): boolean {
    return this.#file.closed;
  }

  /** What the kernel tells of the device. */
  override info(): Promise<DeviceInfo> {
    return Promise.resolve(this.#info);
  }

  override get config(): RegisterSpace {
    if (this.#config !== undefined) return this.#config;
    const info = this.#regionInfo(PciRegion.config);
    this.#config = new KernelRegion(
      this.#file,
      { ...info, size: Math.min(info.size, PCIE_CONFIG_BYTES) },
      [],
    );
    return this.#config;
  }

  /**
   * Resets the function, by whichever way the kernel finds (VFIO_DEVICE_RESET). Mappings and DMA ranges stay.
   *
   * @throws VfioUserError ERR_VFIO_USER_UNSUPPORTED when there is none; SYSTEM when it fails
   */
  override async reset(): Promise<void> {
    try {
      await this.#file.reset();
    } catch (error) {
      // Some drivers of mediated devices have a reset, which a migration needs, and do not say so.
      if (this.#info.resettable || !isUnsupported(error)) throw error;
      throw new VfioUserError(
        'ERR_VFIO_USER_UNSUPPORTED',
        `${this.name} cannot be reset by itself; a hot reset resets all functions of its bus`,
        { cause: error },
      );
    } finally {
      restoreDeviceMappings();
    }
  }

  /**
   * Resets the bus or the slot that the device is on, with all functions there (VFIO_DEVICE_PCI_HOT_RESET). All of them
   * must be open in its container: devices that are opened by their groups prove that by these, those of an iommufd by themselves.
   *
   * @throws VfioUserError ERR_VFIO_USER_UNSUPPORTED with the functions that are not, or when the bus cannot be
   *   reset; SYSTEM when it fails
   */
  async hotReset(): Promise<void> {
    const info = decodeHotResetInfo(this.#hotResetInfo());
    const foreign = info.functions.filter((dependent) => !this.#has(dependent));
    if (info.owned === false || foreign.length > 0)
      throw new VfioUserError(
        'ERR_VFIO_USER_UNSUPPORTED',
        `${this.name} cannot be reset with its bus: that would reset ${foreign.map(({ address }) => address).join(', ') || 'others'} too; open what is reset with the same container (the option dma)`,
      );
    try {
      // Of the groups concerned alone: the kernel takes no more than there are functions.
      const groups = new Set(info.functions.flatMap(({ group }) => group ?? []));
      await this.#file.hotReset([...groups].flatMap((group) => this.#makings.inSpace.groupFd(group) ?? []));
    } finally {
      restoreDeviceMappings();
    }
  }

  /**
   * Gives the device back: the kernel resets it and ends its DMA and interrupts. Then mappings are taken away, and memory
   * that is the device's alone. Idempotent.
   */
  override close(): Promise<void> {
    this.#release(null);
    if (this.#makings.ownsDma) this.dma.close();
    return Promise.resolve();
  }

  /**
   * Listens for the kernel asking for the device back: it is to be unbound or was unplugged, and the kernel waits until it
   * is closed. So it is closed at once, unless the user has taken the interrupt REQ.
   *
   * @internal
   */
  async watchForRequest(): Promise<void> {
    if (this.#info.irqCount <= PciIrq.req) return;
    const irq = await this.irq('req');
    if (irq.count === 0) return;
    await irq.enable([
      () => {
        this.#release(
          new VfioUserError(
            'ERR_VFIO_USER_DISCONNECTED',
            `${this.name} was asked back: it is being unbound or was unplugged; open it again when it is there`,
          ),
        );
      },
    ]);
    irq.vector(0).unref();
  }

  /** Memory stays until {@link close}, so that nothing is pulled from under a reader. */
  #release(error: VfioUserError | null): void {
    if (this.#file.closed) return;
    if (error !== null) for (const irq of this.#openIrqs) irq.deviceGone(error);
    for (const irq of this.#openIrqs) irq.release();
    for (const region of this.#openRegions) region.close();
    this.#file.close();
    this.migration.connectionEnded(error);
    this.#migrating.close();
    this.#log.close();
    this.#makings.inSpace.leave();
    this.tell('close', error);
  }

  #hotResetInfo(): Uint8Array {
    try {
      return this.#file.hotResetInfo();
    } catch (error) {
      // ENOTTY of a mediated device, which is on no bus of PCI.
      if (!(error instanceof VfioUserError) || !NO_BUS.has(error.errnoName)) throw error;
      throw new VfioUserError(
        'ERR_VFIO_USER_UNSUPPORTED',
        `${this.name} cannot be reset with its bus: neither its bus nor its slot can be reset by itself`,
        { cause: error },
      );
    }
  }

  /** Whether a function is this process's: by what the kernel tells, or with its group. */
  #has({ group, owned }: DependentFunction): boolean {
    return owned ?? (group !== undefined && this.#makings.inSpace.groupFd(group) !== undefined);
  }

  /** The kernel answers EINVAL for one that PCI has and this device has not, such as VGA. */
  #regionInfo(index: number): RegionInfoReply {
    try {
      return decodeRegionInfoReply(this.#file.regionInfo(index), { index });
    } catch (error) {
      const isAbsent = error instanceof VfioUserError && error.errnoName === 'EINVAL';
      if (!isAbsent || index > PciRegion.vga) throw error;
      return { argsz: 0, complete: true, index, flags: 0, size: 0, offset: 0, capabilities: [] };
    }
  }

  /** @internal */
  protected override async fetchRegion(index: number): Promise<KernelRegion> {
    const info = this.#regionInfo(index);
    const table = (info.flags & RegionFlag.mmap) === 0 ? null : await this.#msixTable();
    const region = new KernelRegion(this.#file, info, mappableAreas(info, table));
    this.#openRegions.add(region);
    return region;
  }

  readonly #msixTable = memoize(async (): Promise<MsixTablePlace | null> => {
    const msix = await this.pci.capability('msix');
    if (msix === undefined) return null;
    const ENTRY = 16;
    return { region: msix.table.bar, offset: msix.table.offset, size: ENTRY * msix.vectors };
  });

  /** @internal */
  protected override fetchIrq(index: number): Promise<KernelIrq> {
    if (index >= this.#info.irqCount)
      return Promise.reject(systemError('ioctl', 22, `${this.name} has no interrupt index ${index}`));
    const info = this.#irqInfo(index);
    const irq = new KernelIrq(this.#file, info, this.irqExclusion);
    this.#openIrqs.add(irq);
    return Promise.resolve(irq);
  }

  /** What the kernel refuses is an interrupt that the device does not have, as ERR without PCI Express. */
  #irqInfo(index: number): { index: number; count: number; flags: number } {
    try {
      return decodeIrqInfoReply(this.#file.irqInfo(index), { index });
    } catch (error) {
      if (error instanceof VfioUserError && error.errnoName === 'EINVAL')
        return { index, count: 0, flags: 0 };
      throw error;
    }
  }
}
