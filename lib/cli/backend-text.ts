// SPDX-License-Identifier: MIT
import { resolve } from 'node:path';
import { parseSize } from '../bench/units';
import type { BackendOptions } from '../nvme/backends';
import { type NbdAddress, parseNbdUri } from '../nvme/backends/nbd/uri';
import { UsageError, type OptionTable, type TableValues } from './option-spec';
import { readOption } from './option-value';
import { statOf } from './output-file';

/** Bytes of a namespace that is not told how large it is. */
const DEFAULT_SIZE = '1g';

/** Keys that backends have. */
const KEYS = {
  size: { type: 'size', min: 512, help: 'Bytes of the namespace.' },
  direct: { type: 'boolean', help: 'Bypass the page cache.' },
  timeout: { type: 'duration', min: 0.1, max: 3600, help: 'How long a request may take.' },
} as const satisfies OptionTable;

/** How a backend is written, for help and messages. */
export const BACKEND_FORM =
  'null, memory, file=PATH, a URI of NBD (nbd://, nbds://, nbd+unix://), or the path of a module (.mjs, .js), with ,KEY=VALUE behind';

/** A backend as the command line tells of it. */
export type BackendText =
  | BackendOptions
  | { readonly kind: 'nbd'; readonly address: NbdAddress; readonly timeout: number | undefined }
  | {
      /** A module that makes a backend of its own. */
      readonly kind: 'module';
      readonly path: string;
      /** What the module is given. */
      readonly options: Readonly<Record<string, string>>;
    };

/** What {@link parseBackend} may be told beside the text. */
export interface BackendTextContext {
  /** Keys that are the caller's, and are not looked at here. */
  readonly foreign?: readonly string[];
  /** Bytes of the namespace unless the text has a `size`. */
  readonly size?: number | undefined;
  /** The path of a `file` that has none. */
  readonly file?: string | undefined;
}

/** What {@link parseBackend} returns. */
export interface ParsedBackend {
  readonly backend: BackendText;
  /** The values of the foreign keys that are in the text. */
  readonly foreign: ReadonlyMap<string, string>;
}

/**
 * Reads the text of a backend: `memory,size=1g`, `file=disk.img`, `nbd=nbd://host/export`, `module=./backend.mjs,key=value`. A comma in
 * a value is written twice.
 *
 * @throws UsageError for what is wrong in it
 */
export function parseBackend(text: string, context: BackendTextContext = {}): ParsedBackend {
  const [first = ['', undefined], ...rest] = splitPairs(text);
  const values = new Map<string, string>();
  const foreign = new Map<string, string>();
  for (const [key, value = '1'] of rest) {
    const into = context.foreign?.includes(key) === true ? foreign : values;
    if (into.has(key)) throw new UsageError(`${key} comes twice in ${text}`);
    into.set(key, value);
  }
  const take = <K extends keyof typeof KEYS>(key: K): TableValues<typeof KEYS>[K] | undefined => {
    const value = values.get(key);
    values.delete(key);
    if (value === undefined) return undefined;
    return readOption(`${key} of ${text}`, KEYS[key], value) as TableValues<typeof KEYS>[K];
  };
  const backend = readBackend(text, first, take, values, context);
  const [unknown] = values.keys();
  if (unknown !== undefined)
    throw new UsageError(`${unknown} is no key of a ${backend.kind} backend: ${text}`);
  return { backend, foreign };
}

function readBackend(
  text: string,
  [name, value]: Pair,
  take: <K extends keyof typeof KEYS>(key: K) => TableValues<typeof KEYS>[K] | undefined,
  values: Map<string, string>,
  context: BackendTextContext,
): BackendText {
  const [kind, target] = expand(name, value);
  if (kind === 'module') {
    if (context.size !== undefined) throw new UsageError('The size of a module is its own; leave --size out');
    const options = Object.fromEntries(values);
    values.clear();
    return { kind, path: resolve(needed(target, 'module=PATH', text)), options };
  }
  if (kind === 'nbd') {
    const address = nbdAddress(needed(target, 'nbd=URI', text));
    if (context.size !== undefined || values.has('size')) {
      throw new UsageError(`The size of an nbd backend is that of its export; leave size out: ${text}`);
    }
    return { kind, address, timeout: take('timeout') };
  }
  const size = take('size') ?? context.size;
  if (kind === 'file') {
    const path = target ?? context.file;
    if (path === undefined || path === '') {
      throw new UsageError('The file backend needs a path: file=PATH, or --file PATH');
    }
    if (size === undefined && statOf(path) === undefined) {
      throw new UsageError(`There is no file ${path}; give its size to create it`);
    }
    return { kind, path: resolve(path), size, direct: take('direct') };
  }
  if ((kind !== 'null' && kind !== 'memory') || target !== undefined) {
    throw new UsageError(`A backend is ${BACKEND_FORM}; got ${text}`);
  }
  return { kind, size: size ?? parseSize(DEFAULT_SIZE) };
}

type Pair = readonly [key: string, value: string | undefined];

/** The pairs of `key=value` between commas; two commas are one of a value. */
function splitPairs(text: string): Pair[] {
  const items = text.match(/(?:[^,]|,,)+/g) ?? [];
  return items.map((item) => {
    const plain = item.replaceAll(',,', ',');
    // The = of a URI's query is not the one of a pair.
    const [, key, value] = /^([\w-]+)=(.*)$/s.exec(plain) ?? [];
    return key === undefined ? [plain, undefined] : [key, value];
  });
}

/** The kind that a first item means, and its value. */
function expand(name: string, value: string | undefined): readonly [string, string | undefined] {
  if (value !== undefined) return [name, value];
  if (/^nbds?(\+\w+)?:/i.test(name)) return ['nbd', name];
  return /\.[mc]?[jt]s$/.test(name) ? ['module', name] : [name, undefined];
}

function needed(value: string | undefined, form: string, text: string): string {
  if (value === undefined || value === '') throw new UsageError(`Write ${form}; got ${text}`);
  return value;
}

function nbdAddress(uri: string): NbdAddress {
  try {
    return parseNbdUri(uri);
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}
