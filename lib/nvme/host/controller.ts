// SPDX-License-Identifier: MIT
import { VfioUserError, outOfRange } from '../../errors';
import type { Device, DeviceIrq, DeviceRegion, MappedArea } from '../../pci';
import {
  AdminOpcode,
  CommandSets,
  IdentifyCns,
  Register,
  decodeCapabilities,
  decodeIdentifyController,
  decodeIdentifyNamespace,
  decodeNamespaceList,
  formatVersion,
  identifyCdw10,
  maxTransferSize,
  takesSgl,
  type ControllerCapabilities,
  type IdentifyController,
} from '../spec';
import { AdminQueue } from './admin-queue';
import {
  disable,
  enable,
  enableVectors,
  mapDoorbells,
  preparePci,
  shutDown,
  shutDownSync,
  type VectorOptions,
} from './bring-up';
import { DmaArena, NVME_PAGE } from './dma-arena';
import { MappedDoorbells, MessageDoorbells, type Doorbells } from './doorbells';
import { IoQueue } from './io-queue';
import { NvmeNamespace } from './namespace';
import { QueuePairs, placeQueue, type CreatedQueuePair, type VectorHandler } from './queue-pairs';

/** How to attach to a controller. */
export interface AttachOptions extends VectorOptions {
  /** Bytes of shared memory for queues and, where wanted, data; one DMA mapping. Default 2 MiB. */
  readonly arenaSize?: number;
  /** Entries of the admin queue, 2 to 4096. Default 32. */
  readonly adminEntries?: number;
  /** Time-out of an admin command, in milliseconds. Default 15000. */
  readonly adminTimeout?: number;
}

/** CAP.TO of 0 is seen with emulated controllers; they still need some time. */
const MIN_READY_TIMEOUT = 2000;
/** Controllers that are up, to be shut down when the process exits. */
const live = new Set<NvmeController>();

/**
 * An NVMe controller, driven from this process: brought up by {@link NvmeController.attach}, shut down by
 * {@link close} and, as far as that is possible, when the process exits.
 *
 * @example
 * await using device = await connect('/var/run/vfio-user/1/cntrl');
 * await using nvme = await NvmeController.attach(device);
 * const [ns] = nvme.namespaces;
 * const memory = await device.dma.allocate(4096);
 * await ns.read(memory, { lba: 0, blocks: 8 });
 */
