// SPDX-License-Identifier: MIT
import type { Socket } from '../native';
import { PciIrq, PciRegion } from '../pci/device';
import {
  DeviceFlag,
  IrqInfoFlag,
  RegionFlag,
  decodeDeviceInfoRequest,
  decodeIrqInfoRequest,
  decodeRegionInfoRequest,
  decodeRegionIoFdsRequest,
  encodeDeviceInfoReply,
  encodeIrqInfoReply,
  encodeRegionInfoReply,
  type RegionCapability,
} from '../protocol';
import { CommandError, Errno, type CommandReply } from '../transport';
import { checkModel } from './check-model';
import type { PciDeviceModel, ServedRegion, SharedFile } from './device-model';
import { answerIoFds } from './served-io-fds';

/** How many regions VFIO defines for PCI. Clients take a smaller number for a mistake. */
const PCI_REGIONS = PciRegion.vga + 1;
const PCI_IRQS = PciIrq.req + 1;

/**
 * Answers what clients ask about a device. All methods throw a CommandError, or a VfioUserError ERR_VFIO_USER_PROTOCOL for a
 * question that cannot be decoded.
 */
export class DeviceDescription {
  readonly #model: PciDeviceModel;
  readonly #regionCount: number;
  readonly #irqCount: number;

  /** @throws TypeError ERR_INVALID_ARG_VALUE when the model contradicts itself */
  constructor(model: PciDeviceModel) {
    checkModel(model);
    this.#model = model;
    this.#regionCount = Math.max(PCI_REGIONS, ...[...model.regions.keys()].map((index) => index + 1));
    this.#irqCount = Math.max(PCI_IRQS, ...[...model.irqs.keys()].map((index) => index + 1));
  }

  /** Answers a DEVICE_GET_INFO (vfio-user, VFIO_USER_DEVICE_GET_INFO). */
  device(payload: Uint8Array): CommandReply {
    decodeDeviceInfoRequest(payload);
    const reset = this.#model.reset === undefined ? 0 : DeviceFlag.reset;
    return {
      payload: encodeDeviceInfoReply({
        flags: DeviceFlag.pci | reset,
        numRegions: this.#regionCount,
        numIrqs: this.#irqCount,
      }),
    };
  }

  /**
   * Answers a DEVICE_GET_REGION_INFO (vfio-user, VFIO_USER_DEVICE_GET_REGION_INFO). One descriptor serves all areas; it
   * comes with the reply that has room for all of them. A client that takes no descriptors cannot map.
   *
   * @param maxMsgFds descriptors that the client takes with a message
   * @param fdOf finds the descriptor of a shared file that the client gets
   */
  region(payload: Uint8Array, maxMsgFds: number, fdOf: (shared: SharedFile) => number): CommandReply {
    const { argsz, index } = decodeRegionInfoRequest(payload);
    this.#checkRegion(index);
    const region = this.#model.regions.get(index);
    const { shared } = region ?? {};
    const areas = maxMsgFds > 0 ? (shared?.areas ?? []) : [];
    const capabilities: RegionCapability[] = [];
    if (region?.type !== undefined) capabilities.push({ kind: 'type', ...region.type });
    if (region !== undefined && areas.length > 0 && !isWhole(region))
      capabilities.push({ kind: 'sparseMmap', areas });
    const flags =
      (region?.read === undefined ? 0 : RegionFlag.read) |
      (region?.write === undefined ? 0 : RegionFlag.write) |
      (areas.length === 0 ? 0 : RegionFlag.mmap);
    const reply = encodeRegionInfoReply(
      { index, flags, size: region?.size ?? 0, offset: shared?.offset ?? 0, capabilities },
      argsz,
    );
    const complete = new DataView(reply.buffer).getUint32(0, true) <= reply.byteLength;
    return {
      payload: reply,
      fds: shared !== undefined && areas.length > 0 && complete ? [fdOf(shared)] : [],
    };
  }

  /**
   * Answers a DEVICE_GET_REGION_IO_FDS (vfio-user, VFIO_USER_DEVICE_GET_REGION_IO_FDS).
   *
   * @param maxMsgFds descriptors that the client takes with a message
   * @param openSocket makes the client's end of a socket for the ioregionfds of a region that the server itself serves
   */
  regionIoFds(payload: Uint8Array, maxMsgFds: number, openSocket: (index: number) => Socket): CommandReply {
    const { argsz, index } = decodeRegionIoFdsRequest(payload);
    this.#checkRegion(index);
    return answerIoFds(index, this.#model.regions.get(index)?.ioFds ?? [], argsz, maxMsgFds, () =>
      openSocket(index),
    );
  }

  /**
   * Answers a DEVICE_GET_IRQ_INFO (vfio-user, VFIO_USER_DEVICE_GET_IRQ_INFO). Vectors can be added one by one, so NORESIZE
   * is not set. Only INTx is announced as maskable, as the kernel does: MSI-X is masked in its table.
   */
  irq(payload: Uint8Array): CommandReply {
    const { index } = decodeIrqInfoRequest(payload);
    if (index >= this.#irqCount)
      throw new CommandError(Errno.EINVAL, `interrupt index ${index} of ${this.#irqCount}`);
    const count = this.#model.irqs.get(index) ?? 0;
    const maskable = index === PciIrq.intx ? IrqInfoFlag.maskable : 0;
    return { payload: encodeIrqInfoReply({ index, flags: IrqInfoFlag.eventfd | maskable, count }) };
  }

  #checkRegion(index: number): void {
    if (index >= this.#regionCount)
      throw new CommandError(Errno.EINVAL, `region ${index} of ${this.#regionCount}`);
  }
}

function isWhole(region: ServedRegion): boolean {
  const areas = region.shared?.areas ?? [];
  return areas.length === 1 && areas[0]?.offset === 0 && areas[0].size === region.size;
}
