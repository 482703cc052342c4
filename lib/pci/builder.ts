// SPDX-License-Identifier: MIT
import { outOfRange } from '../errors';
import { MsiControl } from './capabilities';
import { type ConfigImage, buildConfigImage } from './config-image';
import { parseConfigHeader, PciConfig, PciStatus } from './config-space';
import type { BarDeclaration, ConfigSpaceDeclaration } from './declaration';

/** What a write to configuration space asks of the device. Only changes are told. */
export type ConfigEffect =
  /** The command register changed; see `PciCommand`. */
  | { readonly kind: 'command'; readonly value: number; readonly previous: number }
  /** A BAR was moved, or is being sized. */
  | { readonly kind: 'bar'; readonly index: number; readonly address: number }
  /** MSI was enabled or disabled, or its number of vectors or its mask changed. */
  | ({ readonly kind: 'msi' } & MsiState)
  | { readonly kind: 'msix'; readonly enabled: boolean; readonly functionMask: boolean }
  /** The power state changed, 0 for D0 and 3 for D3hot. */
  | { readonly kind: 'power'; readonly state: number; readonly previous: number }
  /** A function level reset was asked for. The device resets itself, and calls {@link ConfigSpace.reset}. */
  | { readonly kind: 'function-level-reset' };

/** MSI as the client set it. */
export interface MsiState {
  readonly enabled: boolean;
  /** Vectors that the device may use: a power of two, up to those that it declared. */
  readonly vectors: number;
  /** Masked vectors, one bit each; 0 without per-vector masking. */
  readonly mask: number;
}

interface Snapshot {
  readonly command: number;
  readonly bars: readonly (number | undefined)[];
  readonly msi: MsiState | undefined;
  readonly msix: number;
  readonly power: number;
}

/** The configuration space of a device that we serve: what the client reads, and what its writes change. */
export class ConfigSpace {
  readonly #image: ConfigImage;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #bars: readonly (BarDeclaration | undefined)[];

  /** @throws TypeError or RangeError when the declaration contradicts itself */
  constructor(declaration: ConfigSpaceDeclaration) {
    this.#image = buildConfigImage(declaration);
    this.#bars = declaration.bars ?? [];
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
  get msix(): { readonly enabled: boolean; readonly functionMask: boolean } | undefined {
    return this.#image.msix === undefined ? undefined : decodeMsix(this.#msixControl());
  }

  /** Power state, 0 for D0 to 3 for D3hot. */
  get powerState(): number {
    const offset = this.#image.powerManagement;
    return offset === undefined ? 0 : this.#view.getUint8(offset + 4) & 3;
  }

  /** Address that the client gave a BAR; undefined when the device lacks it. */
  barAddress(index: number): number | undefined {
    if (this.#bars[index] === undefined) return undefined;
    return parseConfigHeader(this.#bytes).bars.find((bar) => bar.index === index)?.address;
  }

  /**
   * Copies bytes.
   * @param into where to; by default a new array
   * @throws RangeError when the range is not within the space
   */
  read(offset: number, length: number, into = new Uint8Array(length)): Uint8Array {
    this.#check(offset, length);
    into.set(this.#bytes.subarray(offset, offset + length));
    return into;
  }

  /**
   * Applies a write of the client's: bits that are read-only keep their value.
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
      throw outOfRange(`MSI vector ${vector} of ${vectors}`);
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

  #msixControl(): number {
    const offset = this.#image.msix;
    return offset === undefined ? 0 : this.#view.getUint16(offset + 2, true);
  }

  #snapshot(): Snapshot {
    return {
      command: this.command,
      bars: this.#bars.map((_, index) => this.barAddress(index)),
      msi: this.msi,
      msix: this.#msixControl(),
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
    after.bars.forEach((address, index) => {
      if (address !== undefined && address !== before.bars[index])
        effects.push({ kind: 'bar', index, address });
    });
    if (after.msi !== undefined && !sameMsi(after.msi, before.msi))
      effects.push({ kind: 'msi', ...after.msi });
    if (after.msix !== before.msix) effects.push({ kind: 'msix', ...decodeMsix(after.msix) });
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

function decodeMsix(control: number): { enabled: boolean; functionMask: boolean } {
  return { enabled: (control & 0x8000) !== 0, functionMask: (control & 0x4000) !== 0 };
}

function sameMsi(a: MsiState, b: MsiState | undefined): boolean {
  return a.enabled === b?.enabled && a.vectors === b.vectors && a.mask === b.mask;
}
