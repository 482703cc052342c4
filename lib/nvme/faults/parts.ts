// SPDX-License-Identifier: MIT
import { didYouMean } from '../../closest';
import { invalidArgument } from '../../errors';
import type { AsyncEvent } from '../spec';
import { DELAY_FORMS, type Delay, readDelay } from './delay';
import type { BlockRange, FaultSpec } from './fault';
import {
  ADMIN_COMMANDS,
  EVENTS,
  IO_COMMANDS,
  REGISTERS,
  type RegisterRange,
  STATUSES,
  type StatusCodes,
} from './names';

/** A part of a fault as it was written. */
export interface Part {
  readonly key: string;
  /** Null for a part that stands alone. */
  readonly text: string | null;
}

/** Which commands: index is the opcode, and 256 more for admin commands. */
export type OpcodeSet = Uint8Array;

/** What one part of a fault takes. */
interface PartForm<T> {
  /** What may stand there, for messages. */
  readonly takes: string;
  /** The value that a text means; undefined for a text that makes no sense. */
  readonly read: (text: string) => T | undefined;
  /** The value of a part that stands alone; without it a part needs a text. */
  readonly alone?: T;
  /** The names that may stand there, for guesses. */
  readonly names?: readonly string[];
}

function form<T>(part: PartForm<T>): PartForm<T> {
  return part;
}

const FLAG: PartForm<true> = { takes: 'no value', read: () => undefined, alone: true };

/** The number that a text means, decimal or hexadecimal; undefined when it is none from `least` to `most`. */
function readInteger(text: string, least: number, most: number): number | undefined {
  const value = /^(\d{1,16}|0x[\da-f]{1,13})$/i.test(text) ? Number(text) : NaN;
  return value >= least && value <= most && Number.isSafeInteger(value) ? value : undefined;
}

function integer(what: string, least: number, most: number, alone?: number): PartForm<number> {
  return {
    takes: `${what} from ${least} to ${most}`,
    read: (text) => readInteger(text, least, most),
    ...(alone !== undefined && { alone }),
  };
}

/** The numbers of `FIRST-LAST`, or of one number. */
function readRange(text: string, most: number): readonly [first: number, last: number] | undefined {
  const [first, last, ...more] = text.split('-').map((word) => readInteger(word, 0, most));
  if (first === undefined || more.length > 0) return undefined;
  if (!text.includes('-')) return [first, first];
  return last === undefined || last < first ? undefined : [first, last];
}

function readCommands(text: string): OpcodeSet | undefined {
  const set = new Uint8Array(512);
  for (const word of text.split('+')) {
    const io = IO_COMMANDS.get(word);
    const admin = ADMIN_COMMANDS.get(word);
    const [queue, number = ''] = word.split(':');
    const opcode = readInteger(number, 0, 0xff);
    if (word === 'io') set.fill(1, 0, 256);
    else if (word === 'admin') set.fill(1, 256);
    else if (io !== undefined) set[io] = 1;
    else if (admin !== undefined) set[256 + admin] = 1;
    else if (queue === 'io' && opcode !== undefined) set[opcode] = 1;
    else if (queue === 'admin' && opcode !== undefined) set[256 + opcode] = 1;
    else return undefined;
  }
  return set;
}

function readStatus(text: string): StatusCodes | undefined {
  const named = STATUSES.get(text);
  if (named !== undefined) return text === 'success' ? undefined : named;
  const [sct, sc, ...more] = text.split('/');
  const codes = [readInteger(sct ?? '', 0, 7), readInteger(sc ?? '', 0, 0xff)] as const;
  if (codes[0] === undefined || codes[1] === undefined || more.length > 0) return undefined;
  return codes[0] + codes[1] === 0 ? undefined : [codes[0], codes[1]];
}

function readEvent(text: string): AsyncEvent | undefined {
  const named = EVENTS.get(text);
  if (named !== undefined) return named;
  const [type, info, logPage, ...more] = text.split('/');
  const numbers = [
    readInteger(type ?? '', 0, 7),
    readInteger(info ?? '', 0, 0xff),
    readInteger(logPage ?? '', 0, 0xff),
  ] as const;
  if (numbers.includes(undefined) || more.length > 0) return undefined;
  const [t, i, l] = numbers as readonly [number, number, number];
  return { type: t, info: i, logPage: l };
}

/** An offset alone is the four bytes of a register. */
function readRegisters(text: string): RegisterRange | undefined {
  const range = REGISTERS.get(text) ?? readRange(text, 2 ** 32 - 1);
  if (range === undefined) return undefined;
  return text.includes('-') || REGISTERS.has(text) ? range : [range[0], range[0] + 3];
}

function readProbability(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?|\.\d+)(%?)$/.exec(text);
  const value = match === null ? NaN : Number(match[1]) / (match[2] === '%' ? 100 : 1);
  return value > 0 && value <= 1 ? value : undefined;
}

const commandNames = [...IO_COMMANDS.keys(), ...ADMIN_COMMANDS.keys()];

