// SPDX-License-Identifier: MIT
import { Xoshiro128 } from '../../random';
import {
  type AsynchronousBackend,
  type Backend,
  type BackendProperties,
  BackendResult,
  type SynchronousBackend,
} from '../backends';
import type { DataAction } from '../faults';

/** The bytes of a backend that a command is about. */
export interface Extent {
  readonly offset: number;
  readonly length: number;
}

/**
 * A backend as one command sees it whose data a fault damages on its way.
 * @param extent the bytes that the command is about
 * @param blockSize bytes of a logical block
 * @param seed what random numbers follow from
 */
export function faultyBackend(
  backend: Backend,
  action: DataAction,
  extent: Extent,
  blockSize: number,
  seed: number,
): Backend {
  const damage =
    action.kind === 'flip'
      ? new Damage(Infinity, flippedBits(extent, action.bits, seed))
      : new Damage(extent.offset + action.blocks * blockSize, []);
  return backend.asynchronous === true
    ? new FaultyAsynchronousBackend(backend, damage)
    : new FaultySynchronousBackend(backend, damage);
}

/** Places of bits, each once, by their distance from the first bit of the backend. */
function flippedBits({ offset, length }: Extent, count: number, seed: number): number[] {
  const bits = length * 8;
  const random = Xoshiro128.fromSeed(seed);
  const places = new Set<number>();
  while (places.size < Math.min(count, bits)) places.add(offset * 8 + random.below(bits));
  return [...places];
}

/** What becomes of the data of one command. */
class Damage {
  /** No byte of a write from this offset on lands. */
  readonly #end: number;
  readonly #flipped: readonly number[];

  constructor(end: number, flipped: readonly number[]) {
    this.#end = end;
    this.#flipped = flipped;
  }

  /** How many bytes of a write land. */
  landing(offset: number, length: number): number {
    return Math.max(0, Math.min(length, this.#end - offset));
  }

  /** Inverts the bits among `length` bytes that belong at `offset` of the backend. */
  flip(bytes: Uint8Array, at: number, offset: number, length: number): void {
    for (const bit of this.#flipped) {
      const index = Math.floor(bit / 8) - offset;
      if (index >= 0 && index < length) bytes[at + index] = (bytes[at + index] as number) ^ (1 << (bit % 8));
    }
  }

  /** What is written in place of `source`. */
  written(source: Uint8Array, at: number, offset: number, length: number): Uint8Array {
    const data = source.slice(at, at + length);
    this.flip(data, 0, offset, length);
    return data;
  }
}

/** What both forms have in common: they tell what the backend tells, and flush it. */
abstract class FaultyBackend<B extends BackendProperties> {
  protected readonly backend: B;
  protected readonly damage: Damage;

  constructor(backend: B, damage: Damage) {
    this.backend = backend;
    this.damage = damage;
  }

  get kind(): string {
    return this.backend.kind;
  }

  get size(): number {
    return this.backend.size;
  }

  get volatileCache(): boolean {
    return this.backend.volatileCache;
  }

  flush(): Promise<void> {
    return this.backend.flush();
  }

  close(): void {
    // The backend belongs to the namespace.
  }
}

class FaultySynchronousBackend extends FaultyBackend<SynchronousBackend> implements SynchronousBackend {
  read(offset: number, target: Uint8Array, at: number, length: number): BackendResult {
    const result = this.backend.read(offset, target, at, length);
    this.damage.flip(target, at, offset, length);
    return result;
  }

  write(offset: number, source: Uint8Array, at: number, length: number): BackendResult {
    const landing = this.damage.landing(offset, length);
    if (landing === 0) return BackendResult.success;
    return this.backend.write(offset, this.damage.written(source, at, offset, landing), 0, landing);
  }

  zero(offset: number, length: number, deallocate: boolean): BackendResult {
    const landing = this.damage.landing(offset, length);
    return landing === 0 ? BackendResult.success : this.backend.zero(offset, landing, deallocate);
  }

  deallocate(offset: number, length: number): BackendResult {
    return this.backend.deallocate(offset, length);
  }
}

class FaultyAsynchronousBackend extends FaultyBackend<AsynchronousBackend> implements AsynchronousBackend {
  readonly asynchronous = true;

  async read(offset: number, target: Uint8Array, at: number, length: number): Promise<BackendResult> {
    const result = await this.backend.read(offset, target, at, length);
    this.damage.flip(target, at, offset, length);
    return result;
  }

  async write(offset: number, source: Uint8Array, at: number, length: number): Promise<BackendResult> {
    const landing = this.damage.landing(offset, length);
    if (landing === 0) return BackendResult.success;
    return this.backend.write(offset, this.damage.written(source, at, offset, landing), 0, landing);
  }

  async zero(offset: number, length: number, deallocate: boolean): Promise<BackendResult> {
    const landing = this.damage.landing(offset, length);
    return landing === 0 ? BackendResult.success : this.backend.zero(offset, landing, deallocate);
  }

  deallocate(offset: number, length: number): Promise<BackendResult> {
    return this.backend.deallocate(offset, length);
  }
}
