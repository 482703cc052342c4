// SPDX-License-Identifier: MIT
import { NvmOpcode, encodeStatus } from '../spec';
import type {
  CommandAction,
  CommandTarget,
  ControllerAction,
  Fault,
  FaultSpec,
  Occasion,
  RegisterTarget,
} from './fault';
import {
  type OpcodeSet,
  type PartName,
  type PartValues,
  faultError,
  joinParts,
  readParts,
  splitObject,
  splitText,
} from './parts';

/** Commands whose logical blocks are told by the queue entry: SLBA in words 10 and 11, NLB in word 12. */
const WITH_BLOCKS: readonly number[] = [
  NvmOpcode.read,
  NvmOpcode.write,
  NvmOpcode.writeUncorrectable,
  NvmOpcode.compare,
  NvmOpcode.writeZeroes,
  NvmOpcode.verify,
];

/** Parts that choose I/O commands; which, and which are chosen when `on` is not given. */
const IO_ONLY: readonly (readonly [
  part: PartName,
  names: string,
  allowed: readonly number[] | 'all',
  chosen: readonly number[],
])[] = [
  ['lba', 'read, write, compare, write-zeroes, write-uncorrectable and verify', WITH_BLOCKS, WITH_BLOCKS],
  ['flip', 'read and write', [NvmOpcode.read, NvmOpcode.write], [NvmOpcode.read, NvmOpcode.write]],
  ['torn', 'write and write-zeroes', [NvmOpcode.write, NvmOpcode.writeZeroes], [NvmOpcode.write]],
  ['lost', 'I/O commands', 'all', [NvmOpcode.write]],
];

const ACTIONS = [
  'status',
  'hang',
  'twice',
  'cid',
  'flip',
  'torn',
  'lost',
  'fatal',
  'event',
  'disconnect',
  'remove',
] as const satisfies readonly PartName[];

/** Actions on the controller, which a register access may cause too. */
export const CONTROLLER_ACTIONS: readonly PartName[] = ['fatal', 'event', 'disconnect', 'remove'];

/** Pairs of parts that do not go together, and why. */
const EXCLUSIVE: readonly (readonly [PartName, PartName, string])[] = [
  ['nth', 'every', 'nth strikes once'],
  ['nth', 'count', 'nth strikes once'],
  ['nth', 'probability', 'nth strikes once'],
  ['hang', 'delay', 'a command that never completes is not late'],
  ['silent', 'hang', 'a command that never completes has no interrupt'],
  ['silent', 'fatal', 'nothing completes then'],
  ['silent', 'disconnect', 'nothing completes then'],
  ['silent', 'remove', 'nothing completes then'],
];

/**
 * Reads a fault.
 * @param spec its text, or an object with its parts
 * @throws TypeError ERR_INVALID_ARG_VALUE that names what is wrong, and what may stand there
 */
export function parseFault(spec: string | FaultSpec): Fault {
  const parts = typeof spec === 'string' ? splitText(spec) : splitObject({ ...spec });
  const text = joinParts(parts);
  const wrong = (problem: string): TypeError => faultError(text, problem);
  const values = readParts(parts);
  for (const [one, other, why] of EXCLUSIVE) {
    if (has(values, one) && has(values, other)) throw wrong(`${one} and ${other} do not go together: ${why}`);
  }
  checkActions(values, wrong);
  return {
    text,
    target: has(values, 'register') ? registerTarget(values, wrong) : commandTarget(values, wrong),
    occasion: occasionOf(values),
    delay: values.delay,
    silent: values.silent ?? false,
    action: actionOf(values),
  };
}

/**
 * Reads an action that is done at once.
 * @throws TypeError ERR_INVALID_ARG_VALUE
 */
export function parseControllerAction(spec: string | FaultSpec): ControllerAction {
  const parts = typeof spec === 'string' ? splitText(spec) : splitObject({ ...spec });
  const text = joinParts(parts);
  const values = readParts(parts);
  const [key = ''] = Object.keys(values);
  if (parts.length !== 1 || !(CONTROLLER_ACTIONS as readonly string[]).includes(key))
    throw faultError(
      text,
      `at once can be done one of ${CONTROLLER_ACTIONS.join(', ')}, and nothing else with it`,
    );
  return actionOf(values) as ControllerAction;
}

