// SPDX-License-Identifier: MIT
import { inspect } from 'node:util';
import { invalidArgument } from '../errors';

/** The keys of a declaration, and which of them it must have. The compiler holds the table to the type. */
export type Keys<T> = { readonly [K in keyof T]-?: undefined extends T[K] ? 'optional' : 'required' };

/** The keys of each kind of a declaration that is told apart by its `kind`. */
export type KeysByKind<T extends { readonly kind: string }> = {
  readonly [K in T['kind']]: T extends unknown ? (K extends T['kind'] ? Keys<T> : never) : never;
};

/** Any {@link Keys}. */
export type KeyTable = Readonly<Record<string, 'optional' | 'required'>>;

/**
 * Refuses a declaration with a key that is not known, or without one that it needs: JavaScript has no compiler that would
 * tell of a mistyped key, which would be ignored silently. An instance of a class may have members of its own.
 *
 * @param where for the message
 * @throws TypeError ERR_INVALID_ARG_VALUE
 */
export function checkKeys(where: string, value: object, keys: KeyTable): void {
  const given = asRecord(where, value);
  const known = Object.keys(keys);
  const unknown = isLiteral(value) ? Object.keys(given).find((key) => !known.includes(key)) : undefined;
  if (unknown !== undefined)
    throw invalidArgument(`${where}: unknown key "${unknown}"; known are ${known.join(', ')}`);
  const missing = known.find((key) => keys[key] === 'required' && given[key] === undefined);
  if (missing !== undefined)
    throw invalidArgument(`${where}: the key "${missing}" is missing; known are ${known.join(', ')}`);
}

/**
 * Checks the `kind` of a declaration, then its keys.
 *
 * @param where for the message
 * @throws TypeError ERR_INVALID_ARG_VALUE
 */
export function checkKind(where: string, value: object, kinds: Readonly<Record<string, KeyTable>>): void {
  const { kind } = asRecord(where, value);
  const keys = typeof kind === 'string' && Object.hasOwn(kinds, kind) ? kinds[kind] : undefined;
  if (keys === undefined) {
    const known = Object.keys(kinds).map((name) => `"${name}"`);
    throw invalidArgument(`${where}: kind is ${inspect(kind)}; it is one of ${known.join(', ')}`);
  }
  checkKeys(`${where}, kind ${inspect(kind)}`, value, keys);
}

function asRecord(where: string, value: unknown): Record<string, unknown> {
  if (typeof value !== 'object' || value === null)
    throw invalidArgument(`${where}: ${inspect(value)} is no object`);
  return value as Record<string, unknown>;
}

/** Whether it is written as `{ … }`, in whatever realm. */
function isLiteral(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}
