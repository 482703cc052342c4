// SPDX-License-Identifier: MIT
/** The files with which a folder of namespaces tells of itself, see `namespace-folder.ts`. */
import { invalidArgument } from '../../errors';
import type { StoredNamespace } from './namespace-store';

/** Names the format of the folder, so that another one is told from it. */
const FORMAT = 'vfio-user namespaces 1';

/** What a folder is as a whole. */
export interface FolderRecord {
  /** What the folder is known by, wherever it lies. */
  readonly uuid: string;
  /** Bytes of all namespaces together. */
  readonly capacity: number;
}

/** A namespace with the bytes of its data. */
export type NamespaceRecord = Omit<StoredNamespace, 'backend'> & { readonly size: number };

/** Until a namespace is made, and from when it is deleted on, nobody was told of it, and what is there of it is rubbish. */
export const RUBBISH = 'rubbish';

/** The text of a folder's file. */
export function folderText({ uuid, capacity }: FolderRecord): string {
  return textOf({ format: FORMAT, uuid, capacity });
}

/** The text of a namespace's file. */
export function namespaceText(record: NamespaceRecord | typeof RUBBISH): string {
  return textOf(record === RUBBISH ? { rubbish: true } : record);
}

function textOf(value: object): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}

/**
 * Reads a folder's file.
 *
 * @throws TypeError that names the file when it is something else
 */
export function parseFolder(path: string, text: string): FolderRecord {
  const { format, uuid, capacity } = parseObject(path, text);
  if (format !== FORMAT) throw wrong(path, `it is not of a folder of namespaces that this version knows`);
  check(path, 'uuid', isDigits(uuid, 32));
  check(path, 'capacity', isSize(capacity));
  return { uuid, capacity } as FolderRecord;
}

/**
 * Reads a namespace's file.
 *
 * @throws TypeError that names the file and what is wrong in it
 */
export function parseNamespace(path: string, text: string): NamespaceRecord | typeof RUBBISH {
  const found = parseObject(path, text);
  if (found['rubbish'] === true) return RUBBISH;
  const { nsid, size, blockSize, attached, uuid, nguid, eui64 } = found;
  check(path, 'nsid', Number.isInteger(nsid) && (nsid as number) > 0);
  check(path, 'size', isSize(size));
  check(path, 'blockSize', blockSize === 512 || blockSize === 4096);
  check(path, 'attached', typeof attached === 'boolean');
  check(path, 'uuid', isDigits(uuid, 32));
  check(path, 'nguid', isDigits(nguid, 32));
  check(path, 'eui64', isDigits(eui64, 16));
  return { nsid, size, blockSize, attached, uuid, nguid, eui64 } as NamespaceRecord;
}

function parseObject(path: string, text: string): Partial<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null) return value;
  } catch {
    // Told below, as any other text that is no object.
  }
  throw wrong(path, 'it is no JSON of an object');
}

function check(path: string, key: string, isRight: boolean): void {
  if (!isRight) throw wrong(path, `its ${key} is missing or makes no sense`);
}

function isSize(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 512;
}

function isDigits(value: unknown, count: number): boolean {
  return typeof value === 'string' && new RegExp(`^[0-9a-f]{${count}}$`).test(value.replaceAll('-', ''));
}

/** @param problem what is wrong with the file */
export function wrong(path: string, problem: string): TypeError {
  return invalidArgument(`${path} cannot be used: ${problem}`);
}
