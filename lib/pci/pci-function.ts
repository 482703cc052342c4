// SPDX-License-Identifier: MIT
import { setTimeout as sleep } from 'node:timers/promises';
import { Mutex } from '../async';
import { VfioUserError, outOfRange } from '../errors';
import type { Capability, CapabilityList, ExtendedCapability } from './capabilities';
import { parseCapabilities, parseExtendedCapabilities } from './capability-list';
import {
  PCIE_CONFIG_BYTES,
  PCI_CONFIG_BYTES,
  PCI_HEADER_BYTES,
  PciCommand,
  PciConfig,
  PciStatus,
  parseConfigHeader,
  type Bar,
  type ConfigHeader,
} from './config-header';
import { PciRegion, type Device, type DeviceRegion } from './device';
import { probeBars, type ProbedBar } from './bar-probe';

/** A base address register, and the size of the region behind it in bytes. */
export interface SizedBar extends Bar {
  /** Bytes of the region behind the register. */
  readonly size: number;
}

/** What a device may do, for {@link PciFunction.enable}; what is absent stays as it is. */
export interface FunctionSwitches {
  /** Answer accesses to memory BARs. */
  readonly memory?: boolean;
  /** Answer accesses to I/O BARs. */
  readonly io?: boolean;
  /** Access memory of the host, and send MSI and MSI-X. */
  readonly busMaster?: boolean;
  /** Signal INTx. */
  readonly intx?: boolean;
}

/** Bytes of a capability that its parser looks at, at most. */
const CAPABILITY_BYTES = 0x18;
/** Offset of Device Control in the PCI Express capability, and its bit Initiate Function Level Reset. */
const DEVICE_CONTROL = 8;
const INITIATE_RESET = 0x8000;
/** Longest time that a function may need after a reset, in milliseconds (PCI Express base 5.0, 6.6.2 and 2.3.1). */
const RESET_TIME = 1000;

/**
 * A device as a PCI function: what its configuration space says, and what can be set there.
 *
 * Registers are read one by one: some servers refuse accesses that are wider than a register, or end at them.
 */
export class PciFunction {
  readonly #device: Pick<Device, 'name' | 'region'>;
  /** Changes of registers go one after the other, so that none takes back what another has set. */
  readonly #changes = new Mutex();

  /** @internal */
  constructor(device: Pick<Device, 'name' | 'region'>) {
    this.#device = device;
  }

  /**
   * Reads configuration space by registers of 1, 2 and 4 bytes, several in flight.
   *
   * @param options `bulk` tries one access for all bytes, as QEMU does, and falls back when the server refuses it
   * @throws RangeError when the bytes are not within the region; VfioUserError ERR_VFIO_USER_REMOTE and others of a message
   */
  async readConfig(
    offset: number,
    length: number,
    options: { readonly bulk?: boolean } = {},
  ): Promise<Uint8Array> {
    const config = await this.#config();
    checkRange(config, offset, length);
    if (options.bulk === true) {
      try {
        return await config.readBytes(offset, length);
      } catch (error) {
        if (!isRefusal(error)) throw error;
      }
    }
    return readRegisters(config, offset, length, false);
  }

  /**
   * Reads the header of configuration space: ids, class, BARs (PCI Local Bus 3.0, 6.1).
   *
   * @throws VfioUserError ERR_VFIO_USER_PCI when no device answers (vendor FFFFh)
   */
  async header(): Promise<ConfigHeader> {
    return parseConfigHeader(await this.readConfig(0, PCI_HEADER_BYTES));
  }

  /** Walks the capability list (PCI Local Bus 3.0, 6.7). A broken list is followed up to its fault, which the result names. */
  async capabilities(): Promise<CapabilityList<Capability>> {
    const config = await this.#config();
    const end = Math.min(config.size, PCI_CONFIG_BYTES);
    const bytes = new Uint8Array(end).fill(0xff);
    bytes.set(await this.readConfig(0, PCI_HEADER_BYTES));
    const view = new DataView(bytes.buffer);
    if ((view.getUint16(PciConfig.status, true) & PciStatus.capabilities) !== 0) {
      const first = view.getUint8(PciConfig.capabilities) & 0xfc;
      await readList(config, bytes, first, PCI_HEADER_BYTES, (at) => view.getUint8(at + 1) & 0xfc);
    }
    return parseCapabilities(bytes);
  }

