// SPDX-License-Identifier: MIT
import { closeFd, fileSize } from '../native';
import type { ConfigEffect } from '../pci/config-space';
import {
  Command,
  DmaUnmapFlag,
  commandName,
  decodeDmaMapRequest,
  decodeDmaUnmapRequest,
  decodeSetIrqsRequest,
  encodeDmaUnmapReply,
  type DirtyBitmapInfo,
  type DmaMapRequest,
  type DmaUnmapRequest,
} from '../protocol';
import {
  CommandError,
  Errno,
  type CommandReply,
  type Connection,
  type FdList,
  type IncomingCommand,
  type LaneQueue,
} from '../transport';
import { ClientInterrupts } from './client-interrupts';
import { ClientMemoryMap } from './client-memory';
import type { DeviceDescription } from './device-description';
import { answerDeviceFeature } from './device-feature';
import type { Client, ClientFile, ClientRange, PciDeviceModel, SharedFile } from './device-model';
import type { FunctionState } from './function-state';
import { IoRegions } from './io-regions';
import type { Migration } from './migration';
import { after, type Eventually, type ModelCalls } from './model-calls';
import type { Agreement } from './negotiation';
import type { ProcessLimits } from './process-limits';
import { PassedFeatures, PassedInterrupts } from './passed-through';
import type { ServedInterrupts } from './served-interrupts';
import { RefusedMaps } from './refused-maps';
import { RegionAccessor } from './region-access';
import { TimeSlice } from './time-slice';

/** A device as it is served: its model, and what the server keeps for it from client to client. */
export interface ServedDevice {
  readonly model: PciDeviceModel;
  readonly function: FunctionState;
  readonly description: DeviceDescription;
  /** Null when the device cannot migrate. */
  readonly migration: Migration | null;
}

/** What a {@link ServedClient} works with. */
export interface ServedClientOptions {
  /** Name of the client, for messages. */
  readonly name: string;
  readonly device: ServedDevice;
  /** What was negotiated. */
  readonly agreement: Agreement;
  readonly processLimits: ProcessLimits;
  /** The connection for our DMA_READ and DMA_WRITE. */
  readonly connection: Connection;
  /** The order of the client's commands, among which accesses by ioregionfd take their turn. */
  readonly turns: LaneQueue;
  readonly calls: ModelCalls;
  /** Ends the connection. */
  readonly disconnect: () => void;
  /** Told of what goes wrong and is nobody's to handle. */
  readonly report: (error: unknown) => void;
}

/** What a device that failed to migrate does not serve until it is reset. */
const ACCESSES: readonly number[] = [Command.regionRead, Command.regionWrite, Command.regionWriteMulti];
const EMPTY: CommandReply = { payload: new Uint8Array(0) };

/** A client that has negotiated: serves its commands, and owns its memory and eventfds. */
export class ServedClient implements Client {
  readonly name: string;
  readonly memory: ClientMemoryMap;
  readonly #device: ServedDevice;
  readonly #agreement: Agreement;
  readonly #calls: ModelCalls;
  readonly #disconnect: () => void;
  readonly #interrupts: ServedInterrupts;
  /** Null for a device whose state the server looks after. */
  readonly #passedFeatures: PassedFeatures | null;
  readonly #regions: RegionAccessor;
  readonly #ioRegions: IoRegions;
  readonly #refusedMaps: RefusedMaps;

  constructor(options: ServedClientOptions) {
    const { name, device, agreement, processLimits, connection, turns, calls, disconnect, report } = options;
    const { ours, limits } = agreement;
    this.name = name;
    this.#device = device;
    this.#agreement = agreement;
    this.#calls = calls;
    this.#disconnect = disconnect;
    this.memory = new ClientMemoryMap(
      connection,
      {
        maxDmaMaps: ours.maxDmaMaps,
        pageSizes: ours.pageSizes,
        maxDataXferSize: limits.maxDataXferSize,
        mappings: processLimits.mappings,
      },
      report,
    );
    this.#refusedMaps = new RefusedMaps(report);
    const { passthrough } = device.model;
    this.#interrupts =
      passthrough === undefined
        ? new ClientInterrupts(device.function, processLimits.descriptors)
        : new PassedInterrupts(passthrough, calls.call, processLimits.descriptors);
    this.#passedFeatures =
      passthrough === undefined ? null : new PassedFeatures(passthrough, calls.call, ours.maxDataXferSize);
    this.#regions = new RegionAccessor(device.function, calls.call, ours.maxDataXferSize);
    this.#ioRegions = new IoRegions(device.function.regions, {
      turns,
      report,
      read: (region, offset, data) => {
        this.#checkState();
        return calls.track(this.#regions.load(region, offset, data));
      },
      write: (region, offset, data, posted) => {
        this.#checkState();
        return calls.track(this.#regions.store(region, offset, data, posted));
      },
    });
    device.function.onConfigured = (effects) => this.#configured(effects);
  }

