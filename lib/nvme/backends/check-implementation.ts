// SPDX-License-Identifier: MIT
import { invalidArgument, outOfRange } from '../../errors';
import { isPowerOfTwo } from '../../power-of-two';
import type { Deallocation } from './backend';
import type { BackendImplementation } from './backend-implementation';

const OPTIONAL_METHODS = ['zero', 'deallocate', 'flush', 'onSizeChange', 'close'] as const;

/** Checks what nobody but the author of a backend has seen. */
export function checkImplementation(value: BackendImplementation): BackendImplementation {
  const given = value as Partial<Record<keyof BackendImplementation, unknown>> | null | undefined;
  if (typeof given !== 'object' || given === null) {
    throw invalidArgument(
      `A backend is an object with size, read and write, got ${given === null ? 'null' : typeof given}`,
    );
  }
  const { size, kind, identity, blockSize, volatileCache, deallocation } = given;
  checkedSize(size);
  for (const name of ['read', 'write', ...OPTIONAL_METHODS] as const) {
    const method = given[name];
    if (typeof method === 'function') continue;
    if (method === undefined && name !== 'read' && name !== 'write') continue;
    throw invalidArgument(
      method === undefined
        ? `A backend has no ${name}()`
        : `${name} of a backend is a method, got ${typeof method}`,
    );
  }
  for (const [name, text] of Object.entries({ kind, identity })) {
    if (text !== undefined && typeof text !== 'string') {
      throw invalidArgument(`${name} of a backend is a text, got ${typeof text}`);
    }
  }
  if (volatileCache !== undefined && typeof volatileCache !== 'boolean') {
    throw invalidArgument(`volatileCache of a backend is true or false, got ${typeof volatileCache}`);
  }
  if (blockSize !== undefined && !isPowerUpTo(blockSize, 4096)) {
    throw invalidArgument(
      `blockSize of a backend is a power of two from 1 to 4096, got ${JSON.stringify(blockSize)}`,
    );
  }
  if (deallocation !== undefined) checkDeallocation(deallocation);
  return value;
}

/** @throws TypeError or RangeError for a size that makes no sense */
export function checkedSize(size: unknown): number {
  if (typeof size !== 'number')
    throw invalidArgument(`size of a backend is a number of bytes, got ${typeof size}`);
  if (!Number.isSafeInteger(size) || size < 512) {
    throw outOfRange(`size of a backend is an integer of at least 512 bytes, got ${size}`);
  }
  return size;
}

function checkDeallocation(value: unknown): void {
  const { unit, readsZero } = (value ?? {}) as Partial<Record<keyof Deallocation, unknown>>;
  if (!isPowerUpTo(unit, 2 ** 30) || typeof readsZero !== 'boolean') {
    throw invalidArgument(
      'deallocation of a backend has unit, a power of two up to 2^30, and readsZero, true or false',
    );
  }
}

function isPowerUpTo(value: unknown, most: number): boolean {
  return typeof value === 'number' && value <= most && isPowerOfTwo(value);
}
