// SPDX-License-Identifier: MIT
import { memoize } from '../async';
import { devicesOf, type DmaContainer } from '../dma/container';
import type { DirtyLog } from '../device/dirty-log';
import { DeviceMigration } from '../device/migration';
import { MAX_INDEXES, PciDevice } from '../device/pci-device';
import { VfioUserError } from '../errors';
import { PCIE_CONFIG_BYTES } from '../pci/config-header';
import { PciRegion, type DeviceInfo, type DeviceLoss, type RegisterSpace } from '../pci/device';
import {
  Command,
  DeviceFlag,
  RegionFlag,
  decodeDeviceInfoReply,
  decodeIrqInfoReply,
  encodeDeviceInfoRequest,
  encodeIrqInfoRequest,
} from '../protocol';
import type { ConnectionStatistics, Request } from '../transport';
import type { DeviceFeatures } from './device-feature';
import type { VfioUserDmaTarget } from './dma-target';
import { VfioUserIrq } from './irq';
import type { Link, LinkState } from './link';
import { MigratingServer } from './migrating-server';
import type { Negotiated } from './negotiated';
import { OpenParts } from './open-parts';
import { PostedWrites, type PostedWriteStatistics } from './posted-writes';
import { VfioUserRegion, type RegionAccess } from './region';
import { describeRegion } from './region-description';
import { Renewal, type RenewalPlan, type Tell } from './renewal';

/** Time-outs of a device, in milliseconds. */
export interface DeviceTimeouts {
  /** For DMA_MAP, DMA_UNMAP and DEVICE_RESET, which may have to wait for the I/O in flight. */
  readonly quiesce: number;
}

/** What `connect` makes for a device. */
export interface DeviceMakings {
  readonly link: Link;
  readonly negotiated: Negotiated;
  readonly dma: DmaContainer;
  /** Whether the container is closed with the device. */
  readonly ownsDma: boolean;
  /** What the container tells the device by. */
  readonly target: VfioUserDmaTarget;
  readonly feature: DeviceFeatures;
  readonly timeouts: DeviceTimeouts;
  /** How the device comes back when its server has gone; null when it does not. */
  readonly renewal: RenewalPlan | null;
}

/** What a device's connection has seen so far; after a reconnection, what all its connections have. */
export type DeviceStatistics = ConnectionStatistics & PostedWriteStatistics;

/** A PCI device that a vfio-user server offers. Made by `connect`. */
export class VfioUserDevice extends PciDevice<VfioUserRegion, VfioUserIrq> {
  /** Versions and capabilities of both sides. */
  readonly negotiated: Negotiated;
  /** Features by index, for what {@link migration} and {@link dirtyLog} do not cover. */
  readonly feature: DeviceFeatures;
  /** Moves the device's state to another server. */
  readonly migration: DeviceMigration;
  /** Tells which memory the device writes. */
  readonly dirtyLog: DirtyLog;
  /** Whether the device comes back when its server goes away and returns: it was connected to with `reconnect`. */
  readonly reconnects: boolean;
  readonly #link: Link;
  readonly #makings: DeviceMakings;
  readonly #parts: OpenParts;
  readonly #renewal: Renewal | null;
  #lost: DeviceLoss | null = null;
  readonly #info = memoize(() => this.#fetchInfo());
  #config: VfioUserRegion | undefined;
  readonly #postedWrites: PostedWrites;

  /** @internal */
  constructor(makings: DeviceMakings) {
    super(makings.link.name, makings.dma);
    const { link, negotiated, feature, timeouts, renewal } = makings;
    const { limits } = negotiated;
    this.negotiated = negotiated;
    this.feature = feature;
    this.dirtyLog = makings.target.dirtyLog;
    this.#link = link;
    this.#makings = makings;
    const server = new MigratingServer(link, feature, {
      maxTransfer: limits.maxDataXferSize,
      timeout: timeouts.quiesce,
      reset: () => this.reset(),
    });
    this.migration = new DeviceMigration(server);
    this.#postedWrites = new PostedWrites(link, limits.writeMultiple);
    this.#parts = new OpenParts(makings.target, this.migration, this.#postedWrites);
    this.reconnects = renewal !== null;
    const tell: Tell = (event, ...args) => {
      this.tell(event, ...args);
    };
    this.#renewal = renewal === null ? null : new Renewal(renewal, link, this.#parts, tell);
    link.belongsTo({
      connectionEnded: (error, acting) => {
        this.#lost = this.#parts.connectionEnded(error, acting);
      },
      renew: (error) => {
        this.#renew(error);
      },
      linkClosed: (error) => {
        this.#gone(error);
      },
    });
  }

  /** Whether there is a connection to the server; `reconnecting` only of a device that {@link reconnects}. */
  get state(): LinkState {
    return this.#link.state;
  }

  /** Whether the device is gone for good: by {@link close}, or because the server has gone and is not waited for. */
  get closed(): boolean {
    return this.#link.state === 'closed';
  }

  /**
   * Process id of the server, as the kernel knows it: of the process that listens (unix(7), SO_PEERCRED). Undefined when that
   * is in a container whose processes this one does not see, and when the connection has ended.
   */
  get serverPid(): number | undefined {
    const pid = this.state === 'connected' ? this.#link.connection.peerPid : 0;
    return pid === 0 ? undefined : pid;
  }