  setInterrupt(high: boolean, vector = 0): boolean {
    return this.#interrupts.set(high, vector);
  }

  trigger(irqIndex: number, vector = 0): boolean {
    return this.#interrupts.trigger(irqIndex, vector);
  }

  disconnect(): void {
    this.#disconnect();
  }

  unplug(): void {
    this.#device.function.unplugged = true;
    this.#follow();
  }

  /** @throws CommandError or VfioUserError ERR_VFIO_USER_PROTOCOL, which becomes the errno of the reply */
  serve({ command, payload, fds, posted }: IncomingCommand): Eventually<CommandReply> {
    const { description, migration } = this.#device;
    const { maxMsgFds } = this.#agreement.limits;
    if (ACCESSES.includes(command)) this.#checkState();
    switch (command) {
      case Command.version:
        throw new CommandError(Errno.EINVAL, 'the version has been negotiated');
      case Command.dmaMap:
        return this.#map(payload, fds);
      case Command.dmaUnmap:
        return this.#unmap(payload);
      case Command.deviceGetInfo:
        return description.device(payload);
      case Command.deviceGetRegionInfo:
        return description.region(payload, maxMsgFds, (shared) => this.#sharedFd(shared));
      case Command.deviceGetRegionIoFds:
        return description.regionIoFds(payload, maxMsgFds, (index) => this.#ioRegions.open(index));
      case Command.deviceGetIrqInfo:
        return description.irq(payload);
      case Command.deviceSetIrqs:
        return after(this.#interrupts.setIrqs(decodeSetIrqsRequest(payload), fds), () => EMPTY);
      case Command.regionRead:
        return this.#regions.read(payload);
      case Command.regionWrite:
        return this.#regions.write(payload, posted);
      case Command.regionWriteMulti:
        return this.#regions.writeMulti(payload, posted);
      case Command.deviceReset:
        return this.#reset();
      case Command.deviceFeature:
        if (this.#passedFeatures !== null) return this.#passedFeatures.feature(payload);
        return answerDeviceFeature(payload, migration, this.memory.dirtyLog, this.#calls.call);
      case Command.migDataRead:
        if (this.#passedFeatures !== null) return this.#passedFeatures.read(payload);
        return this.#migration.read(payload, this.#agreement.ours.maxDataXferSize, this.#calls.call);
      case Command.migDataWrite:
        if (this.#passedFeatures !== null) return this.#passedFeatures.write(payload);
        return after(
          this.#migration.write(payload, this.#agreement.ours.maxDataXferSize, this.#calls.call),
          () => EMPTY,
        );
      default:
        throw new CommandError(Errno.ENOTSUP, `${commandName(command)} is not served`);
    }
  }

  /** Releases what the client had. The device model must have let go. Resolves when nothing is left. */
  async close(): Promise<void> {
    this.#device.function.detach();
    this.#refusedMaps.close();
    this.#ioRegions.close();
    await Promise.all([this.#interrupts.close(), this.memory.close()]);
  }

  get #migration(): Migration {
    const { migration, model } = this.#device;
    if (migration === null) throw new CommandError(Errno.ENOTSUP, `${model.name} cannot migrate`);
    return migration;
  }

  #checkState(): void {
    const { migration, model } = this.#device;
    if (migration?.state === 'error')
      throw new CommandError(Errno.EIO, `${model.name} failed to migrate, and has to be reset`);
  }

  /** The descriptor of a shared file for this client. */
  #sharedFd({ fd }: SharedFile): number {
    if (typeof fd === 'number') return fd;
    let own = -1;
    this.#calls.tell(() => {
      own = fd(this);
      fileSize(own); // Throws when it is not open. The message could not be sent then.
    });
    return own;
  }

  /** The descriptor is closed when the device has seen it. */
  #map(payload: Uint8Array, fds: FdList): Eventually<CommandReply> {
    const fd = fds.take(0) ?? null;
    const close = (): void => {
      if (fd !== null) closeFd(fd);
    };
    let done: Eventually<void>;
    try {
      if (fds.length > 1) throw new CommandError(Errno.EINVAL, `DMA_MAP with ${fds.length} file descriptors`);
      done = this.#enter(decodeDmaMapRequest(payload), fd);
    } catch (error) {
      close();
      this.#refusedMaps.note(error);
      throw error;
    }
    if (!(done instanceof Promise)) {
      close();
      return EMPTY;
    }
    return done.finally(close).then(
      () => EMPTY,
      (error: unknown) => {
        this.#refusedMaps.note(error);
        throw error;
      },
    );
  }

  #enter(request: Readonly<DmaMapRequest>, fd: number | null): Eventually<void> {
    const range = this.memory.map(request, fd);
    const file: ClientFile | null = fd === null ? null : { fd, offset: Number(request.offset) };
    const refused = (error: unknown): never => {
      this.memory.remove(range);
      throw error;
    };
    try {
      const done = this.#calls.call(() => this.#device.model.mapped?.(range, file));
      return done instanceof Promise ? done.catch(refused) : done;
    } catch (error) {
      return refused(error);
    }
  }

  #unmap(payload: Uint8Array): Eventually<CommandReply> {
    const request = decodeDmaUnmapRequest(payload);
    const { flags, address, size, bitmap } = request;
    if (flags !== 0 && flags !== DmaUnmapFlag.all && flags !== DmaUnmapFlag.getDirtyBitmap)
      throw new CommandError(Errno.EINVAL, `DMA_UNMAP flags are 0x${flags.toString(16)}`);
    const { memory } = this;
    if (bitmap !== undefined) return this.#unmapReporting(request, bitmap);
    const ranges = flags === DmaUnmapFlag.all ? memory.ranges : memory.within(address, size);
    return after(this.#takeAway(ranges), () => ({ payload: encodeDmaUnmapReply(request) }));
  }

  /** Unmaps one range, and tells what the device has written of it (libvfio-user, `struct vfio_user_bitmap`). */
  #unmapReporting(
    request: Readonly<DmaUnmapRequest>,
    { pageSize, size: bytes }: DirtyBitmapInfo,
  ): Eventually<CommandReply> {
    const { memory } = this;
    const { address, size } = request;
    const range = memory.get(address, size);
    if (range === undefined) {
      throw new CommandError(
        Errno.ENOENT,
        `no DMA_MAP had address 0x${address.toString(16)} and size 0x${size.toString(16)}`,
      );
    }
    memory.dirtyLog.checkUnmapBitmap(size, { pageSize, size: bytes });
    return after(this.#letGo(range), () => {
      const data = memory.dirtyLog.unmapBitmap(address, size, pageSize);
      memory.remove(range);
      return { payload: encodeDmaUnmapReply(request), data };
    });
  }

