// SPDX-License-Identifier: MIT
import { VfioUserError, outOfRange } from '../../errors';
import type { Device, MappedArea } from '../../pci';
import {
  Register,
  formatVersion,
  pagesLimit,
  takesSgl,
  type ControllerCapabilities,
  type IdentifyController,
} from '../spec';
import type { NvmeAdmin } from './admin';
import {
  bringUp,
  shutDown,
  shutDownSync,
  type NvmeAttachOptions,
  type ControllerParts,
  type UndoStep,
} from './bring-up';
import { NVME_PAGE, type DmaArena } from './dma-arena';
import type { Doorbells } from './doorbells';
import { IoQueue } from './io-queue';
import { NO_LIMITS, NvmeNamespace, type CommandLimits } from './namespace';
import type { CreatedQueuePair, VectorHandler } from './queue-pairs';

/** Commands outstanding in an I/O queue, unless another number is wanted. */
const DEFAULT_DEPTH = 64;
/** VER of version 2.0. */
const VERSION_2 = 0x20000;
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
  /** The device. It stays the caller's. */
  readonly device: Device;
  /** CAP, the Controller Capabilities register (NVMe base 2.0, 3.1.3.1). */
  readonly capabilities: ControllerCapabilities;
  /** The admin commands. */
  readonly admin: NvmeAdmin;
  /** Memory shared with the controller, for queues and the data of admin commands. @internal */
  readonly arena: DmaArena;
  /** The doorbells in BAR 0, null when they can only be written by message. @internal */
  readonly doorbellArea: MappedArea | null;
  /** How this thread rings doorbells. @internal */
  readonly doorbells: Doorbells;
  readonly #parts: ControllerParts;
  readonly #ioQueues = new Set<IoQueue>();
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
  #limits: CommandLimits | undefined;
  #namespaces: NvmeNamespace[] = [];
  #defaultQueue: Promise<IoQueue> | undefined;
  #closed = false;

  private constructor(parts: ControllerParts) {
    this.#parts = parts;
    this.device = parts.device;
    this.capabilities = parts.capabilities;
    this.admin = parts.admin;
    this.arena = parts.arena;
    this.doorbellArea = parts.doorbellArea;
    this.doorbells = parts.doorbells;
    if (live.size === 0) process.on('exit', NvmeController.#onExit);
    live.add(this);
    this.device.once('close', this.#onDeviceClose);
  }

  /**
   * Brings a controller up (NVMe base 2.0, 3.5.1): configuration space, disable if enabled, admin queue, enable, Identify.
   *
   * @throws RangeError for options that are out of range, or more vectors than the device has; VfioUserError ERR_VFIO_USER_PCI
   *   when the device is not an NVMe controller, ERR_VFIO_USER_NVME_CONTROLLER when it does not start, and others when a message
   *   or a command fails
   */
  static async attach(device: Device, options: NvmeAttachOptions = {}): Promise<NvmeController> {
    const undo: UndoStep[] = [];
    let controller: NvmeController | undefined;
    try {
      controller = new NvmeController(await bringUp(device, options, undo));
      await controller.#identifyAll();
      return controller;
    } catch (error) {
      if (controller !== undefined) await controller.#shutDown(error).catch(() => undefined);
      await runAll(undo.reverse(), error);
      throw error;
    }
  }

  /** What Identify Controller returned when the controller was attached (NVMe base 2.0, 5.17.2.1). */
  get identify(): IdentifyController {
    if (this.#identify === undefined)
      throw new VfioUserError('ERR_VFIO_USER_CLOSED', 'the controller was not identified');
    return this.#identify;
  }

  /** NVMe version, such as `1.4`. */
  get version(): string {
    return formatVersion(this.#version);
  }

  /** The active namespaces when the controller was attached, by rising id; the first 1024. */
  get namespaces(): readonly NvmeNamespace[] {
    return this.#namespaces;
  }

  /** Largest transfer of one command, in bytes (MDTS). */
  get maxTransferSize(): number {
    const limit = pagesLimit(this.identify.mdts, this.capabilities.minPageSize);
    // One page of PRP list, not chained: SPDK does not follow chains.
    return Math.min(limit, 512 * NVME_PAGE);
  }

  /**
   * Limits of the commands without data buffer, asked for once. Controllers before version 2.0 do not tell them.
   * @internal
   */
  async commandLimits(): Promise<CommandLimits> {
    if (this.#version < VERSION_2) return NO_LIMITS;
    if (this.#limits === undefined) {
      const { wzsl, dmrl, dmrsl, dmsl } = await this.admin.identifyNvmController();
      this.#limits = {
        zeroBytes: pagesLimit(wzsl, this.capabilities.minPageSize),
        ranges: dmrl || NO_LIMITS.ranges,
        rangeBlocks: dmrsl || NO_LIMITS.rangeBlocks,
        blocks: Number(dmsl) || NO_LIMITS.blocks,
      };
    }
    return this.#limits;
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
    const ids = this.#namespaces.map((namespace) => namespace.id).join(', ');
    throw outOfRange(
      `${this.device.name} has no namespace ${id}; ${ids === '' ? 'it has none at all' : `it has ${ids}`}`,
    );
  }

  /**
   * Number of I/O queue pairs that the controller grants, and whose doorbells can be reached. Asked once: it cannot be changed
   * later (NVMe base 2.0, 5.27.1.5).
   */
  ioQueueLimit(): Promise<number> {
    return this.#parts.queuePairs.limit();
  }

  /**
   * Creates an I/O queue pair, for the lowest overhead; see {@link QueuePair}.
   *
   * @param entries of each queue, 2 to CAP.MQES; one less can be outstanding
   * @param onInterrupt called for the vector of the completion queue; `eventfd` takes a vector that goes to an eventfd;
   *   without it the queue is polled
   * @throws RangeError when the controller has no such queue, or no more; TypeError when no vector is free; NvmeStatusError;
   *   VfioUserError ERR_VFIO_USER_DMA when the memory of the controller (`arenaSize` of `attach`) has no room
   */
  createQueuePair(entries: number, onInterrupt?: VectorHandler): Promise<CreatedQueuePair> {
    return this.#parts.queuePairs.create(entries, onInterrupt);
  }

  /**
   * Creates an I/O queue for the promise API. Completions come by MSI-X when the controller was attached with vectors.
   *
   * @param depth most commands outstanding, from 1 on; fewer where the controller's queues are shorter
   * @throws as {@link createQueuePair}
   */
  createIoQueue(depth = DEFAULT_DEPTH): Promise<IoQueue> {
    return this.#openQueue(depth, () => undefined);
  }

  /** The queue that namespaces use unless they are given another. When it was closed, a new one. */
  defaultQueue(): Promise<IoQueue> {
    const forget = (): void => {
      this.#defaultQueue = undefined;
    };
    return (this.#defaultQueue ??= this.#openQueue(DEFAULT_DEPTH, forget).catch((error: unknown) => {
      forget();
      throw error;
    }));
  }

  /**
   * Shuts the controller down (NVMe base 2.0, 3.6.1), disables it and frees its memory. The device stays open. Idempotent.
   * A device that is gone already makes no error; one that does not answer is not asked again, and keeps its memory until it
   * is closed.
   */
  close(): Promise<void> {
    return this.#shutDown();
  }

  /** @param before the error that led here */
  async #shutDown(before?: unknown): Promise<void> {
    if (this.#closed) return;
    this.#release();
    const steps = [
      { asksDevice: true, run: () => shutDown(this.device, this.#parts.bar) },
      { asksDevice: true, run: () => this.#parts.msix?.disable() },
      { asksDevice: false, run: () => this.doorbellArea?.close() },
      { asksDevice: true, run: () => this.arena.memory.close() },
    ];
    const failure = await runAll(steps, before);
    if (failure !== undefined && !isGone(failure)) throw failure as Error;
  }

  /** As {@link close}. */
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

  async #openQueue(depth: number, onClose: () => void): Promise<IoQueue> {
    const entries = Math.min(depth + 1, this.capabilities.maxQueueEntries);
    const { queuePairs } = this.#parts;
    let queue: IoQueue | undefined;
    const pair = await queuePairs.create(entries, queuePairs.interrupts ? () => queue?.poll() : undefined);
    try {
      queue = new IoQueue({
        pair,
        arena: this.arena,
        maxTransfer: this.maxTransferSize,
        sgl: this.takesSgl,
        name: this.device.name,
        onClose: (closed) => {
          this.#ioQueues.delete(closed);
          onClose();
        },
      });
    } catch (error) {
      await pair.delete();
      throw error;
    }
    this.#ioQueues.add(queue);
    return queue;
  }

  #fail(error: Error): void {
    this.#parts.queue.fail(error);
    for (const queue of this.#ioQueues) queue.fail(error);
  }

  async #identifyAll(): Promise<void> {
    this.#identify = await this.admin.identifyController();
    // Identify tells the version since 1.2, and costs no message.
    this.#version = this.#identify.ver || (await this.#parts.bar.read32(Register.vs));
    for (const id of await this.admin.activeNamespaces()) {
      this.#namespaces.push(new NvmeNamespace(this, id, await this.admin.identifyNamespace(id)));
    }
  }

  /** The process is about to end: leave the devices as an orderly user would, with blocking messages. */
  static readonly #onExit = (): void => {
    for (const controller of live) {
      try {
        shutDownSync(controller.#parts.bar);
      } catch {
        // The device is gone, or does not answer; the process ends anyway.
      }
    }
  };
}

/**
 * Runs all steps, whatever becomes of the others, and tells the first error. A device that has not answered a message in time
 * is not asked again: each step would take its whole time-out.
 *
 * @param before the error that led here
 */
async function runAll(steps: readonly UndoStep[], before?: unknown): Promise<unknown> {
  let first = before;
  let silent = isUnanswered(before);
  for (const { asksDevice, run } of steps) {
    if (asksDevice && silent) continue;
    try {
      await run();
    } catch (error) {
      first ??= error;
      silent ||= isUnanswered(error);
    }
  }
  return first;
}

/** True for a message without an answer. A command that the controller has not completed says nothing about the device's server. */
function isUnanswered(error: unknown): boolean {
  return (
    error instanceof VfioUserError && error.code === 'ERR_VFIO_USER_TIMEOUT' && error.command !== undefined
  );
}

/** True for the errors of a device that is closed or gone. */
function isGone(error: unknown): boolean {
  return (
    error instanceof VfioUserError &&
    (error.code === 'ERR_VFIO_USER_DISCONNECTED' || error.code === 'ERR_VFIO_USER_CLOSED')
  );
}