function has(values: PartValues, name: PartName): boolean {
  return values[name] !== undefined;
}

type Wrong = (problem: string) => TypeError;

function checkActions(values: PartValues, wrong: Wrong): void {
  const given = ACTIONS.filter((name) => has(values, name));
  const [first, second] = given;
  if (second !== undefined) throw wrong(`${first} and ${second} are two actions; a fault has one`);
  if (first === undefined && !has(values, 'delay') && !has(values, 'silent'))
    throw wrong(`it does nothing; give one of ${[...ACTIONS, 'delay', 'silent'].join(', ')}`);
  if (has(values, 'dnr') && !has(values, 'status')) throw wrong('dnr goes with status');
  if (has(values, 'access') && !has(values, 'register')) throw wrong('access goes with register');
  const draws =
    has(values, 'probability') || has(values, 'flip') || (values.delay?.kind ?? 'fixed') !== 'fixed';
  if (has(values, 'seed') && !draws)
    throw wrong('nothing is left to chance; seed goes with probability, flip, or a delay that is drawn');
}

function registerTarget(values: PartValues, wrong: Wrong): RegisterTarget {
  const notForRegisters: readonly PartName[] = [
    'on',
    'queue',
    'namespace',
    'lba',
    'silent',
    ...ACTIONS.filter((name) => !CONTROLLER_ACTIONS.includes(name)),
  ];
  const misplaced = notForRegisters.find((name) => has(values, name));
  if (misplaced !== undefined)
    throw wrong(
      `${misplaced} is for commands, and register chooses accesses of registers; these go with delay, ${CONTROLLER_ACTIONS.join(', ')}`,
    );
  return { kind: 'register', range: values.register as RegisterTarget['range'], access: values.access };
}

function commandTarget(values: PartValues, wrong: Wrong): CommandTarget {
  const opcodes = values.on?.slice() ?? new Uint8Array(512).fill(1);
  for (const [part, names, allowed, chosen] of IO_ONLY) {
    if (!has(values, part)) continue;
    const subset = values.on === undefined ? chosen : allowed;
    const surplus = keep(opcodes, (code) => (subset === 'all' ? code < 256 : subset.includes(code)));
    if (surplus && values.on !== undefined)
      throw wrong(`${part} goes with ${names} only, and on names others`);
  }
  const { queue } = values;
  if (queue !== undefined) {
    const admin = queue === 0;
    keep(opcodes, (code) => code >= 256 === admin);
    if (!opcodes.includes(1))
      throw wrong(`queue ${queue} has ${admin ? 'admin' : 'I/O'} commands only, and none of them is chosen`);
  }
  return { kind: 'command', opcodes, queue, namespace: values.namespace, lba: values.lba };
}

/** Takes out of a set what is not to be kept. Returns whether there was any. */
function keep(set: OpcodeSet, keeps: (code: number) => boolean): boolean {
  let surplus = false;
  for (const [code, member] of set.entries()) {
    if (member === 0 || keeps(code)) continue;
    set[code] = 0;
    surplus = true;
  }
  return surplus;
}

function occasionOf({ nth, every = 1, count = Infinity, probability = 1, seed = 0 }: PartValues): Occasion {
  return { nth, every, count: nth === undefined ? count : 1, probability, seed };
}

function actionOf(values: PartValues): CommandAction | ControllerAction | undefined {
  const { status, cid, flip, torn, event } = values;
  if (status !== undefined) {
    const [sct, sc] = status;
    return { kind: 'status', status: encodeStatus({ sct, sc, doNotRetry: values.dnr ?? false }) };
  }
  if (cid !== undefined) return { kind: 'cid', cid: cid === 'inverted' ? undefined : cid };
  if (flip !== undefined) return { kind: 'flip', bits: flip };
  if (torn !== undefined) return { kind: 'torn', blocks: torn };
  if (event !== undefined) return { kind: 'event', event };
  const plain = ['hang', 'twice', 'lost', 'fatal', 'disconnect', 'remove'] as const;
  const kind = plain.find((name) => has(values, name));
  return kind === undefined ? undefined : { kind };
}
