// SPDX-License-Identifier: MIT
import type { ConfigEffect } from '../../pci/config-space';
import type { MsiDeclaration, MsixDeclaration } from '../../pci/declaration';
import { PciRegion } from '../../pci/device';
import type { LatencyHistogram } from '../../latency-histogram';
import { ReportLimit } from '../../report-limit';
import type { Client, ClientRange, PciDeviceModel, ServedFunction } from '../../server/device-model';
import type { Faults } from '../faults';
import { ClientView } from './client-view';
import { Controller } from './controller';
import { Doorbells } from './doorbells';
import { PciIds } from './identify';
import type { NvmeNamespaceInfo, NvmeNamespaceOptions } from './namespace';
import { NamespaceSet } from './namespace-set';
import { InterruptLines } from './interrupt-lines';
import type { CommandGroup, LatencySummary } from './latencies';
import { type NvmeControllerOptions, type ResolvedOptions, resolveOptions } from './options';
import type { ControllerStatistics } from './statistics';

/** Class code of an NVMe I/O controller. */
const CLASS_CODE = 0x010802;
/** The pin of a function that is the only one of its device. */
const INTA = 1;
/** BAR 4 has the MSI-X structures. The pending bits have a page of their own, so that a hypervisor can trap it alone. */
const MSIX_BAR = { size: 0x2000, table: 0, pba: 0x1000 };

/**
 * An NVMe controller with its namespaces, to be served to a vfio-user client: a hypervisor, SPDK, this package.
 *
 * It polls the doorbells on the event loop of its thread while a client is attached and has enabled it, and may use
 * a whole core then.
 *
 * @example
 * const controller = new NvmeControllerModel({ backend: createBackend({ kind: 'memory', size: 2 ** 30 }) });
 * await serve('/run/nvme.sock', controller);
 */
export class NvmeControllerModel implements PciDeviceModel {
  /** Names the controller in messages. */
  readonly name: string;
  /** Serial number. */
  readonly serial: string;
  /** NVM Subsystem NQN. */
  readonly nqn: string;
  /** BAR 0 with registers and doorbells, and the interrupts. */
  readonly pci: ServedFunction;

  readonly #namespaces: NamespaceSet;
  readonly #view = new ClientView();
  readonly #doorbells: Doorbells;
  readonly #controller: Controller;
  readonly #warnings: ReportLimit;
  #client: Client | null = null;
  #closed = false;

