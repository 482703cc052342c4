// SPDX-License-Identifier: MIT
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROLE_NAMES, type RoleName, type Step } from './role';

/** A session that is kept in a file. */
export interface Case {
  readonly role: RoleName;
  /** What went wrong with it, or what is interesting about it. */
  readonly note: string;
  readonly steps: readonly Step[];
}

const HEX = 'hex:';

/** A case as a file holds it: JSON, a step a line, bytes in hexadecimal. */
export function formatCase({ role, note, steps }: Case): string {
  const lines = steps.map((step) => `    ${JSON.stringify(step, toJson)}`);
  return `{\n  "role": ${JSON.stringify(role)},\n  "note": ${JSON.stringify(note)},\n  "steps": [\n${lines.join(',\n')}\n  ]\n}\n`;
}

/** @throws SyntaxError, TypeError for a text that is no case */
export function parseCase(text: string): Case {
  const value = JSON.parse(text, fromJson) as Partial<Case> | null;
  const { role, note, steps } = value ?? {};
  if (role === undefined || !ROLE_NAMES.includes(role) || typeof note !== 'string' || !Array.isArray(steps))
    throw new TypeError(`a case has a role (one of ${ROLE_NAMES.join(', ')}), a note and steps`);
  return { role, note, steps };
}

export function readCase(path: string): Case {
  try {
    return parseCase(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new Error(`${path}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
}

/** Saves a case in a directory, which is made if it is not there. Returns the path. */
export function saveCase(directory: string, name: string, one: Case): string {
  mkdirSync(directory, { recursive: true });
  const path = join(directory, `${name}.json`);
  writeFileSync(path, formatCase(one));
  return path;
}

function toJson(_key: string, value: unknown): unknown {
  if (typeof value === 'bigint') return `0x${value.toString(16)}`;
  if (!ArrayBuffer.isView(value)) return value;
  return HEX + Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('hex');
}

function fromJson(_key: string, value: unknown): unknown {
  if (typeof value !== 'string' || !value.startsWith(HEX)) return value;
  return new Uint8Array(Buffer.from(value.slice(HEX.length), 'hex'));
}