  /** Counters of the connection, as they are now. */
  get statistics(): Readonly<DeviceStatistics> {
    return { ...this.#link.statistics, ...this.#postedWrites.statistics };
  }

  /**
   * What the device says of itself (vfio-user, VFIO_USER_DEVICE_GET_INFO). The server is asked once, since this does not change
   * while connected.
   *
   * @throws VfioUserError ERR_VFIO_USER_PCI when it is no PCI device; REMOTE and others of a message
   */
  override info(): Promise<DeviceInfo> {
    return this.#info();
  }

  override get config(): RegisterSpace {
    return (this.#config ??= new VfioUserRegion(
      this.#link,
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
   * Resets the device (vfio-user, VFIO_USER_DEVICE_RESET).
   *
   * @throws VfioUserError ERR_VFIO_USER_UNSUPPORTED when the device does not offer it; DISCONNECTED when the server went
   *   meanwhile, also when it is back
   */
  override async reset(): Promise<void> {
    const { epoch } = this.#link;
    this.#link.assertConnected('DEVICE_RESET');
    if (!(await this.info()).resettable) {
      throw new VfioUserError(
        'ERR_VFIO_USER_UNSUPPORTED',
        `${this.name} does not offer a reset (its device info lacks the RESET flag); restart its server instead`,
      );
    }
    this.#link.assertConnected('DEVICE_RESET', epoch);
    const payload = new Uint8Array(0);
    await this.#link.request({
      command: Command.deviceReset,
      payload,
      timeout: this.#makings.timeouts.quiesce,
    });
  }

  /**
   * Returns when the server has served all messages that were sent before, posted writes among them: it serves them in
   * order and answers this one (DEVICE_GET_INFO).
   *
   * @throws VfioUserError ERR_VFIO_USER_DISCONNECTED when the server went meanwhile: then it is not known which it has served
   */
  async flush(): Promise<void> {
    await this.#link.request(flushRequest());
  }

  /** Blocks the thread until the server has served all messages that were sent before, as {@link flush} waits for. */
  flushSync(): void {
    this.#link.requestSync(flushRequest());
  }

  /** Closes the connection, or stops waiting for one, and releases all mappings, descriptors and memory. Idempotent. */
  override close(): Promise<void> {
    this.#link.close(null);
    const { target, ownsDma } = this.#makings;
    devicesOf(this.dma).detach(target);
    if (ownsDma) this.dma.close();
    this.#parts.close();
    return Promise.resolve();
  }

  /** The server has gone, and is waited for. */
  #renew(error: VfioUserError): void {
    this.tell('disconnect', error, this.#lost as DeviceLoss);
    // A listener may have closed the device.
    if (this.#link.state === 'reconnecting') void this.#renewal?.run(error);
  }

  /** DMA memory stays until {@link close}, so that nothing is pulled from under a reader. */
  #gone(error: VfioUserError | null): void {
    this.#renewal?.stop();
    if (error !== null) this.#parts.deviceGone(error);
    this.tell('close', error);
  }

  async #fetchInfo(): Promise<DeviceInfo> {
    const payload = encodeDeviceInfoRequest();
    const reply = await this.#link.request({ command: Command.deviceGetInfo, payload });
    const info = decodeDeviceInfoReply(reply.payload);
    if ((info.flags & DeviceFlag.pci) === 0) {
      throw new VfioUserError(
        'ERR_VFIO_USER_PCI',
        `${this.name} is not a PCI device (device info flags 0x${info.flags.toString(16)}); no other kind is driven by this package`,
      );
    }
    return {
      resettable: (info.flags & DeviceFlag.reset) !== 0,
      regionCount: Math.min(info.numRegions, MAX_INDEXES),
      irqCount: Math.min(info.numIrqs, MAX_INDEXES),
    };
  }

  get #regionAccess(): RegionAccess {
    return { maxTransfer: this.negotiated.limits.maxDataXferSize, postedWrites: this.#postedWrites };
  }

  /** @internal */
  protected override async fetchRegion(index: number): Promise<VfioUserRegion> {
    const description = await describeRegion(this.#link, index);
    const region = new VfioUserRegion(this.#link, description, this.#regionAccess);
    if (this.closed) region.close();
    // The reply may have come just before the connection ended.
    else if (this.#link.state === 'reconnecting') region.connectionEnded();
    this.#parts.addRegion(region);
    return region;
  }

  /** @internal */
  protected override async fetchIrq(index: number): Promise<VfioUserIrq> {
    const payload = encodeIrqInfoRequest({ index });
    const reply = await this.#link.request({ command: Command.deviceGetIrqInfo, payload });
    const info = decodeIrqInfoReply(reply.payload, { index });
    const { maxMsgFds } = this.negotiated.limits;
    const irq = new VfioUserIrq(this.#link, { ...info, index }, maxMsgFds, this.irqExclusion);
    this.#parts.addIrq(irq);
    return irq;
  }
}

/** A question that tells nothing but that it was served. Its answer by another server would say nothing of what went before. */
function flushRequest(): Request {
  return { command: Command.deviceGetInfo, payload: encodeDeviceInfoRequest(), loss: 'fail' };
}
