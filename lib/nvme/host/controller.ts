// SPDX-License-Identifier: MIT
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { VfioUserError, invalidArgument, outOfRange } from '../../errors';
import {
  PciCommand,
  PciConfig,
  className,
  parseCapabilities,
  parseConfigHeader,
  type Device,
  type DeviceIrq,
  type DeviceRegion,
  type MappedArea,
} from '../../pci';
import {
  AdminOpcode,
  CQE_BYTES,
  CQE_SIZE_EXPONENT,
  CommandSets,
  Feature,
  IdentifyCns,
  Register,
  SQE_BYTES,
  SQE_SIZE_EXPONENT,
  ShutdownNotification,
  ShutdownStatus,
  adminQueueAttributes,
  controllerConfiguration,
  controllerStatus,
  createCompletionQueueCdw11,
  createQueueCdw10,
  createSubmissionQueueCdw11,
  decodeCapabilities,
  decodeIdentifyController,
  decodeIdentifyNamespace,
  decodeNamespaceList,
  deleteQueueCdw10,
  formatVersion,
  identifyCdw10,
  maxTransferSize,
  numberOfQueues,
  setFeaturesCdw10,
  type Capabilities,
  type IdentifyController,
} from '../spec';
import { AdminQueue } from './admin-queue';
import { DmaArena, NVME_PAGE } from './dma-arena';
import { MappedDoorbells, MessageDoorbells, type Doorbells } from './doorbells';
import { IoQueue } from './io-queue';
import { NvmeNamespace } from './namespace';
import { QueuePair, type QueuePairPlacement } from './queue-pair';

/** How to attach to a controller. */
export interface AttachOptions {
  /** Bytes of shared memory for queues and, where wanted, data; one DMA mapping. Default 2 MiB. */
  readonly arenaSize?: number;
  /** Entries of the admin queue, 2 to 4096. Default 32. */
  readonly adminEntries?: number;
  /** Time-out of an admin command, in milliseconds. Default 15000. */
  readonly adminTimeout?: number;
  /** MSI-X vectors to enable, 0 to poll only. Vector 0 is the admin queue's. Default 0. */
  readonly vectors?: number;
}

/** An I/O queue pair of a controller, placed in its arena. */
export interface CreatedQueuePair {
  readonly queue: QueuePair;
  readonly placement: QueuePairPlacement;
  /** MSI-X vector of the completion queue, undefined when it is polled. */
  readonly vector: number | undefined;
  /** Deletes the queues in the controller and frees their memory. */
  delete(): Promise<void>;
}

