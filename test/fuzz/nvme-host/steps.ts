// SPDX-License-Identifier: MIT
/** What a generated controller does, and the program that drives it; how a session is made of it. */
import { LIES, type Lie } from './device';
import type { Random } from '../random';
import type { Step } from '../role';
import { CALL_NAMES, type CallName } from './calls';

/** The driver attaches to a device with these properties. */
export interface Attach extends Step {
  readonly do: 'attach';
  readonly mappable: boolean;
  /** CAP in hexadecimal, in place of an honest one. */
  readonly cap?: string;
  readonly dstrd: number;
  readonly vectors: number;
  readonly adminEntries: number;
}
/** The next completion is spoilt, after `skip` honest ones. */
interface LieStep extends Step, Lie {
  readonly do: 'lie';
  readonly skip: number;
}
/** A register shows a value, for so many reads. */
interface Show extends Step {
  readonly do: 'show';
  readonly offset: number;
  readonly value: number;
  readonly times: number;
}
/** A byte of configuration space reads differently. */
interface ShowConfig extends Step {
  readonly do: 'show config';
  readonly at: number;
  readonly value: number;
}
export interface Call extends Step {
  readonly do: 'call';
  readonly call: CallName;
  readonly a: number;
  readonly b: number;
}
/** A completion that nobody asked for. */
interface Post extends Step {
  readonly do: 'post';
  readonly queue: number;
  readonly words: readonly [number, number, number, number];
}
/** The loop of a full queue over completions of any kind, in both its forms, which have to agree. */
export interface Loop extends Step {
  readonly do: 'loop';
  readonly entries: number;
  readonly depth: number;
  readonly room: number;
  /** The last words of the completions. */
  readonly completions: Uint8Array;
  readonly tail: number;
  readonly head: number;
  readonly phase: number;
  readonly ready: number;
}
interface Plain extends Step {
  readonly do: 'wait' | 'interrupt' | 'vanish';
}
export type DriverStep = Attach | LieStep | Show | ShowConfig | Call | Post | Loop | Plain;

const CALLS_PER_SESSION = 60;
export function generate(random: Random): DriverStep[] {
  const steps: DriverStep[] = [];
  if (random.once(3)) {
    for (let i = random.below(30); i > 0; i--) steps.push(loop(random));
    return steps;
  }
  const honest = random.once(8);
  if (!honest && random.once(4)) steps.push(lie(random));
  if (!honest && random.once(8)) steps.push(show(random));
  if (!honest && random.once(10))
    steps.push({ do: 'show config', at: random.near(6, 8, 11, 0x34, 0x40, 0x42), value: random.below(256) });
  const attach: Attach = {
    do: 'attach',
    mappable: !random.once(4),
    dstrd: random.once(3) ? random.below(3) : 0,
    vectors: random.once(3) ? random.below(5) : 0,
    adminEntries: random.near(4, 32),
  };
  steps.push(!honest && random.once(10) ? { ...attach, cap: random.odd64().toString(16) } : attach);
  for (let i = random.below(2 * CALLS_PER_SESSION); i > 0; i--) {
    if (!honest && random.once(5)) steps.push(lie(random));
    if (!honest && random.once(60)) steps.push(show(random));
    if (!honest && random.once(30))
      steps.push({
        do: 'post',
        queue: random.below(3),
        words: [random.odd32(), 0, random.odd32(), random.odd32()],
      });
    if (random.once(8)) steps.push({ do: 'wait' });
    if (random.once(30)) steps.push({ do: 'interrupt' });
    if (random.once(300)) steps.push({ do: 'vanish' });
    steps.push({ do: 'call', call: random.pick(CALL_NAMES), a: random.u32(), b: random.u32() });
  }
  steps.push({ do: 'wait' });
  return steps;
}

function lie(random: Random): LieStep {
  // A completion that does not come costs a time-out.
  const how = random.once(12)
    ? random.pick(LIES)
    : random.pick(['status', 'twice', 'result', 'queue', 'head', 'data', 'late', 'unasked'] as const);
  return {
    do: 'lie',
    skip: random.below(6),
    how,
    value: random.odd32(),
    at: random.once(2) ? random.below(300) : random.below(4096),
  };
}

function show(random: Random): Show {
  return {
    do: 'show',
    offset: random.pick([0, 4, 8, 0x14, 0x1c, 0x1c]),
    value: random.once(2) ? random.odd32() : random.below(32),
    times: random.near(1, 3),
  };
}

function loop(random: Random): Loop {
  const entries = random.near(2, 8, 64, 512);
  const depth = random.near(1, 4, entries);
  const count = Math.max(2, entries);
  const words = new Uint32Array(count);
  const phase = random.below(2);
  const head = random.below(count);
  for (let i = 0; i < count; i++) {
    // Most of them are there, of a command that exists and without an error.
    const there = random.once(12) ? 1 - phase : phase;
    const wraps = i < head ? 1 - there : there;
    const status = random.once(20) ? random.u32() & 0x7fff : 0;
    const cid = random.once(15) ? random.u32() & 0xffff : random.below(Math.max(1, depth));
    words[i] = ((status << 17) | (wraps << 16) | cid) >>> 0;
  }
  return {
    do: 'loop',
    entries: count,
    depth: Math.max(1, depth),
    room: Math.max(1, random.near(1, 16, 64, 512)),
    completions: new Uint8Array(words.buffer),
    tail: random.below(count),
    head,
    phase,
    ready: random.near(0, count - 1),
  };
}
