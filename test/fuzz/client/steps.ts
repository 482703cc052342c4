// SPDX-License-Identifier: MIT
/** What a generated server does, and the program at its other end; how a session is made of it. */
import { HeaderFlag } from '../../../lib/protocol';
import { CALL_NAMES, SYNC_CALL_NAMES, type CallName, type SyncCallName } from './calls';
import { FD_KINDS, MEMORY_BYTES, type FdKind } from '../descriptors';
import type { Random } from '../random';
import { generateRequest, versionPayload } from '../requests';
import type { Step } from '../role';

/** How a reply is spoilt. */
export const SPOILT = [
  'error',
  'error without errno',
  'short',
  'long',
  'patch',
  'patch 64',
  'none',
  'twice',
  'id',
  'command',
  'flags',
  'late',
  'size',
  'descriptors',
  'bytes',
  'cut',
] as const;

/** How a reply is spoilt: the next one, after `skip` honest ones. */
export interface Answer extends Step {
  readonly do: 'answer';
  readonly skip: number;
  readonly how: (typeof SPOILT)[number];
  readonly value: number;
  readonly at: number;
  readonly bytes?: Uint8Array;
  readonly fds?: readonly FdKind[];
}
/** The program calls the client, and does not wait. */
export interface Call extends Step {
  readonly do: 'call';
  readonly call: CallName;
  readonly a: number;
  readonly b: number;
}
/** As {@link Call}, with a call that blocks: its reply is sent before. */
export interface CallSync extends Step {
  readonly do: 'call sync';
  readonly call: SyncCallName;
  readonly a: number;
  readonly b: number;
}
/** The server sends DMA_READ or DMA_WRITE, `times` of them, for memory that is mapped or near it. */
export interface Dma extends Step {
  readonly do: 'dma';
  readonly write: boolean;
  /** Which of the ranges; none when there are not so many. */
  readonly range: number;
  readonly offset: number;
  readonly count: number;
  readonly times: number;
}
/** The server sends bytes. */
interface Send extends Step {
  readonly do: 'send';
  readonly bytes: Uint8Array;
  readonly fds?: readonly FdKind[];
}
interface Resize extends Step {
  readonly do: 'resize';
  readonly size: number;
}
/** All interrupts that the client has set are signalled; all answers are waited for; the server goes away. */
interface Plain extends Step {
  readonly do: 'signal' | 'wait' | 'hang up';
}
/** The client connects; a step of its own, so that answers can be prepared for VERSION. */
interface Connect extends Step {
  readonly do: 'connect';
  readonly twin: boolean;
}
export type ClientStep = Answer | Call | CallSync | Dma | Send | Resize | Plain | Connect;

const CALLS_PER_SESSION = 40;
export function generate(random: Random): ClientStep[] {
  const steps: ClientStep[] = [];
  if (random.once(8)) steps.push(versionAnswer(random));
  steps.push({ do: 'connect', twin: random.once(4) });
  const honest = random.once(10);
  for (let i = random.below(2 * CALLS_PER_SESSION); i > 0; i--) {
    if (!honest && random.once(3)) steps.push(answer(random));
    if (random.once(6)) steps.push({ do: 'wait' });
    if (random.once(4)) steps.push(dma(random));
    if (random.once(30)) steps.push({ do: 'signal' });
    if (random.once(80)) steps.push({ do: 'resize', size: random.pick([0, 4096, MEMORY_BYTES]) });
    if (!honest && random.once(60)) steps.push(junk(random));
    if (random.once(400)) steps.push({ do: 'hang up' });
    if (random.once(15))
      steps.push({ do: 'call sync', call: random.pick(SYNC_CALL_NAMES), a: random.u32(), b: random.u32() });
    steps.push({ do: 'call', call: random.pick(CALL_NAMES), a: random.u32(), b: random.u32() });
  }
  steps.push({ do: 'wait' });
  return steps;
}

function versionAnswer(random: Random): Answer {
  if (random.once(3)) return { ...answer(random), skip: 0 };
  return {
    do: 'answer',
    skip: 0,
    how: 'bytes',
    value: 0,
    at: 0,
    bytes: versionPayload(random),
    fds: random.once(2) ? [random.pick(FD_KINDS)] : [],
  };
}

function answer(random: Random): Answer {
  // What ends the connection, or costs a time-out, is rare.
  const how = random.once(40)
    ? random.pick(SPOILT)
    : random.pick([
        'error',
        'short',
        'long',
        'patch',
        'patch',
        'patch 64',
        'twice',
        'late',
        'descriptors',
        'bytes',
        'cut',
      ] as const);
  const base = {
    do: 'answer',
    skip: random.below(4),
    how,
    value: random.odd32(),
    at: random.below(24) * 4,
  } as const;
  if (how === 'bytes') return { ...base, bytes: random.bytes(random.below(80)) };
  if (how === 'descriptors')
    return { ...base, fds: Array.from({ length: random.near(1, 3, 16) }, () => random.pick(FD_KINDS)) };
  return base;
}

function dma(random: Random): Dma {
  return {
    do: 'dma',
    write: random.once(2),
    range: random.below(4),
    offset: random.once(5) ? random.odd32() : random.below(8192),
    count: random.once(20) ? random.near(4096, 65536, 1 << 20) : random.below(256),
    times: random.once(10) ? 100 : random.near(1, 4, 10),
  };
}

/** Commands that are not a server's to send, unasked replies, bytes that are no message. */
function junk(random: Random): Send {
  if (random.once(6)) return { do: 'send', bytes: random.bytes(random.below(64)) };
  const { bytes, fds } = generateRequest(random, random.below(64) + 0x8000);
  if (random.once(3)) bytes[8] = HeaderFlag.reply;
  return fds === undefined || random.once(2) ? { do: 'send', bytes } : { do: 'send', bytes, fds };
}
