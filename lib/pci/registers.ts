// SPDX-License-Identifier: MIT
import { outOfRange } from '../errors';

/** Width of a register in bytes. */
export type RegisterWidth = 1 | 2 | 4 | 8;

/**
 * Registers of a device. Each access is a single one of the register's width, at its natural alignment; offsets are in bytes.
 * Values are unsigned: a `number` up to 32 bits, a `bigint` for 64. The `…Sync` forms block the thread.
 *
 * All methods fail with `ERR_OUT_OF_RANGE` when the register is not within the region or `value` does not fit into it, with
 * `ERR_INVALID_ARG_VALUE` when `offset` is not a multiple of the width, and with a `VfioUserError` when the device refuses or
 * does not answer.
 */
export interface Registers {
  /** Reads a register of 8 bits. */
  read8(offset: number): Promise<number>;
  /** Reads a register of 16 bits. */
  read16(offset: number): Promise<number>;
  /** Reads a register of 32 bits. */
  read32(offset: number): Promise<number>;
  /** Reads a register of 64 bits. */
  read64(offset: number): Promise<bigint>;
  /** Writes a register of 8 bits. */
  write8(offset: number, value: number): Promise<void>;
  /** Writes a register of 16 bits. */
  write16(offset: number, value: number): Promise<void>;
  /** Writes a register of 32 bits. */
  write32(offset: number, value: number): Promise<void>;
  /** Writes a register of 64 bits. */
  write64(offset: number, value: bigint): Promise<void>;
  /** Reads a register of 8 bits, blocking. */
  read8Sync(offset: number): number;
  /** Reads a register of 16 bits, blocking. */
  read16Sync(offset: number): number;
  /** Reads a register of 32 bits, blocking. */
  read32Sync(offset: number): number;
  /** Reads a register of 64 bits, blocking. */
  read64Sync(offset: number): bigint;
  /** Writes a register of 8 bits, blocking. */
  write8Sync(offset: number, value: number): void;
  /** Writes a register of 16 bits, blocking. */
  write16Sync(offset: number, value: number): void;
  /** Writes a register of 32 bits, blocking. */
  write32Sync(offset: number, value: number): void;
  /** Writes a register of 64 bits, blocking. */
  write64Sync(offset: number, value: bigint): void;
}

/**
 * The accesses by width, made of four that move bytes. Whatever has registers extends this class, so that a region, a
 * sub-region and a device behind another transport have the same methods.
 *
 * @typeParam Options how to write
 */
export abstract class RegisterAccess<Options = never> implements Registers {
  /** Reads the bytes of a register, the lowest first. */
  protected abstract readRegister(offset: number, width: RegisterWidth): Promise<Uint8Array>;
  /** Reads the bytes of a register, the lowest first, blocking. */
  protected abstract readRegisterSync(offset: number, width: RegisterWidth): Uint8Array;
  /**
   * Writes a register.
   *
   * @param data as many bytes as the register has, the lowest first
   */
  protected abstract writeRegister(offset: number, data: Uint8Array, options?: Options): Promise<void>;
  /**
   * Writes a register, blocking.
   *
   * @param data as many bytes as the register has, the lowest first
   */
  protected abstract writeRegisterSync(offset: number, data: Uint8Array, options?: Options): void;

  async read8(offset: number): Promise<number> {
    return numberOf(await this.readRegister(offset, 1));
  }

  async read16(offset: number): Promise<number> {
    return numberOf(await this.readRegister(offset, 2));
  }

  async read32(offset: number): Promise<number> {
    return numberOf(await this.readRegister(offset, 4));
  }

  async read64(offset: number): Promise<bigint> {
    return bigintOf(await this.readRegister(offset, 8));
  }

  async write8(offset: number, value: number, options?: Options): Promise<void> {
    await this.writeRegister(offset, registerBytes(value, 1), options);
  }

  async write16(offset: number, value: number, options?: Options): Promise<void> {
    await this.writeRegister(offset, registerBytes(value, 2), options);
  }

  async write32(offset: number, value: number, options?: Options): Promise<void> {
    await this.writeRegister(offset, registerBytes(value, 4), options);
  }

  async write64(offset: number, value: bigint, options?: Options): Promise<void> {
    await this.writeRegister(offset, registerBytes(value, 8), options);
  }

  read8Sync(offset: number): number {
    return numberOf(this.readRegisterSync(offset, 1));
  }

  read16Sync(offset: number): number {
    return numberOf(this.readRegisterSync(offset, 2));
  }

  read32Sync(offset: number): number {
    return numberOf(this.readRegisterSync(offset, 4));
  }

  read64Sync(offset: number): bigint {
    return bigintOf(this.readRegisterSync(offset, 8));
  }

  write8Sync(offset: number, value: number, options?: Options): void {
    this.writeRegisterSync(offset, registerBytes(value, 1), options);
  }

  write16Sync(offset: number, value: number, options?: Options): void {
    this.writeRegisterSync(offset, registerBytes(value, 2), options);
  }

  write32Sync(offset: number, value: number, options?: Options): void {
    this.writeRegisterSync(offset, registerBytes(value, 4), options);
  }

  write64Sync(offset: number, value: bigint, options?: Options): void {
    this.writeRegisterSync(offset, registerBytes(value, 8), options);
  }
}

/** The value of a register of 1, 2 or 4 bytes, the lowest byte first. */
function numberOf(data: Uint8Array): number {
  let value = 0;
  for (let index = data.length - 1; index >= 0; index--) value = value * 256 + (data[index] as number);
  return value;
}

/** The value of a register of any width, the lowest byte first. */
export function bigintOf(data: Uint8Array): bigint {
  let value = 0n;
  for (let index = data.length - 1; index >= 0; index--)
    value = (value << 8n) | BigInt(data[index] as number);
  return value;
}

/**
 * The bytes of a register's value, the lowest first.
 *
 * @throws RangeError ERR_OUT_OF_RANGE when the register has no room for the value
 */
export function registerBytes(value: number | bigint, width: RegisterWidth): Uint8Array {
  const whole = typeof value === 'bigint' || Number.isSafeInteger(value);
  if (!whole || value < 0 || value >= 2 ** (8 * width))
    throw outOfRange(`${value} does not fit into a register of ${width} bytes`);
  const data = new Uint8Array(width);
  if (typeof value === 'bigint') {
    for (let index = 0; index < width; index++) data[index] = Number((value >> BigInt(8 * index)) & 0xffn);
  } else {
    for (let index = 0; index < width; index++) data[index] = Math.floor(value / 2 ** (8 * index)) & 0xff;
  }
  return data;
}
