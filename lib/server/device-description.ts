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
import type { ServedRegion, SharedFile } from './device-model';
import type { FunctionState } from './function-state';
import { answerIoFds } from './served-io-fds';

/** How many regions VFIO defines for PCI. Clients take a smaller number for a mistake. */
const PCI_REGIONS = PciRegion.vga + 1;
const PCI_IRQS = PciIrq.req + 1;

/**
 * Answers what clients ask about a device. All methods throw a CommandError, or a VfioUserError ERR_VFIO_USER_PROTOCOL for a
 * question that cannot be decoded.
 */
export class DeviceDescription {
  readonly #function: FunctionState;
  readonly #resettable: boolean;
  readonly #regionCount: number;
  readonly #irqCount: number;

  /** @param resettable the device offers a reset */
  constructor(state: FunctionState, resettable: boolean) {
    this.#function = state;
    this.#resettable = resettable;
    this.#regionCount = Math.max(PCI_REGIONS, state.regionCount);
    this.#irqCount = Math.max(PCI_IRQS, ...[...state.irqs.keys()].map((index) => index + 1));
  }

  /** Answers a DEVICE_GET_INFO (vfio-user, VFIO_USER_DEVICE_GET_INFO). */
  device(payload: Uint8Array): CommandReply {
    decodeDeviceInfoRequest(payload);
    const reset = this.#resettable ? DeviceFlag.reset : 0;
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
    const region = this.#function.regions.get(index);
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
    return answerIoFds(index, this.#function.regions.get(index)?.ioFds ?? [], argsz, maxMsgFds, () =>
      openSocket(index),
    );
  }

  /** Answers a DEVICE_GET_IRQ_INFO (vfio-user, VFIO_USER_DEVICE_GET_IRQ_INFO). */
  irq(payload: Uint8Array): CommandReply {
    const { index } = decodeIrqInfoRequest(payload);
    if (index >= this.#irqCount)
      throw new CommandError(Errno.EINVAL, `interrupt index ${index} of ${this.#irqCount}`);
    const { flags, count } = this.#function.irqs.get(index) ?? { flags: IrqInfoFlag.eventfd, count: 0 };
    return { payload: encodeIrqInfoReply({ index, flags, count }) };
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
