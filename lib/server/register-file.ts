// SPDX-License-Identifier: MIT
import { inspect } from 'node:util';
import { invalidArgument, outOfRange } from '../errors';
import { checkKeys, type Keys } from '../pci/check-keys';
import { CommandError, Errno } from '../transport';
import type { ServedRegion } from './device-model';
import { after, type Eventually } from './model-calls';

/** What every register declares, with values of its width: bigint for 64 bits, number for fewer. */
export interface RegisterOf<Width extends number, Value> {
  /** In bytes from the start of the region, a multiple of the register's bytes. */
  readonly offset: number;
  /** In bits. */
  readonly width: Width;
  /** Value after a reset. Default 0. */
  readonly reset?: Value;
  /** Bits that take what is written. Default none. */
  readonly writable?: Value;
  /** Bits that a written 1 clears. Default none. */
  readonly clearable?: Value;
  /**
   * What is read, in place of the value that is stored; bits beyond the width do not count. Called once for each access, also one of a
   * part of the register.
   */
  readonly read?: () => Value;
  /**
   * Called after a write.
   *
   * @param value what is stored now
   * @param written what was written; bytes that the access did not reach are 0
   */
  readonly write?: (value: Value, written: Value) => void | Promise<void>;
}

/** A register of a {@link RegisterFile}. */
export type RegisterDeclaration = RegisterOf<8 | 16 | 32, number> | RegisterOf<64, bigint>;

/** What a {@link RegisterFile} is made of. */
export interface RegisterFileDeclaration<Registers> {
  /** Bytes of the region, 1 to 2^53 - 1. */
  readonly size: number;
  /** Bytes of accesses that are taken, each aligned to its size; others get EINVAL. Default: all accesses. */
  readonly accesses?: readonly (1 | 2 | 4 | 8)[];
  /** The registers, by names of the caller's choice, within the first 16 MiB. What lies between them reads 0, and takes no writes. */
  readonly registers: Registers;
}

/** Value of a register: bigint for one of 64 bits, number for others. */
export type RegisterValue<Register extends RegisterDeclaration> = Register['width'] extends 64
  ? bigint
  : number;

/** A register that was declared, with its name for messages. */
interface NamedRegister {
  readonly name: string;
  readonly register: RegisterDeclaration;
}

const WIDTHS: readonly number[] = [8, 16, 32, 64];
const ACCESSES: readonly unknown[] = [1, 2, 4, 8];
/** Registers lie below: each byte up to the last one takes some memory. */
const MOST_BYTES = 2 ** 24;

const FILE: Keys<RegisterFileDeclaration<object>> = {
  size: 'required',
  accesses: 'optional',
  registers: 'required',
};
const REGISTER: Keys<RegisterOf<number, number>> = {
  offset: 'required',
  width: 'required',
  reset: 'optional',
  writable: 'optional',
  clearable: 'optional',
  read: 'optional',
  write: 'optional',
};

/**
 * The registers of a region, little-endian, declared in one place: where they are, which bits can be written, and what a device does
 * then. An access may reach a part of a register, or several.
 *
 * @example
 * const registers = new RegisterFile({
 *   size: 0x1000,
 *   registers: {
 *     status: { offset: 0x00, width: 32, clearable: 0xff, write: () => this.update() },
 *     address: { offset: 0x08, width: 64, writable: ~0n },
 *   },
 * });
 * const pci = { vendorId, deviceId, classCode, bars: { 0: { kind: 'memory32', ...registers.region } } };
 * registers.set('status', registers.get('status') | 1);
 */
export class RegisterFile<const Registers extends Readonly<Record<string, RegisterDeclaration>>> {
  /** The region, for a BAR or another region of a device model. */
  readonly region: Pick<ServedRegion, 'size'> & Required<Pick<ServedRegion, 'read' | 'write'>>;
  readonly #byName = new Map<string, NamedRegister>();
  /** The register that each byte belongs to. */
  readonly #byOffset: (NamedRegister | undefined)[] = [];
  readonly #accesses: readonly number[] | undefined;
  readonly #initial: Uint8Array;
  readonly #writable: Uint8Array;
  readonly #clearable: Uint8Array;
  readonly #bytes: Uint8Array;
  /** {@link #bytes} as numbers. */
  readonly #values: DataView;
  /** One register, on its way to or from an access, as bytes and as a number. */
  readonly #part = new Uint8Array(8);
  readonly #partValue = new DataView(this.#part.buffer);

