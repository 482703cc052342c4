// SPDX-License-Identifier: MIT
import { VfioUserError } from '../errors';
import type { Socket } from '../native';
import {
  Command,
  DmaUnmapFlag,
  HEADER_SIZE,
  MAX_VERSION_JSON,
  commandName,
  decodeDmaMapRequest,
  decodeDmaUnmapRequest,
  decodeSetIrqsRequest,
  encodeDmaUnmapReply,
  type Capabilities,
} from '../protocol';
import { CommandError, Connection, Errno, type CommandReply, type IncomingCommand } from '../transport';
import { Activity } from './activity';
import { ClientInterrupts } from './client-interrupts';
import { ClientMemoryMap } from './client-memory';
import { commandLane } from './command-lanes';
import type { DeviceDescription } from './device-description';
import { answerDeviceFeature } from './device-feature';
import type { Client, ClientRange, PciDeviceModel } from './device-model';
import { IoRegions } from './io-regions';
import type { Migration } from './migration';
import { after, type Eventually } from './model-call';
import { answerVersion } from './negotiation';
import { RegionAccessor } from './region-access';
import { TwinSocket } from './twin-socket';

/** What a session serves, and how. */
export interface SessionOptions {
  /** Name of the client, for messages. */
  readonly name: string;
  readonly model: PciDeviceModel;
  readonly description: DeviceDescription;
  /** Null when the device cannot migrate. */
  readonly migration: Migration | null;
  readonly capabilities: Readonly<Capabilities>;
  /** Milliseconds until the client must have negotiated. */
  readonly versionTimeout: number;
  /** Time-out of our own requests, in milliseconds. */
  readonly messageTimeout: number;
  /** Told of what goes wrong and is not the caller's to handle. */
  readonly report: (error: unknown, client: Client | null) => void;
}

/** What a client has once it has negotiated. */
class ServedClient implements Client {
  readonly name: string;
  readonly memory: ClientMemoryMap;
  readonly interrupts: ClientInterrupts;
  readonly regions: RegionAccessor;
  readonly ioRegions: IoRegions;

  constructor(
    name: string,
    memory: ClientMemoryMap,
    interrupts: ClientInterrupts,
    regions: RegionAccessor,
    ioRegions: IoRegions,
  ) {
    this.name = name;
    this.memory = memory;
    this.interrupts = interrupts;
    this.regions = regions;
    this.ioRegions = ioRegions;
  }

  trigger(irqIndex: number, vector: number): boolean {
    return this.interrupts.trigger(irqIndex, vector);
  }

  pending(irqIndex: number, vector: number): boolean {
    return this.interrupts.pending(irqIndex, vector);
  }
}

/** Largest message before the negotiation. */
const MAX_FIRST_MESSAGE = HEADER_SIZE + 8 + MAX_VERSION_JSON;
/** Room for the fixed part of a transfer, and for messages that are not transfers. */
const MESSAGE_ROOM = HEADER_SIZE + (1 << 16);
/** Commands that descriptors may come with. SPDK's client sends the one of DMA_MAP with DMA_UNMAP again; it is closed. */
const WITH_FDS: readonly number[] = [Command.dmaMap, Command.dmaUnmap, Command.deviceSetIrqs];
/** Longest time of a timer, in milliseconds. */
const MAX_TIMER = 2 ** 31 - 1;
/** What a device that failed to migrate does not serve until it is reset. */
const ACCESSES: readonly number[] = [Command.regionRead, Command.regionWrite, Command.regionWriteMulti];
const EMPTY: CommandReply = { payload: new Uint8Array(0) };

/** One client, from the connection to its end: serves its commands, and owns what it sent. */
export class Session {
  /** Resolves when the client is gone, its memory and eventfds are released, and the model is at rest. */
  readonly ended: Promise<void>;
  readonly #options: SessionOptions;
  readonly #model: PciDeviceModel;
  readonly #connection: Connection;
  readonly #deadline: NodeJS.Timeout | undefined;
  #client: ServedClient | null = null;
  #negotiated = false;
  /** Descriptors that the client takes with a message. */
  #maxMsgFds = 0;
  /** What the device model does for the client. */
  readonly #activity = new Activity();

