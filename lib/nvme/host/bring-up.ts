// SPDX-License-Identifier: MIT
import { VfioUserError, outOfRange } from '../../errors';
import {
  PCI_CONFIG_BYTES,
  PciCommand,
  PciConfig,
  className,
  parseCapabilities,
  parseConfigHeader,
  type Device,
  type DeviceIrq,
  type DeviceRegion,
  type MappedArea,
  type RegisterSpace,
} from '../../pci';
import { CommandSets, Register, decodeCapabilities, type ControllerCapabilities } from '../spec';
import { NvmeAdmin } from './admin';
import { AdminQueue } from './admin-queue';
import { disable, enable } from './controller-state';
import { DmaArena, NVME_PAGE } from './dma-arena';
import { MappedDoorbells, MessageDoorbells, type Doorbells } from './doorbells';
import { QueuePair } from './queue-pair';
import {
  QueuePairs,
  placeQueue,
  type DoorbellAccess,
  type QueuePlace,
  type VectorHandler,
} from './queue-pairs';
import type { ResubmitPolicy } from './resubmission';
import { StatusWatch } from './status-watch';
import type { UndoStep } from './undo';

/** How to attach to a controller. */
export interface NvmeAttachOptions {
  /** Bytes of memory shared with the controller, for queues and the data of admin commands; one DMA mapping. Default 2 MiB. */
  readonly arenaSize?: number;
  /** Entries of the admin queue, 2 to 4096. Default 32. */
  readonly adminEntries?: number;
  /** Time-out of an admin command, in milliseconds. Default 15000. */
  readonly adminTimeout?: number;
  /** MSI-X vectors to enable, 0 to poll only. Vector 0 is the admin queue's. Default 0. */
  readonly vectors?: number;
  /**
   * Where vectors go: to functions of this thread (default), or to eventfds that are only created, for other threads or
   * event loops to wait for.
   */
  readonly vectorTarget?: 'function' | 'eventfd';
  /**
   * What becomes of I/O commands in flight when the connection of a device that comes back is lost
   * (`connect(path, { reconnect: true })`), or a controller that has failed is reset. Default `reads`.
   */
  readonly resubmit?: ResubmitPolicy;
  /**
   * Whether a controller that reports a fatal error (CSTS.CFS) is reset and brought up again, as one whose device comes back: after
   * three resets without a completed command it is given up. Without it all commands fail. Default: true for a device that comes back.
   */
  readonly autoReset?: boolean;
}

/** What a controller is made of, for as long as it is attached. */
export interface ControllerParts {
  readonly device: Device;
  /** BAR 0, the registers. */
  readonly bar: DeviceRegion;
  /** The register CAP, and what it says. */
  readonly cap: bigint;
  readonly capabilities: ControllerCapabilities;
  readonly arena: DmaArena;
  readonly queue: AdminQueue;
  /** Where the admin queue lies. */
  readonly adminPlace: QueuePlace;
  readonly admin: NvmeAdmin;
  readonly msix: DeviceIrq | null;
  readonly queuePairs: QueuePairs;
  /** Looks whether the controller has failed. */
  readonly watch: StatusWatch;
}

/** What belongs to one start of a controller. */
export interface StartedController extends DoorbellAccess {
  /** The doorbells, null when they can only be written by message. */
  readonly doorbellArea: MappedArea | null;
}

/** CAP.TO of 0 is seen with emulated controllers; they still need some time. */
const MIN_READY_TIMEOUT = 2000;
/** Doorbells of the admin queue pair and of one I/O queue pair. */
const LEAST_DOORBELLS = 4;

/**
 * Brings a controller up (NVMe base 2.0, 3.5.1): configuration space, disable if enabled, admin queue, enable.
 *
 * @param undo takes the steps that undo what was done
 */