  /** Walks the list of extended capabilities (PCI Express base 5.0, 7.6.3), as {@link capabilities}. Empty for conventional PCI. */
  async extendedCapabilities(): Promise<CapabilityList<ExtendedCapability>> {
    const config = await this.#config();
    const end = Math.min(config.size, PCIE_CONFIG_BYTES);
    const bytes = new Uint8Array(end).fill(0xff);
    const view = new DataView(bytes.buffer);
    await readList(config, bytes, PCI_CONFIG_BYTES, PCI_CONFIG_BYTES, (at) => {
      const header = view.getUint32(at, true);
      return header === 0xffff_ffff ? 0 : (header >>> 20) & 0xffc;
    });
    return parseExtendedCapabilities(bytes);
  }

  /** The first capability of a kind; undefined when the device lacks it. */
  async capability<Kind extends Capability['kind']>(
    kind: Kind,
  ): Promise<Extract<Capability, Record<'kind', Kind>> | undefined> {
    const { capabilities } = await this.capabilities();
    const isKind = (one: Capability): one is Extract<Capability, Record<'kind', Kind>> => one.kind === kind;
    return capabilities.find(isKind);
  }

  /** The first extended capability of a kind; undefined when the device lacks it. */
  async extendedCapability<Kind extends ExtendedCapability['kind']>(
    kind: Kind,
  ): Promise<Extract<ExtendedCapability, Record<'kind', Kind>> | undefined> {
    const { capabilities } = await this.extendedCapabilities();
    const isKind = (one: ExtendedCapability): one is Extract<ExtendedCapability, Record<'kind', Kind>> =>
      one.kind === kind;
    return capabilities.find(isKind);
  }

  /** The BARs that have a region behind them, with its size. Nothing is written. */
  async bars(): Promise<readonly SizedBar[]> {
    const { bars } = await this.header();
    const sized = await Promise.all(
      bars.map(async (bar) => ({
        ...bar,
        size: (await this.#device.region(PciRegion.bar0 + bar.index)).size,
      })),
    );
    return sized.filter(({ size }) => size > 0);
  }

  /**
   * Sizes the BARs as a host does at start-up: writes ones, reads back, restores. The device must not be in use: its
   * memory and I/O are switched off meanwhile. For comparison with {@link bars}: clients of vfio-user do not need it.
   */
  probeBars(): Promise<readonly ProbedBar[]> {
    return this.#changes.run(async () => probeBars(await this.#config(), await this.header()));
  }

  /** Command register, see `PciCommand`. */
  async command(): Promise<number> {
    return (await this.#config()).read16(PciConfig.command);
  }

  /** Status register, see `PciStatus`. */
  async status(): Promise<number> {
    return (await this.#config()).read16(PciConfig.status);
  }

  /**
   * Sets and clears bits of the command register, see `PciCommand`.
   *
   * @param set bits that become 1, a 16-bit number
   * @param clear bits that become 0 unless they are in `set`, a 16-bit number
   * @returns the value that was written
   * @throws RangeError ERR_OUT_OF_RANGE when they are not 16-bit numbers
   */
  setCommand(set: number, clear = 0): Promise<number> {
    if (!isRegister(set) || !isRegister(clear))
      throw outOfRange(
        `The bits of the command register are 16-bit numbers; ${set} are to be set and ${clear} cleared`,
      );
    return this.#changes.run(async () => {
      const config = await this.#config();
      const value = ((await config.read16(PciConfig.command)) & ~clear) | set;
      await config.write16(PciConfig.command, value);
      return value;
    });
  }

  /** Switches what the device may do, in the command register. */
  async enable({ memory, io, busMaster, intx }: FunctionSwitches): Promise<void> {
    let set = 0;
    let clear = 0;
    const turn = (bit: number, on: boolean | undefined): void => {
      if (on === true) set |= bit;
      if (on === false) clear |= bit;
    };
    turn(PciCommand.memory, memory);
    turn(PciCommand.io, io);
    turn(PciCommand.busMaster, busMaster);
    turn(PciCommand.interruptDisable, intx === undefined ? undefined : !intx);
    await this.setCommand(set, clear);
  }

  /**
   * Resets the function through its PCI Express capability (PCI Express base 5.0, 6.6.2), and waits until it answers.
   * Configuration space has its values after power-on then, so that the device has to be set up anew.
   *
   * @throws VfioUserError ERR_VFIO_USER_UNSUPPORTED when the device does not offer it; ERR_VFIO_USER_PCI when it does not
   *   come back
   */
  functionLevelReset(): Promise<void> {
    return this.#changes.run(async () => {
      const express = await this.capability('express');
      if (express?.functionLevelReset !== true) {
        throw new VfioUserError(
          'ERR_VFIO_USER_UNSUPPORTED',
          `${this.#device.name} does not offer a function level reset` +
            (express === undefined ? ': it has no PCI Express capability' : ''),
        );
      }
      const config = await this.#config();
      const control = express.offset + DEVICE_CONTROL;
      await config.write16(control, (await config.read16(control)) | INITIATE_RESET);
      const deadline = performance.now() + RESET_TIME;
      while ((await config.read16(PciConfig.vendorId)) === 0xffff) {
        if (performance.now() > deadline)
          throw new VfioUserError(
            'ERR_VFIO_USER_PCI',
            `${this.#device.name} did not answer within ${RESET_TIME} ms after a function level reset; restart its server`,
          );
        await sleep(10);
      }
    });
  }

  #config(): Promise<DeviceRegion> {
    return this.#device.region('config');
  }
}

