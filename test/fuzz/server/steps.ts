// SPDX-License-Identifier: MIT
/** What a generated client does, and how a session is made of it. */
import { Command } from '../../../lib/protocol';
import { MEMORY_BYTES, type FdKind } from '../descriptors';
import type { Random } from '../random';
import { frame, generateRequest, generateSequence, honestVersion, iovaOf, versionPayload } from '../requests';
import type { Step } from '../role';

/** Bytes are sent, in parts with turns of the event loop between them when there are cuts. */
export interface Send extends Step {
  readonly do: 'send';
  readonly bytes: Uint8Array;
  readonly fds?: readonly FdKind[];
  /** Where the bytes are cut. */
  readonly cuts?: readonly number[];
}
/** How the next DMA_READ or DMA_WRITE of the server is answered. Without one, honestly. */
export interface Answer extends Step {
  readonly do: 'answer';
  readonly how: (typeof ANSWERS)[number];
  /** A value for the answer that is spoilt, and where it goes. */
  readonly value?: number;
  readonly at?: number;
}
/** A message on an ioregionfd that the server has given. */
interface IoRegion extends Step {
  readonly do: 'ioregion';
  readonly bytes: Uint8Array;
}
/** The file that is mapped gets another size. */
interface Resize extends Step {
  readonly do: 'resize';
  readonly size: number;
}
/** All replies are waited for. */
interface Wait extends Step {
  readonly do: 'wait';
}
/** The eventfd that was given for all vectors is signalled. */
interface Signal extends Step {
  readonly do: 'signal';
}
export type ServerStep = Send | Answer | IoRegion | Resize | Wait | Signal;

export const ANSWERS = [
  'honest',
  'error',
  'short',
  'long',
  'none',
  'twice',
  'id',
  'command',
  'flags',
  'patch',
  'late',
] as const;
const STEPS = 120;

export function generate(random: Random): ServerStep[] {
  const steps: ServerStep[] = [];
  const version = random.once(10) ? versionPayload(random) : honestVersion(random);
  if (!random.once(30)) {
    const fds: FdKind[] = random.once(30) ? ['eventfd'] : [];
    steps.push({ do: 'send', bytes: frame(Command.version, version, 1), fds }, { do: 'wait' });
  }
  const count = random.below(2 * STEPS);
  let id = 2;
  for (let i = 0; i < count; i++) {
    if (random.once(10)) steps.push({ do: 'wait' });
    if (random.once(25)) steps.push(answer(random));
    if (random.once(120)) steps.push({ do: 'resize', size: random.pick([0, 4096, MEMORY_BYTES]) });
    if (random.once(60)) steps.push({ do: 'signal' });
    if (random.once(40)) steps.push({ do: 'ioregion', bytes: ioRegionCommand(random) });
    if (random.once(30)) {
      for (const request of generateSequence(random, id)) steps.push({ do: 'send', ...request });
      id = (id + 32) & 0xffff;
    }
    // Ids are used again, while they are in flight too.
    id = random.once(30) ? random.below(8) : (id + 1) & 0xffff;
    const request = generateRequest(random, id);
    const { length } = request.bytes;
    steps.push(
      random.once(25) ? { do: 'send', ...request, cuts: cutsOf(random, length) } : { do: 'send', ...request },
    );
  }
  return steps;
}

function cutsOf(random: Random, length: number): number[] {
  const most = Math.min(random.pick([1, 1, 3, 16]), length);
  return Array.from({ length: most }, () => random.below(length + 1)).sort((a, b) => a - b);
}

function answer(random: Random): Answer {
  const how = random.once(3)
    ? random.pick(ANSWERS)
    : random.pick(['honest', 'patch', 'late', 'twice'] as const);
  if (how !== 'patch' && how !== 'flags' && how !== 'error') return { do: 'answer', how };
  return { do: 'answer', how, value: random.odd32(), at: random.below(5) * 4 };
}

function ioRegionCommand(random: Random): Uint8Array {
  const bytes = new Uint8Array(random.once(20) ? random.below(64) : 32);
  const view = new DataView(bytes.buffer);
  if (bytes.length < 32) return random.bytes(bytes.length);
  bytes[0] = random.once(12) ? random.u32() : random.below(2);
  bytes[1] = (random.once(12) ? random.u32() : random.below(4)) | (random.once(3) ? 0 : 0x10);
  view.setBigUint64(8, random.once(12) ? random.odd64() : BigInt(random.pick([3, 4])), true);
  view.setBigUint64(16, random.once(12) ? random.odd64() : BigInt(random.below(0x110)), true);
  view.setBigUint64(24, random.once(3) ? random.odd64() : iovaOf(random), true);
  return bytes;
}
