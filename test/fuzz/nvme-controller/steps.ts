// SPDX-License-Identifier: MIT
/** What a generated host does, and how a session is made of it. */
import { LAYOUT, QUEUES } from './memory';
import { BESIDE_QUEUES, type Reach, generateAdmin, generateIo, generateList, queuePlace } from './commands';
import type { Random } from '../random';
import type { Step } from '../role';

/** A command is stored; `ring` submits it. */
interface Submit extends Step {
  readonly do: 'submit';
  readonly queue: number;
  /** 64 bytes. The host chooses the command id. */
  readonly entry: Uint8Array;
}
interface Ring extends Step {
  readonly do: 'ring';
  readonly queue: number;
}
/** A doorbell gets any value. */
interface Doorbell extends Step {
  readonly do: 'doorbell';
  readonly index: number;
  readonly value: number;
}
export interface Access extends Step {
  readonly do: 'write' | 'read';
  readonly region: number;
  readonly offset: number;
  readonly bytes: Uint8Array;
}
/** Bytes are stored in the memory of the host. */
interface Store extends Step {
  readonly do: 'store';
  readonly address: number;
  readonly bytes: Uint8Array;
}
interface Remap extends Step {
  readonly do: 'map' | 'unmap';
  /** In `LAYOUT`. */
  readonly range: number;
}
/** Brings the controller up, as a driver does, with so many entries in the queues 0, 1, ... */
interface BringUp extends Step {
  readonly do: 'bring up';
  readonly entries: readonly number[];
  /** From then on the host does things after which nothing can be told of what is completed. */
  readonly careless?: boolean;
}
interface Plain extends Step {
  readonly do: 'wait' | 'function reset';
}
export type HostStep = Submit | Ring | Doorbell | Access | Store | Remap | BringUp | Plain;

const STEPS = 500;
export function generate(random: Random): HostStep[] {
  const steps: HostStep[] = [];
  const sizes = [random.near(4, 32), random.near(4, 64), random.near(4, 62), random.near(4, 16)];
  const entries = sizes.map((count) => Math.max(2, Math.min(count, 64)));
  // A half of the sessions does nothing that a host must not do, so that every completion can be checked.
  const strict = random.once(2);
  if (!random.once(20))
    steps.push(strict ? { do: 'bring up', entries } : { do: 'bring up', entries, careless: true });
  const reach = strict ? BESIDE_QUEUES : LAYOUT;
  for (let i = random.below(2 * STEPS); i > 0; i--) {
    const queue = random.once(8) ? 0 : random.near(1, 2, 2);
    if (random.once(6)) steps.push({ do: 'ring', queue });
    if (random.once(40)) steps.push({ do: 'wait' });
    if (random.once(25)) steps.push({ do: 'store', ...generateList(random, reach) });
    if (random.once(50))
      steps.push({ do: random.once(2) ? 'map' : 'unmap', range: 1 + random.below(LAYOUT.length - 1) });
    if (!strict) hostile(random, steps);
    steps.push({
      do: 'submit',
      queue,
      entry: entryOf(queue === 0 ? admin(random, reach) : generateIo(random, reach)),
    });
  }
  steps.push({ do: 'wait' });
  return steps;
}

function admin(random: Random, reach: Reach): Uint32Array {
  return generateAdmin(random, reach, (id, completion) => queuePlace(QUEUES, id, completion));
}

export function entryOf(words: Uint32Array): Uint8Array {
  return new Uint8Array(words.buffer);
}

/** What a host must not do, or only when nothing is in flight. */
function hostile(random: Random, steps: HostStep[]): void {
  if (random.once(30)) steps.push({ do: 'doorbell', index: random.below(12), value: random.odd32() });
  if (random.once(60)) steps.push(registerAccess(random));
  if (random.once(60))
    steps.push({ do: random.once(2) ? 'map' : 'unmap', range: random.below(LAYOUT.length) });
  if (random.once(300)) steps.push({ do: 'function reset' });
  if (random.once(120)) steps.push({ do: 'bring up', entries: [16, 16, 16, 16], careless: true });
}

function registerAccess(random: Random): Access {
  const region = random.pick([0, 0, 0, 4, 7]);
  const size = random.pick([4, 4, 4, 8, 1, 2, 3, 64]);
  const bytes = random.bytes(size);
  if (region === 0 && random.once(2)) {
    // CC: enable, disable, shut down, with odd sizes.
    const cc = random.pick([0, 0x46_0001, 0x46_4001, 0x46_8001, random.u32()]);
    new DataView(bytes.buffer, bytes.byteOffset).setUint8(0, cc & 0xff);
    return { do: 'write', region, offset: 0x14, bytes: new Uint8Array(Uint32Array.of(cc).buffer) };
  }
  const offset =
    region === 0
      ? random.near(0, 0x14, 0x24, 0x28, 0x30, 0x1000, 0x1200, 0x3ffc)
      : random.near(0, 16, 64, 256, 0x1000);
  return { do: random.once(3) ? 'read' : 'write', region, offset, bytes };
}
