// SPDX-License-Identifier: MIT
import { isDeepStrictEqual } from 'node:util';
import { outOfRange } from '../errors';
import { MsiControl, MsixControl } from './capabilities';
import { PciConfig, PciStatus, parseConfigHeader } from './config-header';
import { buildConfigImage, type ConfigImage } from './config-image';
import { checkDeclaration, declaredBars, type ConfigSpaceDeclaration } from './declaration';

/** What a write to configuration space asks of the device. Only changes are told. */
export type ConfigEffect =
  CommandEffect | BarEffect | MsiEffect | MsixEffect | PowerEffect | FunctionLevelResetEffect;

/** The command register changed. */
export interface CommandEffect {
  /** Tells the effects apart. */
  readonly kind: 'command';
  /** The register as it is now, see `PciCommand`. */
  readonly value: number;
  /** The register as it was. */
  readonly previous: number;
}

/** A BAR was moved, or is being sized. */
export interface BarEffect {
  /** Tells the effects apart. */
  readonly kind: 'bar';
  /** Index of the BAR, 0 to 5. */
  readonly index: number;
  /** The address that it has now. */
  readonly address: number;
}

/** MSI was enabled or disabled, or its number of vectors or its mask changed. */
export interface MsiEffect extends MsiState {
  /** Tells the effects apart. */
  readonly kind: 'msi';
}

/** MSI-X was enabled or disabled, or its function mask changed. */
export interface MsixEffect extends MsixState {
  /** Tells the effects apart. */
  readonly kind: 'msix';
}

/** The power state changed. */
export interface PowerEffect {
  /** Tells the effects apart. */
  readonly kind: 'power';
  /** The state that it has now: 0 for D0, 3 for D3hot. */
  readonly state: number;
  /** The state that it had. */
  readonly previous: number;
}

/** A function level reset was asked for. The device resets itself, and calls {@link ConfigSpace.reset}. */
export interface FunctionLevelResetEffect {
  /** Tells the effects apart. */
  readonly kind: 'function-level-reset';
}

/** MSI as the client set it. */
export interface MsiState {
  /** MSI Enable. */
  readonly enabled: boolean;
  /** Vectors that the device may use: a power of two, up to those that it declared. */
  readonly vectors: number;
  /** Masked vectors, one bit each; 0 without per-vector masking. */
  readonly mask: number;
}

/** MSI-X as the client set it. */
export interface MsixState {
  /** MSI-X Enable. */
  readonly enabled: boolean;
  /** All vectors are masked, whatever their own mask bits say. */
  readonly functionMask: boolean;
}

/** The registers whose changes are effects. */
interface Snapshot {
  readonly command: number;
  /** Addresses of the declared BARs, by index. */
  readonly bars: ReadonlyMap<number, number>;
  readonly msi: MsiState | undefined;
  readonly msix: MsixState | undefined;
  readonly power: number;
}

/** The configuration space of a device that we serve: what the client reads, and what its writes change. */
export class ConfigSpace {
  readonly #image: ConfigImage;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  /** Indexes of the BARs that are declared. */
  readonly #bars: ReadonlySet<number>;

  /** @throws TypeError or RangeError for a key that is not known or is missing, and for values that contradict each other */
  constructor(declaration: ConfigSpaceDeclaration) {
    checkDeclaration(declaration);
    this.#image = buildConfigImage(declaration);
    this.#bars = new Set(declaredBars(declaration.bars ?? {}).map(([index]) => index));
    this.#bytes = this.#image.bytes.slice();
    this.#view = new DataView(this.#bytes.buffer);
  }

  /** Bytes of the configuration space, 256 or 4096. */
  get size(): number {
    return this.#bytes.byteLength;
  }

  /** Command register, see `PciCommand`. */
  get command(): number {
    return this.#view.getUint16(PciConfig.command, true);
  }

