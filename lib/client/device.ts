// SPDX-License-Identifier: MIT
import { EventEmitter } from 'node:events';
import { memoize } from '../async';
import { devicesOf, type DmaContainer } from '../dma/container';
import { VfioUserError, outOfRange } from '../errors';
import { PCIE_CONFIG_BYTES } from '../pci/config-header';
import {
  PciIrq,
  PciRegion,
  type Device,
  type DeviceInfo,
  type PciIrqName,
  type PciRegionName,
  type RegisterSpace,
} from '../pci/device';
import {
  Command,
  DeviceFlag,
  RegionFlag,
  decodeDeviceInfoReply,
  decodeIrqInfoReply,
  encodeDeviceInfoRequest,
  encodeIrqInfoRequest,
  type Capabilities,
  type NegotiatedLimits,
} from '../protocol';
import type { Connection, ConnectionStatistics } from '../transport';
import type { DeviceFeatures } from './device-feature';
import type { DirtyLog } from './dirty-log';
import type { VfioUserDmaTarget } from './dma-target';
import { VfioUserIrq } from './irq';
import { DeviceMigration } from './migration';
import { IrqExclusion } from './irq-exclusion';
import { PciFunction } from './pci-function';
import { PostedWrites, type PostedWriteStatistics } from './posted-writes';
import { VfioUserRegion, type RegionAccess } from './region';
import { describeRegion } from './region-description';

/** The result of the negotiation with a server. */
export interface Negotiated {
  /** The major version of the protocol, which is 0. */
  readonly major: number;
  /** The minor version that both speak. */
  readonly minor: number;
  /** What this side announced. */
  readonly client: Capabilities;
  /** What the server announced; the defaults of the specification where it said nothing. */
  readonly server: Capabilities;
  /** The server's version data as it came, null when it sent none. */
  readonly serverJson: unknown;
  /** What this side obeys when it sends. */
  readonly limits: NegotiatedLimits;
}

/** Time-outs of a device, in milliseconds. */
export interface DeviceTimeouts {
  /** For DMA_MAP, DMA_UNMAP and DEVICE_RESET, which may have to wait for the I/O in flight. */
  readonly quiesce: number;
}

/** What `connect` makes beside a device. */
export interface DeviceParts {
  readonly dma: DmaContainer;
  /** Whether the container is closed with the device. */
  readonly ownsDma: boolean;
  /** What the container tells the device by. */
  readonly target: VfioUserDmaTarget;
  readonly feature: DeviceFeatures;
}

/** What a device's connection has seen so far. */
export type DeviceStatistics = ConnectionStatistics & PostedWriteStatistics;

/** Most regions and interrupt indexes of a device. What a server announces beyond that is left out. */
const MAX_REGIONS = 4096;

/** Events of a {@link VfioUserDevice}, by name. */
export interface DeviceEvents {
  /** The connection has ended: with null by `close()`, else with why it failed. Emitted once. */
  close: [error: Error | null];
}

/** A PCI device that a vfio-user server offers. Made by `connect`. */
export class VfioUserDevice extends EventEmitter<DeviceEvents> implements Device {
  readonly name: string;
  /** Versions and capabilities of both sides. */
  readonly negotiated: Negotiated;
  /** The memory that the device may access, in a container of its own or one that devices share. */
  readonly dma: DmaContainer;
  /** The device as a PCI function: configuration space, capabilities, BARs. */
  readonly pci: PciFunction;
  /** Features by index, for what {@link migration} and {@link dirtyLog} do not cover. */
  readonly feature: DeviceFeatures;
  /** Moves the device's state to another server. */
  readonly migration: DeviceMigration;
  /** Tells which memory the device writes. */
  readonly dirtyLog: DirtyLog;
  readonly #connection: Connection;
  readonly #timeouts: DeviceTimeouts;
  readonly #parts: DeviceParts;
  readonly #info = memoize(() => this.#fetchInfo());
  readonly #regions = memoize((index: number) => this.#fetchRegion(index));
  readonly #irqs = memoize((index: number) => this.#fetchIrq(index));
  #config: VfioUserRegion | undefined;
  readonly #postedWrites: PostedWrites;
  readonly #open: (VfioUserRegion | VfioUserIrq)[] = [];
  readonly #irqExclusion = new IrqExclusion();