  /** The device lets go of ranges, then they are unmapped. */
  #takeAway(ranges: readonly ClientRange[]): Eventually<void> {
    const [range] = ranges;
    if (range === undefined) return undefined;
    if (ranges.length > 1) return this.#takeAwayMany(ranges);
    return after(this.#letGo(range), () => {
      this.memory.remove(range);
    });
  }

  /** As {@link #takeAway}, with turns for others between them. When the device fails, those that it has let go of are unmapped. */
  async #takeAwayMany(ranges: readonly ClientRange[]): Promise<void> {
    const { memory } = this;
    const slice = new TimeSlice();
    let free = 0;
    try {
      for (const range of ranges) {
        const letGo = this.#letGo(range);
        if (letGo instanceof Promise) await letGo;
        free++;
        if (slice.over) await slice.next();
        // A client that leaves meanwhile takes all with it.
        if (memory.closed) return;
      }
    } finally {
      for (const range of ranges.slice(0, free)) {
        memory.remove(range);
        if (slice.over) await slice.next();
      }
    }
  }

  #letGo(range: ClientRange): Eventually<void> {
    return this.#calls.call(() => this.#device.model.unmapping?.(range));
  }

  /** The client has written to configuration space. The server follows all of it before the device is told of any. */
  #configured(effects: readonly ConfigEffect[]): Eventually<void> {
    this.#follow();
    let done: Eventually<void> = undefined;
    for (const effect of effects) {
      if (effect.kind === 'function-level-reset') this.#resetFunction();
      else done = after(done, () => this.#device.model.configured?.(effect));
    }
    return done;
  }

  #follow(): void {
    this.memory.busMaster = this.#device.function.busMaster;
    this.#interrupts.configured();
  }

  #reset(): Eventually<CommandReply> {
    const { model } = this.#device;
    if (model.reset === undefined) throw new CommandError(Errno.ENOTSUP, `${model.name} offers no reset`);
    return after(this.#resetDevice(), () => {
      // Not before the device is reset: what it was about to do for its former user is over.
      this.#device.function.begin();
      this.#follow();
      return EMPTY;
    });
  }

  /** A function level reset. The client waits for a time, not for the answer to its write (PCI Express base 5.0, 6.6.2). */
  #resetFunction(): void {
    const done = this.#calls.track(this.#resetDevice());
    if (done instanceof Promise) done.catch(() => undefined);
  }

  /** Resets configuration space and interrupts, and has the device reset itself. */
  #resetDevice(): Eventually<void> {
    const { model, migration } = this.#device;
    const { call } = this.#calls;
    this.#device.function.reset();
    this.#interrupts.reset();
    this.#follow();
    const done = call(() => model.reset?.());
    if (migration === null) return done;
    return (async () => {
      await done;
      await migration.wasReset(call);
    })();
  }
}
