// SPDX-License-Identifier: MIT
import { devicesOf } from '../dma/container';
import { VfioUserError } from '../errors';
import {
  CommandError,
  Errno,
  type Client,
  type ClientFile,
  type ClientRange,
  type PciDeviceModel,
  type ServedFunction,
  type ServedRegion,
  type ServerCapabilities,
} from '../server';
import type { Passthrough } from '../server/passthrough';
import { readProcessLimits } from '../server/process-limits';
import { ConfigHeader } from './config-header';
import type { MessagePort, ProxiedDevice } from './device';
import { ProxiedInterrupts } from './interrupts';
import { ProxiedMemory } from './memory';
import { goneRefusal, proxiedRegions } from './regions';
import { Steps, type StepObserver } from './steps';

/** How a device is handed through. */
export interface ProxyOptions {
  /** Lets clients map nothing, so that every access comes through the proxy. Default false. */
  readonly trap?: boolean;
  /** Told of what goes through. Interrupts are relayed then, and `trap` lets it see all accesses. Default: nobody. */
  readonly observer?: StepObserver | undefined;
}

/** Milliseconds that a client has to let go of a device that is asked back. */
const REQUEST_TIMEOUT = 10_000;

/**
 * A device as a model that `serve` offers: what a client does to it is done to the device, with the same registers, interrupts,
 * and addresses of memory. The device stays the caller's. When it is gone, its client is disconnected, and no other is served.
 */
export class ProxyModel implements PciDeviceModel {
  readonly name: string;
  readonly pci: ServedFunction;
  readonly regions: ReadonlyMap<number, ServedRegion>;
  readonly passthrough: Passthrough;
  readonly reset?: () => Promise<void>;
  /** What `serve` has to announce: no more than the device takes. */
  readonly capabilities: ServerCapabilities;
  /** Resolves with why when the device has gone. */
  readonly gone: Promise<VfioUserError>;
  readonly #steps: Steps;
  readonly #interrupts: ProxiedInterrupts;
  readonly #memory: ProxiedMemory;
  readonly #header: ConfigHeader;
  readonly #state: ProxyState;

  private constructor(parts: ProxyParts) {
    const { device, steps, state, interrupts, regions, header, resettable } = parts;
    this.name = `proxy of ${device.name}`;
    this.pci = header.identity;
    this.regions = regions;
    this.passthrough = passthroughOf(device, interrupts, steps);
    if (resettable) this.reset = () => steps.act({ kind: 'reset' }, () => device.reset());
    this.capabilities = capabilitiesOf(device);
    this.gone = state.gone;
    this.#steps = steps;
    this.#interrupts = interrupts;
    this.#memory = new ProxiedMemory(device.dma, steps);
    this.#header = header;
    this.#state = state;
  }

  /**
   * Asks a device for all that clients have to be told.
   *
   * @throws VfioUserError as the device does
   */
  static async of(device: ProxiedDevice, options: ProxyOptions = {}): Promise<ProxyModel> {
    const steps = new Steps(options.observer ?? null);
    const state = new ProxyState(device);
    const interrupts = await ProxiedInterrupts.of(device, steps, () => {
      state.askedBack(interrupts.signalRequest());
    });
    const header = await ConfigHeader.of(device.config);
    const regions = await proxiedRegions(device, {
      steps,
      trap: options.trap ?? false,
      assertThere: () => {
        state.assertThere();
      },
    });
    const { resettable } = await device.info();
    return new ProxyModel({ device, steps, state, interrupts, regions, header, resettable });
  }

  attach(client: Client): void {
    this.#state.assertThere();
    this.#state.client = client;
    this.#steps.observer?.({ kind: 'attach', client: client.name }, null);
  }

  async mapped(range: ClientRange, file: ClientFile | null): Promise<void> {
    const { client } = this.#state;
    if (client !== null) await this.#memory.map(range, file, client.memory);
  }

  async unmapping(range: ClientRange): Promise<void> {
    await this.#memory.unmap(range);
  }

  /**
   * Leaves the device as nobody's: it is no bus master, has no eventfds, is reset, has the configuration header that it had, and
   * reaches no memory. Each of this is tried, whatever became of the others.
   */
  async detach(client: Client): Promise<void> {
    this.#steps.observer?.({ kind: 'detach', client: client.name }, null);
    const { reset } = this;
    const failures: unknown[] = [];
    for (const step of [
      () => this.#header.silence(),
      () => this.#interrupts.release(),
      ...(reset === undefined ? [] : [reset]),
      () => this.#header.restore(),
      () => this.#memory.release(),
    ])
      await step().catch((error: unknown) => failures.push(error));
    // A device that has gone has let go of everything.
    if (!this.#state.left() && failures.length > 0) throw notQuiet(this.name, failures[0]);
  }
}

/** What a {@link ProxyModel} is made of. */
interface ProxyParts {
  readonly device: ProxiedDevice;
  readonly steps: Steps;
  readonly state: ProxyState;
  readonly interrupts: ProxiedInterrupts;
  readonly regions: ReadonlyMap<number, ServedRegion>;
  readonly header: ConfigHeader;
  readonly resettable: boolean;
}

/** Whether the device is there, and who uses it. */
class ProxyState {
  client: Client | null = null;
  readonly gone: Promise<VfioUserError>;
  readonly #device: ProxiedDevice;
  #error: VfioUserError | null = null;
  #request: VfioUserError | null = null;
  #deadline: NodeJS.Timeout | undefined;