  /** @internal */
  constructor(connection: Connection, negotiated: Negotiated, parts: DeviceParts, timeouts: DeviceTimeouts) {
    super();
    this.name = connection.name;
    this.negotiated = negotiated;
    this.dma = parts.dma;
    this.feature = parts.feature;
    this.dirtyLog = parts.target.dirtyLog;
    this.pci = new PciFunction(this);
    this.#connection = connection;
    this.#parts = parts;
    this.#timeouts = timeouts;
    const { limits } = negotiated;
    this.migration = new DeviceMigration(connection, this.feature, {
      maxTransfer: limits.maxDataXferSize,
      timeout: timeouts.quiesce,
      reset: () => this.reset(),
    });
    this.#postedWrites = new PostedWrites(connection, limits.writeMultiple);
  }

  /** Whether the connection has ended: by {@link close}, or because the server has gone. */
  get closed(): boolean {
    return this.#connection.closed;
  }

  /**
   * Process id of the server, as the kernel knows it: of the process that listens (unix(7), SO_PEERCRED). Undefined when that
   * is in a container whose processes this one does not see, and when the connection has ended.
   */
  get serverPid(): number | undefined {
    const pid = this.closed ? 0 : this.#connection.peerPid;
    return pid === 0 ? undefined : pid;
  }

  /** Counters of the connection, as they are now. */
  get statistics(): Readonly<DeviceStatistics> {
    return { ...this.#connection.statistics, ...this.#postedWrites.statistics };
  }

  /**
   * What the device says of itself (vfio-user, VFIO_USER_DEVICE_GET_INFO). The server is asked once, since this does not change
   * while connected.
   *
   * @throws VfioUserError ERR_VFIO_USER_PCI when it is no PCI device; REMOTE and others of a message
   */
  info(): Promise<DeviceInfo> {
    return this.#info();
  }

  /**
   * A region by name or index. The server is asked once, since what a region is does not change while connected, and not by
   * {@link reset} either. The object, its mappings and descriptors are valid until {@link close}.
   *
   * @throws RangeError ERR_OUT_OF_RANGE for an index that no device has; VfioUserError ERR_VFIO_USER_REMOTE for one that this
   *   device does not have, and others of a message
   */
  async region(region: PciRegionName | number): Promise<VfioUserRegion> {
    const index = typeof region === 'number' ? region : PciRegion[region];
    if (!Number.isInteger(index) || index < 0 || index >= MAX_REGIONS)
      throw outOfRange(`region index ${region} cannot be`);
    return this.#regions(index);
  }

  get config(): RegisterSpace {
    return (this.#config ??= new VfioUserRegion(
      this.#connection,
      {
        index: PciRegion.config,
        size: PCIE_CONFIG_BYTES,
        flags: RegionFlag.read | RegionFlag.write,
        fdOffset: 0,
        areas: [],
        fds: [],
      },
      this.#regionAccess,
    ));
  }

  /**
   * An interrupt index by name or number. The server is asked once.
   *
   * @throws RangeError ERR_OUT_OF_RANGE for an index that no device has; VfioUserError ERR_VFIO_USER_REMOTE for one that this
   *   device does not have, and others of a message
   */
  async irq(irq: PciIrqName | number): Promise<VfioUserIrq> {
    const index = typeof irq === 'number' ? irq : PciIrq[irq];
    if (!Number.isInteger(index) || index < 0 || index >= MAX_REGIONS)
      throw outOfRange(`interrupt index ${irq} cannot be`);
    return this.#irqs(index);
  }