  /**
   * @throws TypeError or RangeError for registers that overlap, are not aligned, lie outside, or have values beyond their width; for
   *   accesses of other sizes than 1, 2, 4 and 8 bytes; and for keys that are not known
   */
  constructor(declaration: RegisterFileDeclaration<Registers>) {
    checkKeys('register file', declaration, FILE);
    const { size, accesses, registers } = declaration;
    if (!Number.isSafeInteger(size) || size < 1)
      throw outOfRange(`register file: size is ${inspect(size)}; it is a number of bytes from 1 to 2^53 - 1`);
    checkAccesses(accesses);
    for (const [name, register] of Object.entries(registers)) this.#enter(name, register, size);
    this.#accesses = accesses;
    const end = this.#byOffset.length;
    const [initial, writable, clearable] = [new Uint8Array(end), new Uint8Array(end), new Uint8Array(end)];
    for (const { name, register } of this.#byName.values()) {
      const { offset, width } = register;
      for (const [key, bytes] of [
        ['reset', initial],
        ['writable', writable],
        ['clearable', clearable],
      ] as const) {
        const value = fitting(register[key] ?? 0, width, `register ${name}: ${key}`);
        store(new DataView(bytes.buffer), offset, width, value);
      }
    }
    this.#initial = initial;
    this.#writable = writable;
    this.#clearable = clearable;
    this.#bytes = initial.slice();
    this.#values = new DataView(this.#bytes.buffer);
    this.region = {
      size,
      read: (offset, data) => {
        this.#read(offset, data);
      },
      write: (offset, data) => this.#write(offset, data),
    };
  }

  /** The value that is stored in a register, whatever its `read` tells. */
  get<Name extends keyof Registers & string>(name: Name): RegisterValue<Registers[Name]> {
    const { offset, width } = this.#register(name);
    return load(this.#values, offset, width) as RegisterValue<Registers[Name]>;
  }

  /**
   * Stores a value, for the device: all bits change, and `write` is not called.
   *
   * @throws RangeError for a value beyond the width
   */
  set<Name extends keyof Registers & string>(name: Name, value: RegisterValue<Registers[Name]>): void {
    const { offset, width } = this.#register(name);
    store(this.#values, offset, width, fitting(value, width, `register ${name}: the value`));
  }

  /** Puts all registers back to their values after a reset, without a call of `write`. */
  reset(): void {
    this.#bytes.set(this.#initial);
  }

  #enter(name: string, register: RegisterDeclaration, size: number): void {
    const where = `register ${name}`;
    checkKeys(where, register, REGISTER);
    const { offset, width } = register;
    if (!WIDTHS.includes(width))
      throw invalidArgument(`${where}: width is ${inspect(width)}; it is one of ${WIDTHS.join(', ')} bits`);
    const bytes = width / 8;
    if (!Number.isSafeInteger(offset) || offset < 0 || offset % bytes !== 0)
      throw outOfRange(`${where}: offset is ${inspect(offset)}; it is a multiple of its ${bytes} bytes`);
    if (offset + bytes > Math.min(size, MOST_BYTES)) {
      const most =
        size < MOST_BYTES ? `the ${size} bytes of the region` : 'the first 16 MiB, where registers lie';
      throw outOfRange(`${where}: its ${bytes} bytes at ${hex(offset)} are not within ${most}`);
    }
    for (let at = offset; at < offset + bytes; at++) {
      const other = this.#byOffset[at];
      if (other !== undefined) {
        const there = `register ${other.name}, ${other.register.width / 8} bytes at ${hex(other.register.offset)}`;
        throw invalidArgument(`${where}: its ${bytes} bytes at ${hex(offset)} overlap ${there}`);
      }
    }
    const named = { name, register };
    this.#byOffset.length = Math.max(this.#byOffset.length, offset + bytes);
    this.#byOffset.fill(named, offset, offset + bytes);
    this.#byName.set(name, named);
  }

  #register(name: string): RegisterDeclaration {
    const named = this.#byName.get(name);
    if (named !== undefined) return named.register;
    throw invalidArgument(`there is no register ${name}; there are ${[...this.#byName.keys()].join(', ')}`);
  }