/** All parts that a fault may have. */
export const PARTS = {
  on: form<OpcodeSet>({
    takes:
      'commands by name such as read or identify, io:OPCODE, admin:OPCODE, io or admin for all; several joined by +',
    read: readCommands,
    names: commandNames,
  }),
  queue: integer('the id of a submission queue,', 0, 0xffff),
  namespace: integer('a namespace id', 1, 0xffff_fffe),
  lba: form<BlockRange>({
    takes: 'a logical block, or a range such as 0-7',
    read: (text) => readRange(text, Number.MAX_SAFE_INTEGER),
  }),
  register: form<RegisterRange>({
    takes: 'a register such as csts, an offset such as 0x1c, a range such as 0x0-0x3f, doorbells, or any',
    read: readRegisters,
    names: [...REGISTERS.keys()],
  }),
  access: form<'read' | 'write'>({
    takes: 'read or write',
    read: (text) => (text === 'read' || text === 'write' ? text : undefined),
  }),
  nth: integer('a number', 1, Number.MAX_SAFE_INTEGER),
  every: integer('a number', 1, Number.MAX_SAFE_INTEGER),
  count: integer('a number', 1, Number.MAX_SAFE_INTEGER),
  probability: form<number>({
    takes: 'a probability above 0 and up to 1, or a percentage such as 1%',
    read: readProbability,
  }),
  seed: integer('a number', 0, 0xffff_ffff),
  delay: form<Delay>({ takes: DELAY_FORMS, read: readDelay }),
  silent: FLAG,
  status: form<StatusCodes>({
    takes: 'a status other than success, by name such as write-fault, or as type and code such as 2/0x80',
    read: readStatus,
    names: [...STATUSES.keys()],
  }),
  dnr: FLAG,
  hang: FLAG,
  twice: FLAG,
  cid: form<number | 'inverted'>({
    takes: 'nothing, or a command id from 0 to 65535',
    read: (text) => readInteger(text, 0, 0xffff),
    alone: 'inverted',
  }),
  flip: integer('nothing, or a number of bits', 1, 4096, 1),
  torn: integer('a number of logical blocks', 0, 0xffff),
  lost: FLAG,
  fatal: FLAG,
  event: form<AsyncEvent>({
    takes: `an event by name (${[...EVENTS.keys()].join(', ')}), or TYPE/INFO/LOG as numbers`,
    read: readEvent,
    names: [...EVENTS.keys()],
  }),
  disconnect: FLAG,
  remove: FLAG,
} satisfies Readonly<Record<keyof FaultSpec, PartForm<unknown>>>;

/** The name of a part. */
export type PartName = keyof typeof PARTS;

/** The values of the parts that a fault has. */
export type PartValues = {
  -readonly [K in PartName]?: (typeof PARTS)[K] extends PartForm<infer T> ? T : never;
};

const NAMES = Object.keys(PARTS) as readonly PartName[];

/** A message about a fault: which one, and what is wrong with it. */
export function faultError(text: string, problem: string): TypeError {
  return invalidArgument(`fault '${text}': ${problem}`);
}

/** The parts of a text. */
export function splitText(text: string): Part[] {
  return text.split(',').map((written) => {
    const [key = '', ...value] = written.split('=');
    return { key: key.trim(), text: value.length === 0 ? null : value.join('=').trim() };
  });
}

/** The parts of an object. What is not given, or false, is left out. */
export function splitObject(spec: Readonly<Record<string, unknown>>): Part[] {
  return Object.entries(spec)
    .filter(([, value]) => value !== undefined && value !== false)
    .map(([key, value]) => {
      if (value === true) return { key, text: null };
      const bare = key === 'delay' && typeof value === 'number';
      return { key, text: bare ? `${value}ms` : String(value) };
    });
}

/** How parts are written in a text. */
export function joinParts(parts: readonly Part[]): string {
  return parts.map(({ key, text }) => (text === null ? key : `${key}=${text}`)).join(',');
}

/**
 * Reads each part for itself.
 * @throws TypeError ERR_INVALID_ARG_VALUE that names the part that is wrong
 */
export function readParts(parts: readonly Part[]): PartValues {
  const values: Partial<Record<PartName, unknown>> = {};
  const whole = joinParts(parts);
  for (const { key, text } of parts) {
    const form: PartForm<unknown> | undefined = Object.hasOwn(PARTS, key)
      ? PARTS[key as PartName]
      : undefined;
    if (form === undefined) {
      const known = didYouMean(key, NAMES) || `; it is one of ${NAMES.join(', ')}`;
      throw faultError(
        whole,
        key === ''
          ? `an empty part; a part is one of ${NAMES.join(', ')}`
          : `'${key}' is no part of a fault${known}`,
      );
    }
    if (values[key as PartName] !== undefined) throw faultError(whole, `${key} is given twice`);
    const value = text === null ? form.alone : form.read(text);
    if (value === undefined) {
      const found = text === null ? `${key} needs a value` : `${key} does not accept '${text}'`;
      const guess = text === null || form.names === undefined ? '' : didYouMean(text, form.names);
      throw faultError(whole, `${found}; it takes ${form.takes}${guess}`);
    }
    values[key as PartName] = value;
  }
  return values as PartValues;
}
