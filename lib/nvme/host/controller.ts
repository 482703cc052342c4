// SPDX-License-Identifier: MIT
import { EventEmitter } from 'node:events';
import { VfioUserError, asError, outOfRange } from '../../errors';
import type { Device, DeviceReconnected, MappedArea } from '../../pci';
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
  bringUpAgain,
  type NvmeAttachOptions,
  type ControllerParts,
  type StartedController,
} from './bring-up';
import { NO_LIMITS, askCommandLimits, type CommandLimits } from './command-limits';
import { shutDown, shutDownAtExit } from './controller-state';
import { NVME_PAGE, type DmaArena } from './dma-arena';
import type { IoQueue, QueueLoss } from './io-queue';
import { IoQueues } from './io-queues';
import { NvmeNamespace } from './namespace';
import type { CreatedQueuePair, VectorHandler } from './queue-pairs';
import { assertSameDrive, identifyDrive, type DriveIdentity } from './drive-identity';
import type { StatusProblem, WatchedQueue } from './status-watch';
import { runAll, type UndoStep } from './undo';

/** Resets without a completed I/O command after which a controller that fails again is given up. */
const RESETS_IN_VAIN = 3;
/** VER of version 2.0. */
const VERSION_2 = 0x20000;
/** What is known of commands in flight that nobody completes any more. */
const UNKNOWN = 'a command that was in flight may or may not have been carried out';

/** How a controller came back. */
export interface ControllerRestart {
  /** Milliseconds from the loss of the connection until commands are taken again. */
  readonly gap: number;
}

/** Events of an {@link NvmeController}, by name. The first two are those of a device that comes back. */
export interface NvmeControllerEvents {
  /**
   * The connection was lost, and the device is waited for; or the controller has failed, and is reset (`autoReset`). Commands of I/O
   * queues wait, admin commands fail, and queue pairs are gone. With what became of the commands in flight of the I/O queues.
   */
  disconnect: [error: Error, loss: QueueLoss];
  /** The controller is up again, with its I/O queues. */
  reconnect: [restarted: ControllerRestart];
  /** Nothing can be done with the controller any more: with null after `close()`, else with why. Emitted once. */
  close: [error: Error | null];
}

/**
 * An NVMe controller, driven from this process: brought up by {@link NvmeController.attach}, shut down by
 * {@link close} and, as far as that is possible, when the process exits. Over a device that comes back
 * (`connect(path, { reconnect: true })`) it comes back too: it is brought up again, the I/O queues go on, and namespaces stay.
 *
 * @example
 * await using device = await connect('/var/run/vfio-user/1/cntrl');
 * await using nvme = await NvmeController.attach(device);
 * const [ns] = nvme.namespaces;
 * const memory = await device.dma.allocate(4096);
 * await ns.read(memory, { lba: 0, blocks: 8 });
 */