  constructor(device: ProxiedDevice) {
    this.#device = device;
    this.gone = new Promise((resolve) => {
      device.once('close', (error) => {
        clearTimeout(this.#deadline);
        this.#error = this.#request ?? goneError(device.name, error);
        this.client?.disconnect();
        resolve(this.#error);
      });
    });
  }

  /** @throws CommandError ENODEV */
  assertThere(): void {
    if (this.#error !== null) throw goneRefusal(this.#error);
  }

  /**
   * The device is to be given back. The client has some time to let go of it.
   *
   * @param told whether the client knows
   */
  askedBack(told: boolean): void {
    this.#request ??= new VfioUserError(
      'ERR_VFIO_USER_DISCONNECTED',
      `${this.#device.name} was asked back: it is being unbound or was unplugged`,
    );
    if (!told || this.client === null) void this.#device.close();
    else
      this.#deadline ??= setTimeout(() => {
        void this.#device.close();
      }, REQUEST_TIMEOUT);
  }

  /** The client has left. Returns whether the device is gone too. */
  left(): boolean {
    this.client = null;
    if (this.#request !== null) void this.#device.close();
    return this.#error !== null;
  }
}

/**
 * The features of a device of the kernel's VFIO are not handed through: their structures have addresses and descriptors of the process
 * that asks, so that a client could have the kernel write to any memory of this one.
 */
function passthroughOf(device: ProxiedDevice, interrupts: ProxiedInterrupts, steps: Steps): Passthrough {
  const { negotiated, feature: features, migration } = device;
  const port: MessagePort | null =
    negotiated !== undefined && features !== undefined && migration !== undefined
      ? { negotiated, feature: features, migration }
      : null;
  const there = (): MessagePort => {
    if (port !== null) return port;
    throw new CommandError(Errno.ENOTSUP, `features of ${device.name} are not handed through`);
  };
  return {
    irqs: interrupts.irqs,
    setIrqs: (request, eventFds) => interrupts.set(request, eventFds),
    feature: ({ feature, get, set, probe, data, argsz }) =>
      steps.act({ kind: 'feature', feature, operation: probe ? 'probe' : get ? 'get' : 'set' }, async () => {
        const known = there().feature;
        if (get && !probe) return known.get(feature, data, Math.max(0, argsz - FEATURE_HEAD));
        if (set && !probe) return known.set(feature, data);
        if (await known.probe(feature, { get, set })) return data;
        throw new CommandError(Errno.ENOTSUP, `${device.name} does not have feature ${feature}`);
      }),
    readMigrationData: (size) =>
      steps.act({ kind: 'migration-read', length: size }, async () => there().migration.readData(size)),
    writeMigrationData: (data) =>
      steps.act({ kind: 'migration-write', length: data.length }, async () => {
        await there().migration.writeData(data);
      }),
  };
}

/** Bytes of `struct vfio_device_feature` before its data. */
const FEATURE_HEAD = 8;

/** A range of the client's takes two mappings of this process: that of the server, and that which the device is told of. */
const MAPPINGS_OF_RANGE = 2;

function capabilitiesOf({ dma, negotiated }: ProxiedDevice): ServerCapabilities {
  const { maxDmaMaps, pageSize } = devicesOf(dma);
  return {
    pageSizes: pageSize,
    maxDmaMaps: Math.min(maxDmaMaps, Math.floor(readProcessLimits().mappings / MAPPINGS_OF_RANGE)),
    ...(negotiated !== undefined && { maxDataXferSize: negotiated.limits.maxDataXferSize }),
  };
}

function goneError(name: string, cause: Error | null): VfioUserError {
  return new VfioUserError(
    'ERR_VFIO_USER_DISCONNECTED',
    cause === null ? `${name} was closed` : `the device is gone: ${cause.message}`,
    { cause: cause ?? undefined },
  );
}

/** The next client gets a device that may still do what the one before told it. */
function notQuiet(name: string, cause: unknown): VfioUserError {
  return new VfioUserError(
    'ERR_VFIO_USER_DMA',
    `${name} did not let go of all that its client had given it: ${(cause as Error).message}`,
    { cause },
  );
}