  #check(offset: number, length: number): void {
    if (this.#accesses === undefined) return;
    if (this.#accesses.includes(length) && offset % length === 0) return;
    throw new CommandError(
      Errno.EINVAL,
      `registers are accessed by ${this.#accesses.join(' or ')} aligned bytes, not by ${length} at 0x${offset.toString(16)}`,
    );
  }

  #read(offset: number, data: Uint8Array): void {
    this.#check(offset, data.byteLength);
    this.#visit(offset, data.byteLength, ({ name, register }, from, to) => {
      const { offset: first, width, read } = register;
      if (read === undefined) data.set(this.#bytes.subarray(from, to), from - offset);
      else {
        store(this.#partValue, 0, width, bitsOf(read(), width, `register ${name}: what read returned`));
        data.set(this.#part.subarray(from - first, to - first), from - offset);
      }
    });
  }

  #write(offset: number, data: Uint8Array): Eventually<void> {
    this.#check(offset, data.byteLength);
    const bytes = this.#bytes;
    let done: Eventually<void> = undefined;
    this.#visit(offset, data.byteLength, ({ register }, from, to) => {
      this.#part.fill(0);
      for (let at = from; at < to; at++) {
        const written = data[at - offset] as number;
        const mask = this.#writable[at] as number;
        const merged = ((bytes[at] as number) & ~mask) | (written & mask);
        bytes[at] = merged & ~(written & (this.#clearable[at] as number));
        this.#part[at - register.offset] = written;
      }
      if (register.write === undefined) return;
      const { width } = register;
      const written = load(this.#partValue, 0, width);
      const write = register.write as (
        value: number | bigint,
        written: number | bigint,
      ) => void | Promise<void>;
      done = after(done, () => write(load(this.#values, register.offset, width), written));
    });
    return done;
  }

  /** Calls `visit` for each register that bytes belong to, with the first of them and the one behind the last. */
  #visit(
    offset: number,
    length: number,
    visit: (named: NamedRegister, from: number, to: number) => void,
  ): void {
    const end = Math.min(offset + length, this.#byOffset.length);
    for (let at = offset; at < end;) {
      const named = this.#byOffset[at];
      if (named === undefined) {
        at++;
        continue;
      }
      const to = Math.min(end, named.register.offset + named.register.width / 8);
      visit(named, at, to);
      at = to;
    }
  }
}

/** @throws TypeError or RangeError for anything but a list of sizes of accesses */
function checkAccesses(accesses: unknown): void {
  if (accesses === undefined) return;
  if (Array.isArray(accesses) && accesses.length > 0 && accesses.every((bytes) => ACCESSES.includes(bytes)))
    return;
  throw invalidArgument(
    `register file: accesses is ${inspect(accesses)}; it is a list of some of 1, 2, 4 and 8`,
  );
}

/** @throws RangeError when a value has bits beyond the width. Negative numbers stand for their two's complement, such as ~0n */
function fitting(value: unknown, width: number, what: string): bigint {
  const bits = bitsOf(value, width, what);
  if (BigInt(value as number) === bits || BigInt(value as number) === BigInt.asIntN(width, bits)) return bits;
  throw noValue(value, width, what);
}

/** @throws RangeError when a value is no integer */
function bitsOf(value: unknown, width: number, what: string): bigint {
  if (typeof value !== 'bigint' && !Number.isSafeInteger(value)) throw noValue(value, width, what);
  return BigInt.asUintN(width, BigInt(value as number));
}

function noValue(value: unknown, width: number, what: string): RangeError {
  return outOfRange(`${what} is ${inspect(value)}; it is an integer of ${width} bits`);
}

function hex(offset: number): string {
  return `0x${offset.toString(16)}`;
}

function load(view: DataView, offset: number, width: number): number | bigint {
  if (width === 64) return view.getBigUint64(offset, true);
  if (width === 32) return view.getUint32(offset, true);
  return width === 16 ? view.getUint16(offset, true) : view.getUint8(offset);
}

function store(view: DataView, offset: number, width: number, value: bigint): void {
  if (width === 64) view.setBigUint64(offset, value, true);
  else if (width === 32) view.setUint32(offset, Number(value), true);
  else if (width === 16) view.setUint16(offset, Number(value), true);
  else view.setUint8(offset, Number(value));
}