export async function bringUp(
  device: Device,
  options: NvmeAttachOptions,
  undo: UndoStep[],
): Promise<{ parts: ControllerParts; started: StartedController }> {
  const { arenaSize = 2 << 20, adminEntries = 32, adminTimeout = 15_000 } = options;
  if (!Number.isInteger(adminEntries) || adminEntries < 2 || adminEntries > 4096) {
    throw outOfRange(`adminEntries is ${adminEntries}; the admin queue has 2 to 4096 entries`);
  }
  const found = await examine(device);
  const { bar, cap, capabilities } = found;
  const arena = new DmaArena(await device.dma.allocate(arenaSize));
  undo.push({ asksDevice: true, run: () => arena.memory.close() });
  const vectorHandlers: (VectorHandler | undefined)[] = [];
  const msix = await enableVectors(device, found.msixCapability, options, vectorHandlers);
  undo.push({ asksDevice: true, run: () => msix?.disable() });
  const adminPlace = placeQueue(arena, 0, adminEntries);
  const watch = new StatusWatch(bar);
  const queue = new AdminQueue(device.name, arena, adminTimeout, watch);
  const admin = new NvmeAdmin(queue);
  const queuePairs = new QueuePairs({ name: device.name, capabilities, arena, admin, msix, vectorHandlers });
  const parts = { device, bar, cap, capabilities, arena, queue, adminPlace, admin, msix, queuePairs, watch };
  return { parts, started: await start(parts, found, undo) };
}

/**
 * Brings a controller up again, whose device has come back. Its memory is used again: the controller that had it is gone.
 *
 * @param undo takes the steps that undo what was done
 * @throws VfioUserError ERR_VFIO_USER_IDENTITY when it has other capabilities; others as {@link bringUp}
 */
export async function bringUpAgain(parts: ControllerParts, undo: UndoStep[]): Promise<StartedController> {
  const { device, cap } = parts;
  const found = await examine(device);
  if (found.cap !== cap) {
    throw new VfioUserError(
      'ERR_VFIO_USER_IDENTITY',
      `${device.name} came back as another controller: CAP is 0x${found.cap.toString(16)} and was 0x${cap.toString(16)}`,
    );
  }
  return start(parts, found, undo);
}

/** What {@link examine} found. */
interface ExaminedController extends PreparedFunction {
  readonly bar: DeviceRegion;
  readonly cap: bigint;
  readonly capabilities: ControllerCapabilities;
}

/** Sets up configuration space, and checks that this driver can drive the controller. */
async function examine(device: Device): Promise<ExaminedController> {
  const prepared = await preparePci(device);
  const bar = await device.region('bar0');
  const cap = await bar.read64(Register.cap);
  const capabilities = decodeCapabilities(cap);
  if ((capabilities.commandSets & CommandSets.nvm) === 0 || capabilities.minPageSize > NVME_PAGE) {
    throw new VfioUserError(
      'ERR_VFIO_USER_NVME_CONTROLLER',
      `${device.name} offers no NVM command set with pages of ${NVME_PAGE} bytes (CAP 0x${cap.toString(16)})`,
    );
  }
  const leastDoorbells = LEAST_DOORBELLS * (4 << capabilities.dstrd);
  if (Register.doorbells + leastDoorbells > bar.size) {
    throw new VfioUserError(
      'ERR_VFIO_USER_NVME_CONTROLLER',
      `${device.name} has no room for the doorbells of an I/O queue pair: they are ${4 << capabilities.dstrd} bytes apart ` +
        `(CAP.DSTRD ${capabilities.dstrd}), and its BAR 0 has ${bar.size} bytes`,
    );
  }
  return { ...prepared, bar, cap, capabilities };
}

/** Doorbells, MSI-X Enable, admin queue, enable: what each start of the controller needs. */
async function start(
  { device, bar, capabilities, arena, adminPlace, msix, queue, queuePairs }: ControllerParts,
  { msixCapability, untouched }: PreparedFunction,
  undo: UndoStep[],
): Promise<StartedController> {
  const { dstrd } = capabilities;
  const doorbellArea = mapDoorbells(bar, LEAST_DOORBELLS * (4 << dstrd));
  undo.push({ asksDevice: false, run: () => doorbellArea?.close() });
  const doorbells: Doorbells =
    doorbellArea === null
      ? new MessageDoorbells(bar, dstrd)
      : new MappedDoorbells(new Uint32Array(doorbellArea.buffer), dstrd);
  const doorbellBytes = doorbellArea?.size ?? bar.size - Register.doorbells;
  if (msix !== null && msixCapability !== undefined)
    await writeMsixEnable(device.config, msixCapability, true);

  const ready = Math.max(capabilities.timeout, MIN_READY_TIMEOUT);
  if (!untouched) await disable(device, bar, ready);
  // An entry of the start before would be taken for a completion.
  arena.bytes(adminPlace.chunk).fill(0);
  undo.push({ asksDevice: true, run: () => bar.write32(Register.cc, 0) });
  await enable(device, bar, arena.memory.iova, adminPlace.placement, ready);
  queue.start(new QueuePair(adminPlace.placement, arena.memory.buffer, doorbells));
  queuePairs.start({ doorbells, doorbellBytes });
  return { doorbellArea, doorbells, doorbellBytes };
}

