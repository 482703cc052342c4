// SPDX-License-Identifier: MIT
import { ConfigSpace } from '../../pci/config-space';
import { PciIrq, PciRegion } from '../../pci/device';
import type { Client, ClientRange, PciDeviceModel, ServedRegion } from '../../server/device-model';
import { type MsixLayout, MsixTable } from '../../server/msix-table';
import {
  AsyncErrorEvent,
  AsyncEventType,
  CommandSets,
  GenericStatus,
  LogPage,
  encodeCapabilities,
} from '../spec';
import { AdminCommands } from './admin-commands';
import { AsyncEvents } from './async-events';
import type { Backend } from './backend';
import { ClientView } from './client-view';
import { DoorbellBar } from './doorbell-bar';
import { ErrorLog, NOT_KNOWN } from './error-log';
import { FeatureSet } from './feature-set';
import { Identify, NVME_VERSION, PciIds } from './identify';
import { IoCommands } from './io-commands';
import { LogPages } from './log-pages';
import { type NvmeControllerOptions, type ResolvedOptions, resolveOptions } from './options';
import { Outcome } from './outcome';
import { Poller } from './poller';
import { CompletionQueue, SubmissionQueue } from './queue';
import { QueueSet } from './queue-set';
import { type AdminQueues, Registers } from './registers';
import { type ControllerStatistics, type Counters, newCounters } from './statistics';

/** CAP.TO in milliseconds: longer than a client takes to answer, or to fail to answer, a message. */
const READY_TIMEOUT = 15_000;
/** Class code of an NVMe I/O controller. */
const CLASS_CODE = 0x010802;
/** BAR 4. The pending bits have a page of their own, so that a hypervisor can trap it alone. */
const MSIX_BAR: MsixLayout = { size: 0x2000, table: 0, pba: 0x1000 };

/**
 * An NVMe controller with one namespace, to be served to a vfio-user client: a hypervisor, SPDK, this package.
 *
 * It polls the doorbells on the event loop of its thread while a client is attached and has enabled it, and may use
 * a whole core then.
 *
 * @example
 * const controller = new NvmeControllerModel({ backend: createBackend({ kind: 'memory', size: 2 ** 30 }) });
 * await serve('/run/nvme.sock', controller);
 */
export class NvmeControllerModel implements PciDeviceModel {
  readonly name: string;
  readonly regions: ReadonlyMap<number, ServedRegion>;
  readonly irqs: ReadonlyMap<number, number>;

  readonly #backend: Backend;
  readonly #counters: Counters = newCounters();
  readonly #view = new ClientView();
  readonly #errors = new ErrorLog();
  readonly #config: ConfigSpace;
  readonly #msix: MsixTable;
  readonly #bar: DoorbellBar;
  readonly #registers: Registers;
  readonly #queues: QueueSet;
  readonly #events: AsyncEvents;
  readonly #features: FeatureSet;
  readonly #admin: AdminCommands;
  readonly #poller: Poller;
  readonly #onFault: (reason: string) => void;
  #client: Client | null = null;
  #fault: string | null = null;
  #closed = false;
  #keepAlive: NodeJS.Timeout | undefined;
  #drained: (() => void)[] = [];