  /**
   * Resets the device (vfio-user, VFIO_USER_DEVICE_RESET).
   *
   * @throws VfioUserError ERR_VFIO_USER_UNSUPPORTED when the device does not offer it
   */
  async reset(): Promise<void> {
    if (!(await this.info()).resettable) {
      throw new VfioUserError(
        'ERR_VFIO_USER_UNSUPPORTED',
        `${this.name} does not offer a reset (its device info lacks the RESET flag)`,
      );
    }
    await this.#command(Command.deviceReset, new Uint8Array(0), this.#timeouts.quiesce);
  }

  /**
   * Returns when the server has served all messages that were sent before, posted writes among them: it serves them in
   * order and answers this one (DEVICE_GET_INFO).
   */
  async flush(): Promise<void> {
    await this.#command(Command.deviceGetInfo, encodeDeviceInfoRequest());
  }

  /** Blocks the thread until the server has served all messages that were sent before, as {@link flush} waits for. */
  flushSync(): void {
    const payload = encodeDeviceInfoRequest();
    this.#connection.requestSync({ command: Command.deviceGetInfo, payload });
  }

  /** Closes the connection and releases all mappings, descriptors and memory. Idempotent. */
  close(): Promise<void> {
    this.#connection.close();
    this.#release();
    return Promise.resolve();
  }

  /**
   * Tells the device that its connection has ended. Mappings stay until {@link close}, so that nothing is pulled from under a
   * reader. @internal
   */
  connectionClosed(error: VfioUserError | null): void {
    if (error !== null) {
      for (const part of this.#open) if (part instanceof VfioUserIrq) part.connectionLost(error);
    }
    this.emit('close', error);
  }

  #release(): void {
    const { target, ownsDma } = this.#parts;
    target.dirtyLog.release();
    devicesOf(this.dma).detach(target);
    if (ownsDma) this.dma.close();
    for (const part of this.#open) {
      if (part instanceof VfioUserRegion) part.close();
      else part.release();
    }
    this.#open.length = 0;
  }

  /** Calls {@link close}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #fetchInfo(): Promise<DeviceInfo> {
    const info = decodeDeviceInfoReply(await this.#command(Command.deviceGetInfo, encodeDeviceInfoRequest()));
    if ((info.flags & DeviceFlag.pci) === 0) {
      throw new VfioUserError(
        'ERR_VFIO_USER_PCI',
        `${this.name} is not a PCI device (device info flags 0x${info.flags.toString(16)})`,
      );
    }
    return {
      resettable: (info.flags & DeviceFlag.reset) !== 0,
      regionCount: Math.min(info.numRegions, MAX_REGIONS),
      irqCount: Math.min(info.numIrqs, MAX_REGIONS),
    };
  }

  get #regionAccess(): RegionAccess {
    return { maxTransfer: this.negotiated.limits.maxDataXferSize, postedWrites: this.#postedWrites };
  }

  async #fetchRegion(index: number): Promise<VfioUserRegion> {
    const description = await describeRegion(this.#connection, index);
    return this.#adopt(new VfioUserRegion(this.#connection, description, this.#regionAccess));
  }

  async #fetchIrq(index: number): Promise<VfioUserIrq> {
    const info = decodeIrqInfoReply(
      await this.#command(Command.deviceGetIrqInfo, encodeIrqInfoRequest({ index })),
      { index },
    );
    return this.#adopt(
      new VfioUserIrq(
        this.#connection,
        { ...info, index },
        this.negotiated.limits.maxMsgFds,
        this.#irqExclusion,
      ),
    );
  }

  /** A reply may arrive while the device is being closed; then nobody would close what it brought. */
  #adopt<Part extends VfioUserRegion | VfioUserIrq>(part: Part): Part {
    this.#open.push(part);
    if (this.closed && part instanceof VfioUserRegion) part.close();
    return part;
  }

  async #command(command: number, payload: Uint8Array, timeout?: number): Promise<Uint8Array> {
    const reply = await this.#connection.request({ command, payload, timeout });
    return reply.payload;
  }
}