/** What {@link preparePci} found. */
interface PreparedFunction {
  /** Offset of the MSI-X capability, undefined when there is none. */
  readonly msixCapability: number | undefined;
  /**
   * The function could neither be reached nor reach memory since its reset, so no controller can have been enabled
   * (PCI local bus 3.0, 6.2.2): it need not be asked, which is a message saved.
   */
  readonly untouched: boolean;
}

/**
 * Checks the class code and sets up configuration space. It survives connections, so nothing is taken for granted: with
 * INTx or MSI-X left enabled and no eventfd, SPDK's controller fails at its first completion.
 *
 * @returns what the function has, and whether somebody may have driven it
 */
async function preparePci(device: Device): Promise<PreparedFunction> {
  const config = device.config;
  const bytes = await config.readBytes(0, PCI_CONFIG_BYTES);
  const header = parseConfigHeader(bytes);
  if (header.classCode !== 0x010802) {
    throw new VfioUserError(
      'ERR_VFIO_USER_PCI',
      `${device.name} is not an NVMe controller: its class code is 0x${header.classCode.toString(16).padStart(6, '0')} ` +
        `(${className(header.classCode)}), NVMe has 0x010802. "vfio-user info" shows what it is`,
    );
  }
  const wanted = PciCommand.memory | PciCommand.busMaster | PciCommand.interruptDisable;
  if (header.command !== wanted) await config.write16(PciConfig.command, wanted);
  const msix = parseCapabilities(bytes).capabilities.find((capability) => capability.kind === 'msix');
  if (msix?.enabled === true) await writeMsixEnable(config, msix.offset, false);
  return {
    msixCapability: msix?.offset,
    untouched: (header.command & (PciCommand.memory | PciCommand.busMaster)) === 0,
  };
}

/** Message Control of the MSI-X capability: bit 15 is MSI-X Enable (PCI Express base, 7.7.2.2). */
async function writeMsixEnable(config: RegisterSpace, capability: number, enabled: boolean): Promise<void> {
  const control = await config.read16(capability + 2);
  // Bit 14, Function Mask, may have been left set too.
  await config.write16(capability + 2, (control & 0x3fff) | (enabled ? 0x8000 : 0));
}

/**
 * Enables MSI-X vectors.
 *
 * @param handlers called for the vectors by number, now or when they are set; not used for vectors that go to eventfds
 * @throws VfioUserError ERR_VFIO_USER_UNSUPPORTED for a device without MSI-X; RangeError when it has not so many vectors
 */
async function enableVectors(
  device: Device,
  capability: number | undefined,
  { vectors = 0, vectorTarget = 'function' }: NvmeAttachOptions,
  handlers: (VectorHandler | undefined)[],
): Promise<DeviceIrq | null> {
  if (vectors === 0) return null;
  const irq = await device.irq('msix');
  if (capability === undefined) {
    throw new VfioUserError(
      'ERR_VFIO_USER_UNSUPPORTED',
      `${device.name} has no MSI-X capability in its configuration space, so its queues can only be polled`,
    );
  }
  if (vectors > irq.count) {
    throw outOfRange(
      `${vectors} MSI-X vectors are wanted, one for each queue pair and the admin queue; ${device.name} has ${irq.count}. Use fewer queue pairs, or poll them`,
    );
  }
  handlers.length = vectors;
  const call = (vector: number, signals: number): void => {
    const handler = handlers[vector];
    if (typeof handler === 'function') handler(signals);
  };
  await irq.enable(
    vectorTarget === 'eventfd'
      ? vectors
      : Array.from({ length: vectors }, (_, vector) => (signals: number) => {
          call(vector, signals);
        }),
  );
  return irq;
}

/**
 * The doorbells from 0x1000 to the end of the area that the server lets be mapped.
 *
 * @param least bytes below which it is of no use
 */
function mapDoorbells(bar: DeviceRegion, least: number): MappedArea | null {
  const area = bar.areas.find(
    ({ offset, size }) => offset <= Register.doorbells && offset + size >= Register.doorbells + least,
  );
  if (area === undefined) return null;
  return bar.map(Register.doorbells, area.offset + area.size - Register.doorbells);
}