/** How often registers are read while the controller becomes ready. */
const POLL_MILLISECONDS = 1;
/** CAP.TO of 0 is seen with emulated controllers; they still need some time. */
const MIN_READY_TIMEOUT = 2000;
/** How long to wait for a shutdown to complete (NVMe base 2.0, 3.6.1; RTD3E is seldom given). */
const SHUTDOWN_TIMEOUT = 10_000;
/** Of a shutdown while the process exits, when nothing but this loop runs. */
const EXIT_TIMEOUT = 1000;

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
  readonly capabilities: Capabilities;
  /** NVMe version, such as `1.4`. */
  readonly version: string;
  readonly arena: DmaArena;
  readonly admin: AdminQueue;
  /** The doorbells in BAR 0, null when they can only be written by message. */
  readonly doorbellArea: MappedArea | null;
  readonly #bar: DeviceRegion;
  /** How this thread rings doorbells. */
  readonly doorbells: Doorbells;
  readonly #msix: DeviceIrq | null;
  readonly #vectorHandlers: (((signals: number) => void) | undefined)[];
  readonly #queueIds = new Set<number>();
  readonly #ioQueues: IoQueue[] = [];
  readonly #onExit = (): void => {
    this.#shutdownAtExit();
  };
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
  #namespaces: NvmeNamespace[] = [];
  #ioQueueLimit: number | undefined;
  #defaultQueue: Promise<IoQueue> | undefined;
  #closed = false;

  private constructor(parts: {
    device: Device;
    bar: DeviceRegion;
    capabilities: Capabilities;
    version: string;
    arena: DmaArena;
    admin: AdminQueue;
    doorbellArea: MappedArea | null;
    doorbells: Doorbells;
    msix: DeviceIrq | null;
    vectorHandlers: (((signals: number) => void) | undefined)[];
  }) {
    this.device = parts.device;
    this.capabilities = parts.capabilities;
    this.version = parts.version;
    this.arena = parts.arena;
    this.admin = parts.admin;
    this.doorbellArea = parts.doorbellArea;
    this.#bar = parts.bar;
    this.doorbells = parts.doorbells;
    this.#msix = parts.msix;
    this.#vectorHandlers = parts.vectorHandlers;
    process.on('exit', this.#onExit);
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
    const msixCapability = await preparePci(device);
    const bar = await device.region('bar0');
    const arena = new DmaArena(await device.dma.allocate(options.arenaSize ?? 2 << 20));
    const cap = await bar.read64(Register.cap);
    const capabilities = decodeCapabilities(Number(cap & 0xffff_ffffn), Number(cap >> 32n));
    if ((capabilities.commandSets & CommandSets.nvm) === 0 || capabilities.minPageSize > NVME_PAGE) {
      throw new VfioUserError(
        'ERR_VFIO_USER_NVME_CONTROLLER',
        `${device.name} offers no NVM command set with pages of ${String(NVME_PAGE)} bytes (CAP 0x${cap.toString(16)})`,
      );
    }

    const doorbellArea = mapDoorbells(bar);
    const doorbells =
      doorbellArea === null
        ? new MessageDoorbells(bar, capabilities.dstrd)
        : new MappedDoorbells(new Uint32Array(doorbellArea.buffer), capabilities.dstrd);
    const vectorHandlers: (((signals: number) => void) | undefined)[] = [];
    const msix = await enableVectors(device, msixCapability, options.vectors ?? 0, vectorHandlers);

    const ready = Math.max(capabilities.timeout, MIN_READY_TIMEOUT);
    await disable(device, bar, ready);
    const adminQueue = placeQueue(arena, 0, adminEntries, doorbells);
    await enable(device, bar, arena.memory.iova, adminQueue.placement, ready);
    const admin = new AdminQueue(adminQueue.queue, arena, options.adminTimeout ?? 15_000);
    const version = formatVersion(await bar.read(Register.vs, 4));
    const controller = new NvmeController({
      device,
      bar,
      capabilities,
      version,
      arena,
      admin,
      doorbellArea,
      doorbells,
      msix,
      vectorHandlers,
    });
    try {
      await controller.#identifyAll();
    } catch (error) {
      await controller.close();
      throw error;
    }
    return controller;
  }

  /** What Identify Controller told. */
  get identify(): IdentifyController {
    if (this.#identify === undefined)
      throw new VfioUserError('ERR_VFIO_USER_CLOSED', 'the controller was not identified');
    return this.#identify;
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

  /** Number of I/O queue pairs that the controller grants. Asked once: it cannot be changed later (NVMe base 2.0, 5.27.1.5). */
  async ioQueueLimit(): Promise<number> {
    if (this.#ioQueueLimit === undefined) {
      const wanted = { submission: 128, completion: 128 };
      const result = await this.admin.command({
        opcode: AdminOpcode.setFeatures,
        cdw10: setFeaturesCdw10.encode({ feature: Feature.numberOfQueues }),
        cdw11: numberOfQueues.encode(wanted),
      });
      const granted = numberOfQueues.decode(result);
      this.#ioQueueLimit = Math.min(granted.submission, granted.completion);
    }
    return this.#ioQueueLimit;
  }

  /**
   * Creates an I/O queue pair.
   *
   * @param entries of each queue, 2 to CAP.MQES; one less can be outstanding
   * @param onInterrupt called for the vector of the completion queue; without it the queue is polled
   */
  async createQueuePair(entries: number, onInterrupt?: (signals: number) => void): Promise<CreatedQueuePair> {
    const most = this.capabilities.maxQueueEntries;
    if (!Number.isInteger(entries) || entries < 2 || entries > most) {
      throw outOfRange(
        `a queue of ${String(entries)} entries is not possible; ${this.device.name} takes 2 to ${String(most)}`,
      );
    }
    const limit = await this.ioQueueLimit();
    let id = 1;
    while (this.#queueIds.has(id)) id++;
    if (id > limit) {
      throw outOfRange(`${this.device.name} grants ${String(limit)} I/O queue pairs, and all are in use`);
    }
    const vector = onInterrupt === undefined ? undefined : this.#takeVector(onInterrupt);
    this.#queueIds.add(id);
    try {
      const { queue, placement, chunks } = placeQueue(this.arena, id, entries, this.doorbells);
      const base = this.arena.memory.iova;
      const cdw10 = createQueueCdw10.encode({ queueId: id, entries });
      await this.admin.command({
        opcode: AdminOpcode.createIoCompletionQueue,
        prp1: base + placement.completionOffset,
        cdw10,
        cdw11: createCompletionQueueCdw11.encode({
          contiguous: true,
          interrupts: vector !== undefined,
          vector: vector ?? 0,
        }),
      });
      await this.admin.command({
        opcode: AdminOpcode.createIoSubmissionQueue,
        prp1: base + placement.submissionOffset,
        cdw10,
        cdw11: createSubmissionQueueCdw11.encode({ contiguous: true, completionQueueId: id }),
      });
      const remove = async (): Promise<void> => {
        if (!this.#queueIds.has(id)) return;
        const deleted = { cdw10: deleteQueueCdw10.encode({ queueId: id }) };
        await this.admin.command({ opcode: AdminOpcode.deleteIoSubmissionQueue, ...deleted });
        await this.admin.command({ opcode: AdminOpcode.deleteIoCompletionQueue, ...deleted });
        this.#queueIds.delete(id);
        if (vector !== undefined) this.#vectorHandlers[vector] = undefined;
        for (const chunk of chunks) this.arena.release(chunk);
      };
      return { queue, placement, vector, delete: remove };
    } catch (error) {
      this.#queueIds.delete(id);
      if (vector !== undefined) this.#vectorHandlers[vector] = undefined;
      throw error;
    }
  }

  /** An I/O queue for the promise API. Completions come by MSI-X when the controller was attached with vectors. */
  async createIoQueue(depth = 64): Promise<IoQueue> {
    const entries = Math.min(depth + 1, this.capabilities.maxQueueEntries);
    const interrupts = this.#vectorHandlers.length > 1;
    const created = await this.createQueuePair(
      entries,
      interrupts
        ? () => {
            queue.poll();
          }
        : undefined,
    );
    const queue = new IoQueue(created, this.arena, this.maxTransferSize, this.device.name);
    this.#ioQueues.push(queue);
    return queue;
  }

  /** The queue that namespaces use unless they are given another. */
  defaultQueue(): Promise<IoQueue> {
    return (this.#defaultQueue ??= this.createIoQueue());
  }

  /**
   * Shuts the controller down (NVMe base 2.0, 3.6.1), disables it and frees its memory. The device stays open. Idempotent.
   * A device that is gone already makes no error.
   */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#release();
    try {
      const cc = await this.#bar.read(Register.cc, 4);
      await this.#bar.write(Register.cc, 4, withShutdown(cc));
      await waitFor(this.device, this.#bar, SHUTDOWN_TIMEOUT, 'complete its shutdown', isShutDown);
      await this.#bar.write(Register.cc, 4, 0);
      if (this.#msix !== null) await this.#msix.disable();
      this.doorbellArea?.close();
      await this.arena.memory.close();
    } catch (error) {
      const code = error instanceof VfioUserError ? error.code : undefined;
      if (code !== 'ERR_VFIO_USER_DISCONNECTED' && code !== 'ERR_VFIO_USER_CLOSED') throw error;
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #release(): void {
    this.#closed = true;
    process.off('exit', this.#onExit);
    this.device.off('close', this.#onDeviceClose);
    this.#fail(
      new VfioUserError('ERR_VFIO_USER_CLOSED', `the NVMe controller ${this.device.name} was closed`),
    );
  }

  #fail(error: Error): void {
    this.admin.fail(error);
    for (const queue of this.#ioQueues) queue.fail(error);
  }

  #takeVector(handler: (signals: number) => void): number {
    for (let vector = 1; vector < this.#vectorHandlers.length; vector++) {
      if (this.#vectorHandlers[vector] !== undefined) continue;
      this.#vectorHandlers[vector] = handler;
      return vector;
    }
    throw invalidArgument(
      'no MSI-X vector is free; attach with a larger number of vectors, or poll the queue',
    );
  }

  async #identifyAll(): Promise<void> {
    const page = (cns: number, nsid: number): Promise<Uint8Array> =>
      this.admin.read({ opcode: AdminOpcode.identify, nsid, cdw10: identifyCdw10.encode({ cns }) });
    this.#identify = decodeIdentifyController(await page(IdentifyCns.controller, 0));
    for (const id of decodeNamespaceList(await page(IdentifyCns.activeNamespaces, 0))) {
      const identify = decodeIdentifyNamespace(await page(IdentifyCns.namespace, id));
      this.#namespaces.push(new NvmeNamespace(this, id, identify));
    }
  }

  /** The process is about to end: leave the device as an orderly user would, with blocking messages. */
  #shutdownAtExit(): void {
    try {
      this.#bar.writeSync(Register.cc, 4, withShutdown(this.#bar.readSync(Register.cc, 4)));
      const deadline = performance.now() + EXIT_TIMEOUT;
      while (!isShutDown(this.#bar.readSync(Register.csts, 4)) && performance.now() < deadline);
    } catch {
      // The device is gone, or does not answer; the process ends anyway.
    }
  }
}

/**
 * Checks the class code and sets up configuration space. It survives connections, so nothing is taken for granted: with
 * INTx or MSI-X left enabled and no eventfd, SPDK's controller fails at its first completion.
 *
 * @returns offset of the MSI-X capability, undefined when there is none
 */
async function preparePci(device: Device): Promise<number | undefined> {
  const config = await device.region('config');
  const bytes = await config.readBytes(0, Math.min(256, config.size));
  const header = parseConfigHeader(bytes);
  if (header.classCode !== 0x010802) {
    throw new VfioUserError(
      'ERR_VFIO_USER_PCI',
      `${device.name} is not an NVMe controller: its class code is 0x${header.classCode.toString(16).padStart(6, '0')} ` +
        `(${className(header.classCode)}), NVMe has 0x010802. "vfio-user info" shows what it is`,
    );
  }
  await config.write(
    PciConfig.command,
    2,
    PciCommand.memory | PciCommand.busMaster | PciCommand.interruptDisable,
  );
  const msix = parseCapabilities(bytes).capabilities.find((capability) => capability.kind === 'msix');
  if (msix?.enabled === true) await writeMsixEnable(config, msix.offset, false);
  return msix?.offset;
}

/** Message Control of the MSI-X capability: bit 15 is MSI-X Enable (PCI Express base, 7.7.2.2). */
async function writeMsixEnable(config: DeviceRegion, capability: number, enabled: boolean): Promise<void> {
  const control = await config.read(capability + 2, 2);
  await config.write(capability + 2, 2, enabled ? control | 0x8000 : control & 0x3fff);
}

async function enableVectors(
  device: Device,
  capability: number | undefined,
  count: number,
  handlers: (((signals: number) => void) | undefined)[],
): Promise<DeviceIrq | null> {
  if (count === 0) return null;
  const irq = await device.irq('msix');
  if (capability === undefined || count > irq.count) {
    throw outOfRange(`${String(count)} MSI-X vectors are wanted; ${device.name} has ${String(irq.count)}`);
  }
  handlers.length = count;
  await irq.enable(
    Array.from({ length: count }, (_, vector) => (signals: number) => handlers[vector]?.(signals)),
  );
  await writeMsixEnable(await device.region('config'), capability, true);
  return irq;
}

/** The doorbells from 0x1000 to the end of the area that the server lets be mapped. */
function mapDoorbells(bar: DeviceRegion): MappedArea | null {
  const area = bar.areas.find(
    (a) => a.offset <= Register.doorbells && a.offset + a.size > Register.doorbells,
  );
  if (area === undefined) return null;
  return bar.map(Register.doorbells, area.offset + area.size - Register.doorbells);
}

function placeQueue(
  arena: DmaArena,
  id: number,
  entries: number,
  doorbells: Doorbells,
): { queue: QueuePair; placement: QueuePairPlacement; chunks: ReturnType<DmaArena['allocate']>[] } {
  const submission = arena.allocate(entries * SQE_BYTES);
  const completion = arena.allocate(entries * CQE_BYTES);
  const placement = { id, entries, submissionOffset: submission.offset, completionOffset: completion.offset };
  return {
    queue: new QueuePair(placement, arena.memory.buffer, doorbells),
    placement,
    chunks: [submission, completion],
  };
}

async function disable(device: Device, bar: DeviceRegion, timeout: number): Promise<void> {
  const cc = await bar.read(Register.cc, 4);
  if (!controllerConfiguration.decode(cc).enable) return;
  await bar.write(Register.cc, 4, (cc & ~1) >>> 0);
  await waitFor(device, bar, timeout, 'become disabled', (csts) => !controllerStatus.decode(csts).ready);
}

async function enable(
  device: Device,
  bar: DeviceRegion,
  base: number,
  placement: QueuePairPlacement,
  timeout: number,
): Promise<void> {
  const { entries, submissionOffset, completionOffset } = placement;
  await bar.write(
    Register.aqa,
    4,
    adminQueueAttributes.encode({ submissionEntries: entries, completionEntries: entries }),
  );
  await bar.write64(Register.asq, BigInt(base + submissionOffset));
  await bar.write64(Register.acq, BigInt(base + completionOffset));
  // The whole register: controllers clear it with CC.EN (SPDK), so entry sizes are set at every enable.
  const cc = controllerConfiguration.encode({
    enable: true,
    iosqes: SQE_SIZE_EXPONENT,
    iocqes: CQE_SIZE_EXPONENT,
  });
  await bar.write(Register.cc, 4, cc);
  await waitFor(device, bar, timeout, 'become ready', (csts) => controllerStatus.decode(csts).ready);
}

async function waitFor(
  device: Device,
  bar: DeviceRegion,
  timeout: number,
  what: string,
  done: (csts: number) => boolean,
): Promise<void> {
  const deadline = performance.now() + timeout;
  for (;;) {
    const csts = await bar.read(Register.csts, 4);
    if (controllerStatus.decode(csts).fatal) {
      throw new VfioUserError(
        'ERR_VFIO_USER_NVME_CONTROLLER',
        `${device.name} reports a fatal error (CSTS 0x${csts.toString(16)}) where it should ${what}; look at the log of its server`,
      );
    }
    if (done(csts)) return;
    if (performance.now() > deadline) {
      throw new VfioUserError(
        'ERR_VFIO_USER_NVME_CONTROLLER',
        `${device.name} did not ${what} within ${String(timeout)} ms (CSTS 0x${csts.toString(16)})`,
      );
    }
    await sleep(POLL_MILLISECONDS);
  }
}

function withShutdown(cc: number): number {
  return ((cc & ~(3 << 14)) | (ShutdownNotification.normal << 14)) >>> 0;
}

function isShutDown(csts: number): boolean {
  return controllerStatus.decode(csts).shutdown === ShutdownStatus.complete;
}