  /** @param socket is the session's from now on */
  constructor(socket: Socket, options: SessionOptions) {
    this.#options = options;
    this.#model = options.model;
    let end = (): void => undefined;
    this.ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    this.#connection = new Connection(socket, {
      name: options.name,
      messageTimeout: options.messageTimeout,
      maxMessageSize: MAX_FIRST_MESSAGE,
      onCommand: (command) => this.#activity.track(this.#dispatch(command)),
      lane: (command, payload) => commandLane(this.#model.regions, command, payload),
      onClose: (error) => {
        try {
          this.#release(error);
        } finally {
          void this.#settle().then(end);
        }
      },
    });
    // A client that connects and stays silent would keep all others out.
    if (options.versionTimeout !== Infinity) {
      this.#deadline = setTimeout(
        () => {
          this.#report(silenceError(options));
          this.close();
        },
        Math.min(options.versionTimeout, MAX_TIMER),
      );
    }
  }

  /** The client, once it has negotiated and until it is gone. */
  get client(): Client | null {
    return this.#client;
  }

  /** Disconnects the client. Idempotent. */
  close(): void {
    this.#connection.close();
  }

  #dispatch({ command, payload, fds, posted }: IncomingCommand): Eventually<CommandReply> {
    const client = this.#client;
    if (fds.length > 0 && !WITH_FDS.includes(command))
      throw new CommandError(Errno.EINVAL, `${commandName(command)} with file descriptors`);
    if (client === null) return this.#negotiate(command, payload);
    const { description, migration } = this.#options;
    if (ACCESSES.includes(command)) this.#checkState();
    switch (command) {
      case Command.version:
        throw new CommandError(Errno.EINVAL, 'the version has been negotiated');
      case Command.dmaMap:
        return this.#map(client, decodeDmaMapRequest(payload), fds);
      case Command.dmaUnmap:
        return this.#unmap(client, payload);
      case Command.deviceGetInfo:
        return description.device(payload);
      case Command.deviceGetRegionInfo:
        return description.region(payload, this.#maxMsgFds);
      case Command.deviceGetRegionIoFds:
        return description.regionIoFds(payload, this.#maxMsgFds, (index) => client.ioRegions.open(index));
      case Command.deviceGetIrqInfo:
        return description.irq(payload);
      case Command.deviceSetIrqs:
        client.interrupts.set(decodeSetIrqsRequest(payload), fds);
        return EMPTY;
      case Command.regionRead:
        return client.regions.read(payload);
      case Command.regionWrite:
        return client.regions.write(payload, posted);
      case Command.regionWriteMulti:
        return client.regions.writeMulti(payload, posted);
      case Command.deviceReset:
        return this.#reset();
      case Command.deviceFeature:
        return answerDeviceFeature(payload, migration, client.memory.dirtyLog, this.#call.bind(this));
      case Command.migDataRead:
      case Command.migDataWrite:
        return this.#migrate(command, payload);
      default:
        throw new CommandError(Errno.ENOTSUP, `${commandName(command)} is not served`);
    }
  }

  #checkState(): void {
    if (this.#options.migration?.state === 'error')
      throw new CommandError(Errno.EIO, `${this.#model.name} failed to migrate, and has to be reset`);
  }

  /** VERSION comes first, and a client with which we cannot agree is disconnected (vfio-user, VFIO_USER_VERSION). */
  #negotiate(command: number, payload: Uint8Array): CommandReply {
    try {
      if (command !== Command.version)
        throw new CommandError(Errno.EINVAL, `${commandName(command)} before VERSION`);
      const { name, capabilities, messageTimeout } = this.#options;
      const { reply, ours, limits } = answerVersion(payload, capabilities);
      const maxMessageSize = MESSAGE_ROOM + ours.maxDataXferSize;
      this.#connection.maxMessageSize = maxMessageSize;
      this.#maxMsgFds = limits.maxMsgFds;
      const twin = limits.twinSocket
        ? new TwinSocket(this.#connection, { name, messageTimeout, maxMessageSize })
        : null;
      const { maxDmaMaps, pageSizes } = ours;
      const { maxDataXferSize } = limits;
      const report = this.#report.bind(this);
      const regions = new RegionAccessor(this.#model.regions, this.#call.bind(this), ours.maxDataXferSize);
      const client = new ServedClient(
        name,
        new ClientMemoryMap(
          twin?.connection ?? this.#connection,
          { maxDmaMaps, pageSizes, maxDataXferSize },
          report,
        ),
        new ClientInterrupts(this.#model.irqs),
        regions,
        this.#ioRegions(regions),
      );
      this.#tell(() => this.#model.attach?.(client));
      this.#client = client;
      this.#negotiated = true;
      clearTimeout(this.#deadline);
      return twin?.reply(reply) ?? { payload: reply };
    } catch (error) {
      // After the reply, which leaves as soon as this throws.
      queueMicrotask(() => {
        this.close();
      });
      throw error;
    }
  }

  #ioRegions(regions: RegionAccessor): IoRegions {
    return new IoRegions(this.#model.regions, {
      turns: this.#connection.turns,
      report: this.#report.bind(this),
      read: (region, offset, data) => {
        this.#checkState();
        return this.#activity.track(regions.load(region, offset, data));
      },
      write: (region, offset, data, posted) => {
        this.#checkState();
        return this.#activity.track(regions.store(region, offset, data, posted));
      },
    });
  }

  #map(
    client: ServedClient,
    request: ReturnType<typeof decodeDmaMapRequest>,
    fds: IncomingCommand['fds'],
  ): CommandReply {
    const range = client.memory.map(request, fds);
    try {
      this.#tell(() => this.#model.mapped?.(range));
    } catch (error) {
      client.memory.remove(range);
      throw error;
    }
    return EMPTY;
  }

  #unmap(client: ServedClient, payload: Uint8Array): Eventually<CommandReply> {
    const request = decodeDmaUnmapRequest(payload);
    const { flags, address, size } = request;
    const { bitmap } = request;
    if (flags !== 0 && flags !== DmaUnmapFlag.all && flags !== DmaUnmapFlag.getDirtyBitmap)
      throw new CommandError(Errno.EINVAL, `DMA_UNMAP flags are 0x${flags.toString(16)}`);
    const one = client.memory.get(address, size);
    const ranges = flags === DmaUnmapFlag.all ? client.memory.ranges : one === undefined ? [] : [one];
    if (ranges.length === 0 && flags !== DmaUnmapFlag.all) {
      throw new CommandError(
        Errno.ENOENT,
        `no DMA_MAP had address 0x${address.toString(16)} and size 0x${size.toString(16)}`,
      );
    }
    const { dirtyLog } = client.memory;
    if (bitmap === undefined)
      return after(this.#leave(client, ranges), () => ({ payload: encodeDmaUnmapReply(request) }));
    dirtyLog.checkUnmapBitmap(size, bitmap);
    let data: Uint8Array | undefined;
    const left = this.#leave(client, ranges, () => {
      data = dirtyLog.unmapBitmap(address, size, bitmap.pageSize);
    });
    return after(left, () => ({ payload: encodeDmaUnmapReply(request), data }));
  }

  /** @param before called when the device has let go of a range that is about to be unmapped */
  async #leave(client: ServedClient, ranges: readonly ClientRange[], before?: () => void): Promise<void> {
    for (const range of ranges) {
      await this.#call(() => this.#model.unmapping?.(range));
      before?.();
      client.memory.remove(range);
    }
  }

  async #migrate(command: number, payload: Uint8Array): Promise<CommandReply> {
    const { migration, capabilities } = this.#options;
    if (migration === null) throw new CommandError(Errno.ENOTSUP, `${this.#model.name} cannot migrate`);
    const { maxDataXferSize } = capabilities;
    const call = this.#call.bind(this);
    if (command === Command.migDataRead) return migration.read(payload, maxDataXferSize, call);
    await migration.write(payload, maxDataXferSize, call);
    return EMPTY;
  }

  #reset(): Eventually<CommandReply> {
    if (this.#model.reset === undefined)
      throw new CommandError(Errno.ENOTSUP, `${this.#model.name} offers no reset`);
    const { migration } = this.#options;
    const done = this.#call(() => this.#model.reset?.());
    if (migration === null) return after(done, () => EMPTY);
    return (async () => {
      await done;
      await migration.wasReset(this.#call.bind(this));
      return EMPTY;
    })();
  }

  /** The device model is called from here only. See `ModelCall`. */
  #call<T>(call: () => Eventually<T>): Eventually<T> {
    try {
      const result = call();
      if (!(result instanceof Promise)) return result;
      return result.catch((error: unknown) => {
        throw this.#refusal(error);
      });
    } catch (error) {
      throw this.#refusal(error);
    }
  }

  /** Calls a function of the model that returns nothing. One that is `async` against the contract is not waited for. */
  #tell(call: () => Eventually<void>): void {
    const result = this.#call(call);
    if (result instanceof Promise) result.catch(() => undefined);
  }

  #refusal(error: unknown): CommandError {
    if (error instanceof CommandError) return error;
    this.#report(error);
    return new CommandError(Errno.EIO, `${this.#model.name} failed`);
  }

  /** The client is gone: the model lets go first, then its memory and eventfds are released. */
  #release(error: VfioUserError | null): void {
    clearTimeout(this.#deadline);
    const client = this.#client;
    if (client !== null) {
      try {
        this.#tell(() => this.#model.detach?.(client));
      } catch {
        // It has been reported.
      }
      this.#client = null;
      client.ioRegions.close();
      client.interrupts.close();
      client.memory.close();
    }
    // That a client goes away is no error.
    if (error !== null && error.code !== 'ERR_VFIO_USER_DISCONNECTED') this.#options.report(error, client);
  }

  /** Waits for the device model; then a device that can migrate runs again, for the next client. */
  async #settle(): Promise<void> {
    await this.#activity.rest();
    if (!this.#negotiated) return;
    try {
      await this.#options.migration?.clientGone(this.#call.bind(this));
    } catch {
      // Reported by the call.
    }
  }

  #report(error: unknown): void {
    this.#options.report(error, this.#client);
  }
}

function silenceError({ name, versionTimeout }: SessionOptions): VfioUserError {
  return new VfioUserError(
    'ERR_VFIO_USER_TIMEOUT',
    `${name} did not send VERSION within ${versionTimeout} ms; it was disconnected so that others are served`,
    { command: 'VERSION' },
  );
}