  /** MSI as the client set it; undefined when the device has no such capability. */
  get msi(): MsiState | undefined {
    if (this.#image.msi === undefined) return undefined;
    const control = this.#msiControl();
    const mask = this.#msiMask();
    return {
      enabled: (control & MsiControl.enable) !== 0,
      vectors: 2 ** ((control & MsiControl.messages) >>> 4),
      mask: mask === undefined ? 0 : this.#view.getUint32(mask, true),
    };
  }

  /** MSI-X as the client set it; undefined when the device has no such capability. */
  get msix(): MsixState | undefined {
    if (this.#image.msix === undefined) return undefined;
    const control = this.#view.getUint16(this.#image.msix + 2, true);
    return {
      enabled: (control & MsixControl.enable) !== 0,
      functionMask: (control & MsixControl.functionMask) !== 0,
    };
  }

  /** Power state: 0 for D0, 3 for D3hot. */
  get powerState(): number {
    const offset = this.#image.powerManagement;
    return offset === undefined ? 0 : this.#view.getUint8(offset + 4) & 3;
  }

  /**
   * Address that the client gave a BAR; undefined when the device lacks it.
   *
   * @param index 0 to 5
   */
  barAddress(index: number): number | undefined {
    return this.#barAddresses().get(index);
  }

  /**
   * Copies bytes.
   *
   * @param into where to; by default a new array
   * @returns `into`
   * @throws RangeError when the range is not within the space
   */
  read(offset: number, length: number, into: Uint8Array = new Uint8Array(length)): Uint8Array {
    this.#check(offset, length);
    into.set(this.#bytes.subarray(offset, offset + length));
    return into;
  }

  /**
   * Applies a write of the client: bits that are read-only keep their value.
   *
   * @returns what changed, in the order in which a device should act
   * @throws RangeError when the range is not within the space
   */
  write(offset: number, data: Uint8Array): ConfigEffect[] {
    this.#check(offset, data.byteLength);
    const before = this.#snapshot();
    const { writable, clearable } = this.#image;
    data.forEach((value, i) => {
      const at = offset + i;
      const mask = writable[at] as number;
      const kept = (this.#bytes[at] as number) & ~mask;
      this.#bytes[at] = (kept | (value & mask)) & ~(value & (clearable[at] as number));
    });
    this.#refusePowerState(before.power);
    this.#limitMessages();
    const effects = this.#changes(before);
    if (this.#asksForReset(offset, data)) effects.push({ kind: 'function-level-reset' });
    return effects;
  }

  /** Sets the Interrupt Status bit, which tells the state of INTx also while it is disabled (PCI 3.0, 6.2.3). */
  setInterruptStatus(pending: boolean): void {
    const status = this.#view.getUint16(PciConfig.status, true);
    const others = status & ~PciStatus.interrupt;
    this.#view.setUint16(PciConfig.status, pending ? others | PciStatus.interrupt : others, true);
  }

  /**
   * Sets the pending bit of a masked MSI vector (PCI Express base 5.0, 7.7.1.8). Does nothing without per-vector masking.
   *
   * @throws RangeError when there is no such vector
   */
  setMsiPending(vector: number, pending: boolean): void {
    const mask = this.#msiMask();
    if (mask === undefined) return;
    const vectors = 2 ** ((this.#msiControl() & MsiControl.capable) >>> 1);
    if (!Number.isInteger(vector) || vector < 0 || vector >= vectors)
      throw outOfRange(`There is no MSI vector ${vector}; the device has ${vectors}, from 0 on`);
    const others = this.#view.getUint32(mask + 4, true) & ~(1 << vector);
    this.#view.setUint32(mask + 4, pending ? others | (1 << vector) : others, true);
  }

  /** Puts every register back to its value after power-on. */
  reset(): void {
    this.#bytes.set(this.#image.bytes);
  }

  #check(offset: number, length: number): void {
    if (
      !Number.isInteger(offset) ||
      !Number.isInteger(length) ||
      offset < 0 ||
      length < 0 ||
      offset + length > this.size
    ) {
      throw outOfRange(
        `${length} bytes at ${offset} are not within the ${this.size} bytes of configuration space`,
      );
    }
  }

  #msiControl(): number {
    const offset = this.#image.msi;
    return offset === undefined ? 0 : this.#view.getUint16(offset + 2, true);
  }

  /** Offset of the mask of MSI, which the pending bits follow. */
  #msiMask(): number | undefined {
    const offset = this.#image.msi;
    const control = this.#msiControl();
    if (offset === undefined || (control & MsiControl.perVectorMasking) === 0) return undefined;
    return offset + ((control & MsiControl.address64) !== 0 ? 0x10 : 0x0c);
  }

  #barAddresses(): ReadonlyMap<number, number> {
    const { bars } = parseConfigHeader(this.#bytes);
    return new Map(
      bars.filter(({ index }) => this.#bars.has(index)).map(({ index, address }) => [index, address]),
    );
  }

  #snapshot(): Snapshot {
    return {
      command: this.command,
      bars: this.#barAddresses(),
      msi: this.msi,
      msix: this.msix,
      power: this.powerState,
    };
  }

  /** D1 and D2 are not offered; a write of a state that is not offered is dropped (PCI PM 1.2, 3.2.4). */
  #refusePowerState(previous: number): void {
    const offset = this.#image.powerManagement;
    const state = this.powerState;
    if (offset === undefined || (state !== 1 && state !== 2)) return;
    this.#view.setUint8(offset + 4, (this.#view.getUint8(offset + 4) & ~3) | previous);
  }

  /** More vectors than the device has are not enabled: it gets as many as it has, as QEMU does. */
  #limitMessages(): void {
    const offset = this.#image.msi;
    const control = this.#msiControl();
    const [capable, enabled] = [(control & MsiControl.capable) >>> 1, (control & MsiControl.messages) >>> 4];
    if (offset === undefined || enabled <= capable) return;
    this.#view.setUint16(offset + 2, (control & ~MsiControl.messages) | (capable << 4), true);
  }

  #changes(before: Snapshot): ConfigEffect[] {
    const effects: ConfigEffect[] = [];
    const after = this.#snapshot();
    if (after.power !== before.power) {
      effects.push({ kind: 'power', state: after.power, previous: before.power });
    }
    for (const [index, address] of after.bars) {
      if (address !== before.bars.get(index)) effects.push({ kind: 'bar', index, address });
    }
    if (after.msi !== undefined && !isDeepStrictEqual(after.msi, before.msi))
      effects.push({ kind: 'msi', ...after.msi });
    if (after.msix !== undefined && !isDeepStrictEqual(after.msix, before.msix))
      effects.push({ kind: 'msix', ...after.msix });
    if (after.command !== before.command) {
      effects.push({ kind: 'command', value: after.command, previous: before.command });
    }
    return effects;
  }

  /** Initiate Function Level Reset is bit 15 of Device Control; it reads 0 (PCI Express base 5.0, 7.5.3.4). */
  #asksForReset(offset: number, data: Uint8Array): boolean {
    const express = this.#image.express;
    if (express === undefined || (this.#view.getUint32(express + 4, true) & 0x1000_0000) === 0) return false;
    return ((data[express + 9 - offset] ?? 0) & 0x80) !== 0;
  }
}
