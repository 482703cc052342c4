// SPDX-License-Identifier: MIT
import { ConfigSpace, type ConfigEffect } from '../../pci/config-space';
import { PciIrq, PciRegion } from '../../pci/device';
import { configRegion } from '../../server/config-region';
import type { Client, ClientRange, PciDeviceModel, ServedRegion } from '../../server/device-model';
import { type MsixLayout, MsixTable } from '../../server/msix-table';
import type { Backend } from '../backends';
import { ClientView } from './client-view';
import { Controller } from './controller';
import { Doorbells } from './doorbells';
import { PciIds } from './identify';
import { type NvmeControllerOptions, resolveOptions } from './options';
import type { ControllerStatistics } from './statistics';

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
  /** Names the controller in messages. */
  readonly name: string;
  /** BAR 0 with registers and doorbells, BAR 4 with the MSI-X structures, and configuration space. */
  readonly regions: ReadonlyMap<number, ServedRegion>;
  /** A vector of MSI-X for the admin queue, and one for each I/O queue pair. */
  readonly irqs: ReadonlyMap<number, number>;

  readonly #backend: Backend;
  readonly #view = new ClientView();
  readonly #doorbells: Doorbells;
  readonly #msix: MsixTable;
  readonly #config: ConfigSpace;
  readonly #controller: Controller;
  #closed = false;

  /**
   * @throws TypeError or RangeError when an option makes no sense
   * @throws VfioUserError `ERR_VFIO_USER_SYSTEM` when memory for the doorbells cannot be had
   */
  constructor(options: NvmeControllerOptions) {
    const resolved = resolveOptions(options);
    const { vectors, dstrd, mappableDoorbells } = resolved;
    this.name = resolved.name;
    this.#backend = resolved.backend;
    this.#doorbells = new Doorbells(vectors, dstrd, mappableDoorbells);
    this.#msix = new MsixTable(vectors);
    this.#config = configSpace(vectors, this.#doorbells.barBytes);
    this.#controller = new Controller(resolved, this.#view, this.#doorbells, this.#msix);
    this.regions = new Map([
      [PciRegion.bar0, this.#bar0()],
      [PciRegion.bar4, this.#msix.region(MSIX_BAR)],
      [
        PciRegion.config,
        configRegion(this.#config, (effect) => {
          this.#configured(effect);
        }),
      ],
    ]);
    this.irqs = new Map([
      [PciIrq.msix, vectors],
      // Never signalled. Without it, QEMU warns that there is no error recovery.
      [PciIrq.err, 1],
    ]);
  }

  /** What the controller has done so far. */
  get statistics(): ControllerStatistics {
    return this.#controller.statistics;
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
    const drained = this.#controller.reset();
    this.#config.reset();
    this.#msix.reset();
    return drained;
  }

  /**
   * Called by the server: a client is there, whose memory and interrupts are used from now on. It gets doorbells that no
   * other client has seen.
   *
   * @throws VfioUserError `ERR_VFIO_USER_SYSTEM` when memory for the doorbells cannot be had
   */
  attach(client: Client): void {
    this.#doorbells.renew();
    this.#msix.attach(client);
    this.#view.attach(client.memory);
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
    this.#msix.detach();
    void this.reset();
    this.#view.detach();
  }

  /** Stops, and closes the backend. The controller must not be served any more. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.detach();
    this.#doorbells.close();
    this.#backend.close();
  }

  /** Calls {@link close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** The registers and the doorbells. */
  #bar0(): ServedRegion {
    const { barBytes, shared } = this.#doorbells;
    return {
      size: barBytes,
      ...(shared && { shared }),
      read: (offset, data) => {
        this.#controller.read(offset, data);
      },
      write: (offset, data) => {
        this.#controller.write(offset, data);
      },
    };
  }

  /** Does what a write to configuration space asks for. */
  #configured(effect: ConfigEffect): void {
    this.#msix.configure(effect);
    if (effect.kind === 'function-level-reset') void this.reset();
  }
}

function configSpace(vectors: number, barBytes: number): ConfigSpace {
  return new ConfigSpace({
    vendorId: PciIds.vendor,
    deviceId: PciIds.device,
    subsystemVendorId: PciIds.subsystemVendor,
    subsystemId: PciIds.subsystem,
    classCode: CLASS_CODE,
    bars: {
      0: { kind: 'memory64', size: barBytes },
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