export class NvmeController {
  readonly device: Device;
  readonly capabilities: ControllerCapabilities;
  readonly arena: DmaArena;
  readonly admin: AdminQueue;
  /** The doorbells in BAR 0, null when they can only be written by message. */
  readonly doorbellArea: MappedArea | null;
  readonly #bar: DeviceRegion;
  /** How this thread rings doorbells. */
  readonly doorbells: Doorbells;
  readonly #msix: DeviceIrq | null;
  readonly #queuePairs: QueuePairs;
  readonly #ioQueues: IoQueue[] = [];
  readonly #onDeviceClose = (error: Error | null): void => {
    this.#fail(
      error ??
        new VfioUserError(
          'ERR_VFIO_USER_CLOSED',
          `the device ${this.device.name} was closed under its NVMe controller`,
        ),
    );
  };
  #identify: IdentifyController | undefined;
  #version = 0;
  #namespaces: NvmeNamespace[] = [];
  #defaultQueue: Promise<IoQueue> | undefined;
  #closed = false;

  private constructor(parts: {
    device: Device;
    bar: DeviceRegion;
    capabilities: ControllerCapabilities;
    arena: DmaArena;
    admin: AdminQueue;
    doorbellArea: MappedArea | null;
    doorbells: Doorbells;
    msix: DeviceIrq | null;
    queuePairs: QueuePairs;
  }) {
    this.device = parts.device;
    this.capabilities = parts.capabilities;
    this.arena = parts.arena;
    this.admin = parts.admin;
    this.doorbellArea = parts.doorbellArea;
    this.#bar = parts.bar;
    this.doorbells = parts.doorbells;
    this.#msix = parts.msix;
    this.#queuePairs = parts.queuePairs;
    if (live.size === 0) process.on('exit', NvmeController.#onExit);
    live.add(this);
    this.device.once('close', this.#onDeviceClose);
  }

  /**
   * Brings a controller up (NVMe base 2.0, 3.5.1): configuration space, disable if enabled, admin queue, enable, Identify.
   *
   * @throws VfioUserError ERR_VFIO_USER_PCI when the device is not an NVMe controller, NVME_CONTROLLER when it fails to start
   */
  static async attach(device: Device, options: AttachOptions = {}): Promise<NvmeController> {
    const adminEntries = options.adminEntries ?? 32;
    if (!Number.isInteger(adminEntries) || adminEntries < 2 || adminEntries > 4096) {
      throw outOfRange(`adminEntries is ${String(adminEntries)}; the admin queue has 2 to 4096 entries`);
    }
    const undo: (() => unknown)[] = [];
    try {
      return await NvmeController.#bringUp(device, options, adminEntries, undo);
    } catch (error) {
      await runAll(undo.reverse());
      throw error;
    }
  }

  /** @param undo takes the steps that undo what was done */
  static async #bringUp(
    device: Device,
    options: AttachOptions,
    adminEntries: number,
    undo: (() => unknown)[],
  ): Promise<NvmeController> {
    const { msixCapability, untouched } = await preparePci(device);
    const bar = await device.region('bar0');
    const cap = await bar.read64(Register.cap);
    const capabilities = decodeCapabilities(cap);
    if ((capabilities.commandSets & CommandSets.nvm) === 0 || capabilities.minPageSize > NVME_PAGE) {
      throw new VfioUserError(
        'ERR_VFIO_USER_NVME_CONTROLLER',
        `${device.name} offers no NVM command set with pages of ${String(NVME_PAGE)} bytes (CAP 0x${cap.toString(16)})`,
      );
    }

    const arena = new DmaArena(await device.dma.allocate(options.arenaSize ?? 2 << 20));
    undo.push(() => arena.memory.close());
    const doorbellArea = mapDoorbells(bar);
    undo.push(() => doorbellArea?.close());
    const doorbells =
      doorbellArea === null
        ? new MessageDoorbells(bar, capabilities.dstrd)
        : new MappedDoorbells(new Uint32Array(doorbellArea.buffer), capabilities.dstrd);
    const vectorHandlers: (VectorHandler | undefined)[] = [];
    const msix = await enableVectors(device, msixCapability, options, vectorHandlers);
    undo.push(() => msix?.disable());

    const ready = Math.max(capabilities.timeout, MIN_READY_TIMEOUT);
    if (!untouched) await disable(device, bar, ready);
    const adminQueue = placeQueue(arena, 0, adminEntries, doorbells);
    undo.push(() => bar.write32(Register.cc, 0));
    await enable(device, bar, arena.memory.iova, adminQueue.placement, ready);
    const admin = new AdminQueue(adminQueue.queue, arena, options.adminTimeout ?? 15_000);
    const queuePairs = new QueuePairs({
      name: device.name,
      capabilities,
      arena,
      admin,
      doorbells,
      doorbellBytes: doorbellArea?.size ?? Infinity,
      msix,
      vectorHandlers,
    });
    const controller = new NvmeController({
      device,
      bar,
      capabilities,
      arena,
      admin,
      doorbellArea,
      doorbells,
      msix,
      queuePairs,
    });
    undo.push(() => controller.close());
    await controller.#identifyAll();
    return controller;
  }

  /** What Identify Controller told. */
  get identify(): IdentifyController {
    if (this.#identify === undefined)
      throw new VfioUserError('ERR_VFIO_USER_CLOSED', 'the controller was not identified');
    return this.#identify;
  }

  /** NVMe version, such as `1.4`. */
  get version(): string {
    return formatVersion(this.#version);
  }

  /** The active namespaces, by rising id. */
  get namespaces(): readonly NvmeNamespace[] {
    return this.#namespaces;
  }

  /** Largest transfer of one command, in bytes (MDTS). */
  get maxTransferSize(): number {
    const limit = maxTransferSize(this.identify.mdts, this.capabilities.minPageSize);
    // One page of PRP list, not chained: SPDK does not follow chains.
    return Math.min(limit, 512 * NVME_PAGE);
  }

  /** True when data may be described by SGL descriptors, as long as it begins at a multiple of 4. */
  get takesSgl(): boolean {
    return takesSgl(this.identify.sgls);
  }

  /** True when doorbells are plain stores; false when each needs a message. */
  get mappedDoorbells(): boolean {
    return this.doorbellArea !== null;
  }

  /**
   * A namespace by id.
   *
   * @throws RangeError when there is no such active namespace
   */
  namespace(id: number): NvmeNamespace {
    const found = this.#namespaces.find((namespace) => namespace.id === id);
    if (found !== undefined) return found;
    const ids = this.#namespaces.map((namespace) => String(namespace.id)).join(', ');
    throw outOfRange(
      `${this.device.name} has no namespace ${String(id)}; ${ids === '' ? 'it has none at all' : `it has ${ids}`}`,
    );
  }

  /** Number of I/O queue pairs that the controller grants, and whose doorbells can be reached. Asked once: it cannot be changed later (NVMe base 2.0, 5.27.1.5). */
  ioQueueLimit(): Promise<number> {
    return this.#queuePairs.limit();
  }

  /**
   * Creates an I/O queue pair.
   *
   * @param entries of each queue, 2 to CAP.MQES; one less can be outstanding
   * @param onInterrupt called for the vector of the completion queue; `eventfd` takes a vector that goes to an eventfd;
   *   without it the queue is polled
   */
  createQueuePair(
    entries: number,
    onInterrupt?: 'eventfd' | ((signals: number) => void),
  ): Promise<CreatedQueuePair> {
    return this.#queuePairs.create(entries, onInterrupt);
  }

  /** An I/O queue for the promise API. Completions come by MSI-X when the controller was attached with vectors. */
  async createIoQueue(depth = 64): Promise<IoQueue> {
    const entries = Math.min(depth + 1, this.capabilities.maxQueueEntries);
    const { interrupts } = this.#queuePairs;
    let queue: IoQueue | undefined;
    const created = await this.createQueuePair(entries, interrupts ? () => queue?.poll() : undefined);
    try {
      queue = new IoQueue(created, this.arena, this.maxTransferSize, this.device.name, this.takesSgl);
    } catch (error) {
      await created.delete();
      throw error;
    }
    this.#ioQueues.push(queue);
    return queue;
  }

  /** The queue that namespaces use unless they are given another. */
  defaultQueue(): Promise<IoQueue> {
    this.#defaultQueue ??= this.createIoQueue().catch((error: unknown) => {
      this.#defaultQueue = undefined;
      throw error;
    });
    return this.#defaultQueue;
  }

  /**
   * Shuts the controller down (NVMe base 2.0, 3.6.1), disables it and frees its memory. The device stays open. Idempotent.
   * A device that is gone already makes no error.
   */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#release();
    const failure = await runAll([
      () => shutDown(this.device, this.#bar),
      () => this.#msix?.disable(),
      () => this.doorbellArea?.close(),
      () => this.arena.memory.close(),
    ]);
    if (failure !== undefined && !isGone(failure)) throw failure as Error;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #release(): void {
    this.#closed = true;
    live.delete(this);
    if (live.size === 0) process.off('exit', NvmeController.#onExit);
    this.device.off('close', this.#onDeviceClose);
    this.#fail(
      new VfioUserError('ERR_VFIO_USER_CLOSED', `the NVMe controller ${this.device.name} was closed`),
    );
  }

  #fail(error: Error): void {
    this.admin.fail(error);
    for (const queue of this.#ioQueues) queue.fail(error);
  }

  async #identifyAll(): Promise<void> {
    const page = (cns: number, nsid: number): Promise<Uint8Array> =>
      this.admin.read({ opcode: AdminOpcode.identify, nsid, cdw10: identifyCdw10.encode({ cns }) });
    this.#identify = decodeIdentifyController(await page(IdentifyCns.controller, 0));
    // Identify tells it since version 1.2, and costs no message.
    this.#version = this.#identify.ver || (await this.#bar.read32(Register.vs));
    for (const id of decodeNamespaceList(await page(IdentifyCns.activeNamespaces, 0))) {
      const identify = decodeIdentifyNamespace(await page(IdentifyCns.namespace, id));
      this.#namespaces.push(new NvmeNamespace(this, id, identify));
    }
  }

  /** The process is about to end: leave the devices as an orderly user would, with blocking messages. */
  static readonly #onExit = (): void => {
    for (const controller of live) {
      try {
        shutDownSync(controller.#bar);
      } catch {
        // The device is gone, or does not answer; the process ends anyway.
      }
    }
  };
}

/** Runs all steps, whatever becomes of the others, and tells the first error. */
async function runAll(steps: readonly (() => unknown)[]): Promise<unknown> {
  let first: unknown;
  for (const step of steps) {
    try {
      await step();
    } catch (error) {
      first ??= error;
    }
  }
  return first;
}

/** True for the errors of a device that is closed or gone. */
function isGone(error: unknown): boolean {
  return (
    error instanceof VfioUserError &&
    (error.code === 'ERR_VFIO_USER_DISCONNECTED' || error.code === 'ERR_VFIO_USER_CLOSED')
  );
}