  /**
   * @throws TypeError or RangeError when an option makes no sense
   * @throws VfioUserError `ERR_VFIO_USER_SYSTEM` when memory for the doorbells cannot be had
   */
  constructor(options: NvmeControllerOptions) {
    const resolved = resolveOptions(options);
    const { backend, queuePairs, dstrd, blockSize, maxTransfer } = resolved;
    const vectors = queuePairs + 1;
    const [view, counters] = [this.#view, this.#counters];
    this.name = resolved.name;
    this.#backend = backend;
    this.#onFault = resolved.onFault;
    this.#events = new AsyncEvents((cid, dw0) => {
      this.#queues.completeHeld(cid, Outcome.success, dw0);
    });
    this.#registers = new Registers(capabilities(resolved), NVME_VERSION, {
      enable: (queues) => {
        this.#enable(queues);
      },
      refused: (reason) => {
        this.#fail(`The controller was not enabled (CSTS.CFS): ${reason}`);
      },
      disable: () => {
        this.#stop();
        if (!this.#queues.draining) this.#registers.stopped();
      },
      shutdown: () => {
        this.#shutDown();
      },
    });
    this.#bar = new DoorbellBar({
      doorbells: 2 * vectors,
      dstrd,
      mappable: resolved.mappableDoorbells,
      readRegister: (offset, data) => {
        this.#registers.read(offset, data);
      },
      writeRegister: (offset, data) => {
        this.#registers.write(offset, data);
        this.#poll();
      },
      rung: (index) => {
        this.#rung(index);
      },
    });
    const io = new IoCommands({ backend, blockSize, maxTransfer, view, counters });
    this.#queues = new QueueSet(view, this.#bar.words, io, this.#errors, counters, {
      admin: (words, alive) => this.#admin.execute(words, alive),
      badDoorbell: (info) => {
        this.#badDoorbell(info);
      },
      interrupt: (vector) => this.#msix.trigger(vector),
      fatal: (reason) => {
        this.#fail(reason);
      },
      drained: () => {
        this.#whenDrained();
      },
    });
    this.#features = new FeatureSet({
      queuePairs,
      vectors,
      volatileCache: backend.volatileCache,
      hasIoQueues: () => this.#queues.submissions.size > 1 || this.#queues.completions.size > 1,
      raise: (event) => {
        this.#events.raise(event);
      },
      keepAlive: (milliseconds) => {
        this.#setKeepAlive(milliseconds);
      },
      writeCache: (enabled) => {
        io.writeThrough = !enabled;
      },
    });
    this.#admin = new AdminCommands({
      options: resolved,
      vectors,
      view,
      queues: this.#queues,
      identify: new Identify(resolved, io.blocks),
      logs: new LogPages(this.#errors, this.#features, counters),
      features: this.#features,
      events: this.#events,
      doorbell: (queueId, kind) => this.#bar.word(2 * queueId + (kind === 'completion' ? 1 : 0)),
      entrySizesValid: () => {
        const { iosqes, iocqes } = this.#registers.configuration;
        return iosqes === 6 && iocqes === 4;
      },
      keepAlive: () => this.#keepAlive?.refresh(),
    });
    this.#config = buildConfigSpace(vectors, this.#bar.size);
    this.#msix = new MsixTable(vectors);
    this.regions = new Map<number, ServedRegion>([
      [PciRegion.bar0, this.#bar],
      [PciRegion.bar4, this.#msix.region(MSIX_BAR)],
      [PciRegion.config, this.#configRegion()],
    ]);
    this.irqs = new Map([
      [PciIrq.msix, vectors],
      // Never signalled. Without it, QEMU warns that there is no error recovery.
      [PciIrq.err, 1],
    ]);
    this.#poller = new Poller(() => this.#round(), resolved.pollSlice, resolved.idleAfter);
  }

  /** What the controller has done so far. */
  get statistics(): ControllerStatistics {
    return { ...this.#counters };
  }

  /** Why CSTS.CFS was set, since the last reset; null when it was not. */
  get fault(): string | null {
    return this.#fault;
  }

  /** As power-on, but for the data. Resolves when nothing of what was stopped touches the client's memory any more. */
  async reset(): Promise<void> {
    this.#resetAll();
    if (this.#queues.draining) await new Promise<void>((resolve) => this.#drained.push(resolve));
  }

  attach(client: Client): void {
    this.#client = client;
    this.#msix.attach(client);
    this.#view.attach(client.memory);
  }

  /** Queues are looked up again where they are used, so that there is nothing to do but to look at the doorbells. */
  mapped(): void {
    this.#poll();
  }

  unmapping(range: ClientRange): void {
    this.#view.leave(range);
    this.#queues.unmap();
  }

  detach(): void {
    this.#client = null;
    this.#msix.detach();
    this.#resetAll();
    this.#view.detach();
  }

  /** Stops, and closes the backend. The controller must not be served any more. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.detach();
    this.#bar.close();
    this.#backend.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #configRegion(): ServedRegion {
    return {
      size: this.#config.size,
      read: (offset, data) => {
        data.set(this.#config.read(offset, data.length));
      },
      write: (offset, data) => {
        for (const effect of this.#config.write(offset, data)) {
          this.#msix.configure(effect);
          if (effect.kind === 'function-level-reset') this.#resetAll();
        }
      },
    };
  }

  #enable(queues: AdminQueues): void {
    const completions = new CompletionQueue(
      0,
      queues.completionAddress,
      queues.completionEntries,
      0,
      this.#bar.word(1),
    );
    const submissions = new SubmissionQueue(
      0,
      queues.submissionAddress,
      queues.submissionEntries,
      completions,
      this.#bar.word(0),
    );
    if (!this.#queues.addCompletionQueue(completions) || !this.#queues.addSubmissionQueue(submissions)) {
      this.#fail(
        'The admin queues are not in memory that the client shares for reading and writing; a guest of QEMU needs a memory backend with share=on',
      );
      return;
    }
    this.#registers.ready();
    this.#poll();
  }

  /** Drops the queues and all that belongs to them. */
  #stop(): void {
    this.#poller.stop();
    this.#queues.drop();
    this.#events.reset();
    this.#features.reset();
    this.#fault = null;
    this.#counters.resets++;
  }

  #resetAll(): void {
    this.#stop();
    this.#registers.reset();
    this.#config.reset();
    this.#msix.reset();
  }

  /** CC.SHN: what was written is made durable, then the host may take the power. */
  #shutDown(): void {
    this.#poller.stop();
    this.#queues.drop();
    this.#events.reset();
    const done = (): void => {
      this.#registers.shutDown();
    };
    const flush = (): void => {
      if (!this.#backend.volatileCache) done();
      else this.#backend.flush().then(done, done); // Nobody could be told of a failure any more.
    };
    if (this.#queues.draining) this.#drained.push(flush);
    else flush();
  }

  #whenDrained(): void {
    const waiting = this.#drained;
    this.#drained = [];
    this.#registers.stopped();
    for (const resolve of waiting) resolve();
  }

  /** CSTS.CFS: nothing is processed until the host resets the controller (NVMe base 2.0, 9.5). */
  #fail(reason: string): void {
    this.#setKeepAlive(0);
    this.#poller.stop();
    this.#queues.drop();
    this.#registers.fail();
    this.#fault = reason;
    this.#onFault(reason);
  }

  #round(): number {
    try {
      return this.#queues.round();
    } catch (error) {
      // Memory of the client's that went away in spite of the contract, or a defect: the process serves others too.
      this.#fail(`Processing failed: ${String(error)}`);
      return 0;
    }
  }

  /** Looks at the doorbells soon, if there is anything to look at. */
  #poll(): void {
    if (this.#client !== null && this.#queues.submissions.size > 0) this.#poller.wake();
  }

  #rung(index: number): void {
    const queueId = index >>> 1;
    const { submissions, completions } = this.#queues;
    const exists = (index & 1) === 0 ? submissions.has(queueId) : completions.has(queueId);
    if (exists) this.#poll();
    else if (this.#registers.enabled) this.#badDoorbell(AsyncErrorEvent.invalidDoorbellRegister);
  }

  #badDoorbell(info: number): void {
    this.#errors.add(NOT_KNOWN, NOT_KNOWN, GenericStatus.success, 0);
    this.#events.raise({ type: AsyncEventType.error, info, logPage: LogPage.error });
  }

  #setKeepAlive(milliseconds: number): void {
    clearTimeout(this.#keepAlive);
    this.#keepAlive = undefined;
    if (milliseconds === 0) return;
    // The longest that a timer of Node.js takes; 24 days.
    this.#keepAlive = setTimeout(
      () => {
        this.#fail(`No Keep Alive came for ${milliseconds} ms`);
      },
      Math.min(milliseconds, 0x7fff_ffff),
    ).unref();
  }
}