  /**
   * @throws TypeError or RangeError when an option makes no sense
   * @throws VfioUserError `ERR_VFIO_USER_SYSTEM` when memory for the doorbells cannot be had
   */
  constructor(options: NvmeControllerOptions) {
    const given = resolveOptions(options);
    this.#warnings = new ReportLimit(given.onWarning);
    const onWarning = (reason: string): void => {
      this.#warnings.report(reason);
    };
    const resolved = { ...given, onWarning };
    const { dstrd, mappableDoorbells } = resolved;
    this.name = resolved.name;
    this.serial = resolved.serial;
    this.nqn = resolved.nqn;
    this.#namespaces = new NamespaceSet(resolved);
    this.#doorbells = new Doorbells(resolved.queuePairs + 1, dstrd, mappableDoorbells);
    const lines = new InterruptLines((high, vector) => this.#client?.setInterrupt(high, vector) ?? false);
    const link = {
      disconnect: () => this.#client?.disconnect(),
      unplug: () => this.#client?.unplug(),
    };
    this.#controller = new Controller(resolved, this.#namespaces, this.#view, this.#doorbells, lines, link);
    this.pci = this.#function(resolved);
  }

  /** What the controller has done so far. */
  get statistics(): ControllerStatistics {
    return this.#controller.statistics;
  }

  /** How long I/O commands took so far, by what they do; null unless the option `latencies` is set. */
  get latencies(): Readonly<Record<CommandGroup, LatencySummary>> | null {
    return this.#controller.latencies?.summaries ?? null;
  }

  /** {@link latencies} in full. @internal */
  get latencyHistograms(): Readonly<Record<CommandGroup, LatencyHistogram>> | null {
    return this.#controller.latencies?.histograms ?? null;
  }

  /** Faults that the controller has on demand: it fails as it is told. */
  get faults(): Faults {
    return this.#controller.faults;
  }

  /** The namespaces in the order of their ids. */
  get namespaces(): readonly NvmeNamespaceInfo[] {
    return this.#namespaces.allocated.map(({ info }) => info);
  }

  /**
   * Adds a namespace, and tells the host of it (Namespace Attribute Changed), if the host has asked for that. Its backend is closed with
   * it. A backend with a volatile cache whose controller began without any is made durable at every write.
   *
   * @returns the namespace with its id and identifiers
   * @throws TypeError or RangeError when an option makes no sense, the id is taken, or there are `maxNamespaces` already
   */
  addNamespace(options: NvmeNamespaceOptions): NvmeNamespaceInfo {
    return this.#namespaces.add(options).info;
  }

  /**
   * Removes a namespace at once, tells the host of it, and closes its backend. Commands for it fail from now on, with Invalid Field in
   * Command as the specification has it for an inactive id; those that run and have not reached the backend fail alike.
   *
   * @returns resolves when nothing uses the backend any more, and it is closed. Rejects with a RangeError when there is no such namespace,
   *   and with the error of the backend when what was written could not be made durable; it is closed all the same
   */
  removeNamespace(nsid: number): Promise<void> {
    return this.#namespaces.remove(nsid);
  }

  /**
   * Changes the size of a namespace, and tells the host of it, which rescans. Commands behind a new end fail at once with LBA Out of Range.
   *
   * @param size bytes, a multiple of the block size: a file that is shorter is extended, and a longer one keeps what is cut off. Without
   *   it the size of the storage is taken over, as of a file that has grown
   * @returns the namespace as it is now. Rejects with a RangeError when there is none or the size makes no sense, with
   *   `ERR_VFIO_USER_UNSUPPORTED` when the backend cannot do it, and with the error of the backend; the size is as before then
   */
  async resizeNamespace(nsid: number, size?: number): Promise<NvmeNamespaceInfo> {
    return (await this.#namespaces.resize(nsid, size)).info;
  }

  /** Makes durable what was written to all namespaces. Rejects with the error of a backend that cannot. */
  flush(): Promise<void> {
    return this.#namespaces.flush();
  }

  /** Why the controller cannot go on (CSTS.CFS) until it is reset; null while it can. */
  get fault(): string | null {
    return this.#controller.fault;
  }

  /**
   * Resets the function: registers, queues and interrupts are as after power-on, the data stays.
   * @returns resolves when nothing of what was stopped touches the client's memory any more
   */
  reset(): Promise<void> {
    return this.#controller.reset();
  }

  /** Called by the server: configuration space has changed. */
  configured(effect: ConfigEffect): void {
    if (effect.kind === 'command') this.#controller.busMasterChanged();
    else this.#controller.interruptsChanged(effect);
  }

  /**
   * Called by the server: a client is there, whose memory and interrupts are used from now on. It gets doorbells that no
   * other client has seen.
   *
   * @throws VfioUserError `ERR_VFIO_USER_SYSTEM` when memory for the doorbells cannot be had
   */
  attach(client: Client): void {
    this.#doorbells.renew();
    this.#client = client;
    this.#view.attach(client.memory);
    this.#controller.powerOn();
  }

  /** Called by the server: memory was added. Queues are looked up where they are used, so the doorbells are looked at. */
  mapped(): void {
    this.#controller.wake();
  }

  /** Called by the server: the range is not touched any more when this returns. */
  unmapping(range: ClientRange): void {
    this.#view.leave(range);
    this.#controller.unmap();
  }

  /** Called by the server: the commands so far, which come by doorbells that the server does not see. */
  activity(): number {
    const { readCommands, writeCommands, otherCommands, adminCommands } = this.#controller.statistics;
    return readCommands + writeCommands + otherCommands + adminCommands;
  }

  /** Called by the server: the client is gone, and the next one finds a controller that was reset. */
  detach(): void {
    this.#client = null;
    void this.reset();
    this.#view.detach();
  }

  /** Stops, and closes the backends. The controller must not be served any more. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.detach();
    this.#doorbells.close();
    this.#namespaces.close();
    this.#warnings.close();
  }

  /** Calls {@link close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  #function({ interrupts, vectors }: ResolvedOptions): ServedFunction {
    const { barBytes, shared } = this.#doorbells;
    return {
      vendorId: PciIds.vendor,
      deviceId: PciIds.device,
      subsystemVendorId: PciIds.subsystemVendor,
      subsystemId: PciIds.subsystem,
      classCode: CLASS_CODE,
      interruptPin: INTA,
      bars: {
        0: {
          kind: 'memory64',
          size: barBytes,
          ...(shared && { shared }),
          read: (offset, data) => this.#controller.read(offset, data),
          write: (offset, data) => this.#controller.write(offset, data),
        },
        ...(interrupts === 'msix' && { 4: { kind: 'memory32', size: MSIX_BAR.size } }),
      },
      capabilities: [
        { kind: 'power-management' },
        { kind: 'express', functionLevelReset: true },
        ...messages(interrupts, vectors),
      ],
    };
  }
}

/** The capabilities for the messages that the function has. */
function messages(
  interrupts: ResolvedOptions['interrupts'],
  vectors: number,
): readonly (MsiDeclaration | MsixDeclaration)[] {
  if (interrupts === 'intx') return [];
  // A power of two, as MSI has it.
  if (interrupts === 'msi') {
    return [{ kind: 'msi', vectors: (2 ** Math.ceil(Math.log2(vectors))) as MsiDeclaration['vectors'] }];
  }
  return [
    {
      kind: 'msix',
      vectors,
      table: { bar: PciRegion.bar4, offset: MSIX_BAR.table },
      pba: { bar: PciRegion.bar4, offset: MSIX_BAR.pba },
    },
  ];
}