export class NvmeController extends EventEmitter<NvmeControllerEvents> {
  /** The device. It stays the caller's. */
  readonly device: Device;
  /** CAP, the Controller Capabilities register (NVMe base 2.0, 3.1.3.1). */
  readonly capabilities: ControllerCapabilities;
  /** The admin commands. */
  readonly admin: NvmeAdmin;
  /** Memory shared with the controller, for queues and the data of admin commands. @internal */
  readonly arena: DmaArena;
  readonly #parts: ControllerParts;
  readonly #ioQueues: IoQueues;
  /** Queue pairs whose users tell of their commands. */
  readonly #pairs = new Set<WatchedQueue>();
  readonly #onDeviceClose = (error: Error | null): void => {
    this.#fail(
      error ??
        new VfioUserError(
          'ERR_VFIO_USER_CLOSED',
          `the device ${this.device.name} was closed under its NVMe controller`,
        ),
    );
  };
  readonly #onDisconnect = (cause: Error): void => {
    const text = `${this.device.name} has gone, and is waited for (${cause.message}); ${UNKNOWN}`;
    this.#suspend(new VfioUserError('ERR_VFIO_USER_DISCONNECTED', text, { cause }));
  };
  readonly #onReconnect = ({ gap }: DeviceReconnected): void => {
    this.#comingBack = this.#comeBack(performance.now() - gap);
  };
  readonly #autoReset: boolean;
  readonly #forgetExit: () => void;
  #started: StartedController;
  #drive: DriveIdentity | undefined;
  #version = 0;
  #limits: CommandLimits | undefined;
  #namespaces: NvmeNamespace[] = [];
  /** Number of times that the controller was lost. */
  #losses = 0;
  /** Resets of a controller that had failed, since an I/O command was completed. */
  #resets = 0;
  /** I/O commands that were completed by the last of them. */
  #completedAtReset = 0;
  /** Never rejects. */
  #comingBack: Promise<void> = Promise.resolve();
  #failed = false;
  #closed = false;

  private constructor(parts: ControllerParts, started: StartedController, options: NvmeAttachOptions) {
    super();
    const { device, arena, queuePairs, capabilities } = parts;
    this.#parts = parts;
    this.#started = started;
    this.device = device;
    this.capabilities = capabilities;
    this.admin = parts.admin;
    this.arena = arena;
    this.#ioQueues = new IoQueues({
      name: device.name,
      arena,
      queuePairs,
      maxEntries: capabilities.maxQueueEntries,
      resubmit: options.resubmit ?? 'reads',
      watch: parts.watch,
    });
    this.#autoReset = options.autoReset ?? device.reconnects === true;
    parts.watch.onProblem = (problem) => {
      this.#recover(problem);
    };
    this.#forgetExit = shutDownAtExit(parts.bar);
    device.once('close', this.#onDeviceClose);
    device.on('disconnect', this.#onDisconnect);
    device.on('reconnect', this.#onReconnect);
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
      const { parts, started } = await bringUp(device, options, undo);
      controller = new NvmeController(parts, started, options);
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
    if (this.#drive === undefined)
      throw new VfioUserError('ERR_VFIO_USER_CLOSED', 'the controller was not identified');
    return this.#drive.controller;
  }

  /** NVMe version, such as `1.4`. */
  get version(): string {
    return formatVersion(this.#version);
  }

  /** The active namespaces when the controller was attached, or looked at by {@link rescan}, by rising id; the first 1024. */
  get namespaces(): readonly NvmeNamespace[] {
    return this.#namespaces;
  }

  /**
   * Looks for namespaces that came, went or have changed, also their format. Objects of before stay as they were.
   *
   * @returns the active namespaces
   */
  async rescan(): Promise<readonly NvmeNamespace[]> {
    this.#drive = await identifyDrive(this.admin);
    this.#namespaces = this.#namespacesOf(this.#drive);
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
    this.#limits ??= await askCommandLimits(this.admin, this.capabilities.minPageSize);
    return this.#limits;
  }

  /** True when data may be described by SGL descriptors, as long as it begins at a multiple of 4. */
  get takesSgl(): boolean {
    return takesSgl(this.identify.sgls);
  }

  /** The doorbells in BAR 0, null when they can only be written by message. Others after a reconnection. @internal */
  get doorbellArea(): MappedArea | null {
    return this.#started.doorbellArea;
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
   * Looks at the status of the controller also while commands of queue pairs are in flight and none is completed, as it does for I/O queues.
   *
   * @param pairs what is asked at each look, about every 50 ms
   * @returns `begin` says that commands are sent, at first and after each loss; `end` that there will be no more
   * @internal
   */
  watchPairs(pairs: WatchedQueue): { begin(): void; end(): void } {
    const { watch } = this.#parts;
    this.#pairs.add(pairs);
    watch.queues.add(pairs);
    return {
      begin: () => {
        watch.begin();
      },
      end: () => {
        this.#pairs.delete(pairs);
        watch.queues.delete(pairs);
      },
    };
  }

  /**
   * Creates an I/O queue for the promise API. Completions come by MSI-X when the controller was attached with vectors.
   *
   * @param depth most commands outstanding, from 1 on, default 64; fewer where the controller's queues are shorter
   * @throws as {@link createQueuePair}
   */
  createIoQueue(depth?: number): Promise<IoQueue> {
    return this.#ioQueues.create(depth, this);
  }

  /** The queue that namespaces use unless they are given another. When it was closed, a new one. */
  defaultQueue(): Promise<IoQueue> {
    return this.#ioQueues.default(this);
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
    await this.#comingBack;
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
    this.#forgetExit();
    this.device.off('close', this.#onDeviceClose);
    this.device.off('disconnect', this.#onDisconnect);
    this.device.off('reconnect', this.#onReconnect);
    const error = new VfioUserError(
      'ERR_VFIO_USER_CLOSED',
      `the NVMe controller ${this.device.name} was closed`,
    );
    this.#fail(error, null);
  }

  /** Fails every command, now and later. */
  #fail(error: Error, told: Error | null = error): void {
    this.#parts.watch.stop();
    this.#parts.queue.fail(error);
    this.#ioQueues.fail(error);
    if (this.#failed) return;
    this.#failed = true;
    this.emit('close', told);
  }

  /** The connection is lost, and the device waited for, or the controller is going to be reset. */
  #suspend(error: VfioUserError): void {
    this.#losses++;
    this.#parts.watch.stop();
    // First of all: who learns that a command has failed may delete a queue pair at once.
    this.#parts.queuePairs.suspend();
    this.#parts.queue.suspend(error);
    this.emit('disconnect', error, this.#ioQueues.suspend(error));
  }

  /** The controller is not going to complete its commands: they end now, or after a reset. */
  #recover({ text, resettable }: StatusProblem): void {
    // What it had completed before holds.
    this.#ioQueues.poll();
    let { completed } = this.#ioQueues;
    for (const pairs of this.#pairs) completed += pairs.completed;
    if (completed !== this.#completedAtReset) this.#resets = 0;
    const resets = this.#autoReset && resettable && this.#resets < RESETS_IN_VAIN;
    const then = resets ? 'it is reset' : 'attach to it anew, and look at the log of its server';
    const error = new VfioUserError(
      'ERR_VFIO_USER_NVME_CONTROLLER',
      `${this.device.name} ${text}; ${UNKNOWN}: ${then}`,
    );
    if (!resets) {
      this.#fail(error);
      return;
    }
    this.#resets++;
    this.#completedAtReset = completed;
    this.#suspend(error);
    this.doorbellArea?.close();
    this.#comingBack = this.#comeBack(performance.now());
  }

  /**
   * Brings the controller up again.
   *
   * @param lostAt when it was lost, by `performance.now()`
   */
  async #comeBack(lostAt: number): Promise<void> {
    const losses = this.#losses;
    const undo: UndoStep[] = [];
    try {
      this.#started = await bringUpAgain(this.#parts, undo);
      assertSameDrive(this.device.name, this.#drive as DriveIdentity, await identifyDrive(this.admin));
      await this.#ioQueues.resume();
      this.emit('reconnect', { gap: performance.now() - lostAt });
    } catch (error) {
      // Lost once more: the next event `reconnect` begins anew.
      if (losses !== this.#losses) return;
      await runAll(undo.reverse(), error);
      if (!this.#closed) this.#fail(asError(error));
    }
  }

  async #identifyAll(): Promise<void> {
    this.#drive = await identifyDrive(this.admin);
    const { controller } = this.#drive;
    // Identify tells the version since 1.2, and costs no message.
    this.#version = controller.ver || (await this.#parts.bar.read32(Register.vs));
    this.#ioQueues.cache.volatile = (controller.vwc & 1) !== 0;
    this.#namespaces = this.#namespacesOf(this.#drive);
  }

  #namespacesOf({ namespaces }: DriveIdentity): NvmeNamespace[] {
    return Array.from(namespaces, ([id, identify]) => new NvmeNamespace(this, id, identify));
  }
}

/** True for the errors of a device that is closed or gone. */
function isGone(error: unknown): boolean {
  return (
    error instanceof VfioUserError &&
    (error.code === 'ERR_VFIO_USER_DISCONNECTED' || error.code === 'ERR_VFIO_USER_CLOSED')
  );
}