/** CAP of the controller. */
function capabilities({ maxQueueEntries, dstrd }: ResolvedOptions): readonly [number, number] {
  return encodeCapabilities({
    maxQueueEntries,
    contiguousQueuesRequired: true,
    weightedRoundRobin: false,
    timeout: READY_TIMEOUT,
    dstrd,
    subsystemReset: false,
    commandSets: CommandSets.nvm,
    minPageSize: 4096,
    maxPageSize: 4096,
    persistentMemoryRegion: false,
    controllerMemoryBuffer: false,
    readyWithMedia: false,
    readyIndependentOfMedia: false,
  });
}

function buildConfigSpace(vectors: number, barSize: number): ConfigSpace {
  return new ConfigSpace({
    vendorId: PciIds.vendor,
    deviceId: PciIds.device,
    subsystemVendorId: PciIds.subsystemVendor,
    subsystemId: PciIds.subsystem,
    classCode: CLASS_CODE,
    bars: {
      0: { kind: 'memory64', size: barSize },
      4: { kind: 'memory32', size: MSIX_BAR.size },
    },
    capabilities: [
      { kind: 'power-management' },
      { kind: 'express', functionLevelReset: true },
      {
        kind: 'msix',
        vectors,
        table: { bar: PciRegion.bar4, offset: MSIX_BAR.table },
        pba: { bar: PciRegion.bar4, offset: MSIX_BAR.pba },
      },
    ],
  });
}