const isRegister = (value: number): boolean => Number.isInteger(value) && value >= 0 && value <= 0xffff;

function isRefusal(error: unknown): boolean {
  return error instanceof VfioUserError && error.code === 'ERR_VFIO_USER_REMOTE';
}

function checkRange(config: DeviceRegion, offset: number, length: number): void {
  const valid = Number.isInteger(offset) && Number.isInteger(length) && offset >= 0 && length >= 1;
  if (!valid || offset + length > config.size) {
    throw outOfRange(
      `${length} bytes at ${offset} are not within the ${config.size} bytes of configuration space`,
    );
  }
}

/** @param tolerant whether a register that the server refuses reads as ones, as on a bus where no device answers */
async function readRegisters(
  config: DeviceRegion,
  offset: number,
  length: number,
  tolerant: boolean,
): Promise<Uint8Array> {
  const bytes = new Uint8Array(length).fill(0xff);
  const view = new DataView(bytes.buffer);
  const reads: Promise<void>[] = [];
  for (let at = offset; at < offset + length;) {
    const left = offset + length - at;
    const width = at % 4 === 0 && left >= 4 ? 4 : at % 2 === 0 && left >= 2 ? 2 : 1;
    reads.push(readRegister(config, view, at - offset, at, width, tolerant));
    at += width;
  }
  await Promise.all(reads);
  return bytes;
}

async function readRegister(
  config: DeviceRegion,
  into: DataView,
  to: number,
  offset: number,
  width: 1 | 2 | 4,
  tolerant: boolean,
): Promise<void> {
  let value;
  try {
    value = await (width === 4
      ? config.read32(offset)
      : width === 2
        ? config.read16(offset)
        : config.read8(offset));
  } catch (error) {
    if (tolerant && isRefusal(error)) return;
    throw error;
  }
  if (width === 4) into.setUint32(to, value, true);
  else if (width === 2) into.setUint16(to, value, true);
  else into.setUint8(to, value);
}

/** Reads what the entries of a list say, each once; what is wrong with the list is for its parser to tell. */
async function readList(
  config: DeviceRegion,
  bytes: Uint8Array,
  first: number,
  lowest: number,
  next: (at: number) => number,
): Promise<void> {
  const seen = new Set<number>();
  for (let at = first; at >= lowest && at + 4 <= bytes.length && !seen.has(at); at = next(at)) {
    seen.add(at);
    const length = Math.min(CAPABILITY_BYTES, bytes.length - at);
    bytes.set(await readRegisters(config, at, length, true), at);
  }
}
