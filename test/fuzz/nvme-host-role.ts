// SPDX-License-Identifier: MIT
/** The NVMe driver is fuzzed: by a controller whose completions, registers and data are generated. */
import { setImmediate as turn } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { Mapping, closeFd, createSharedMemory } from '../../lib/native';
import { NvmeController, type CreatedQueuePair, type IoQueue } from '../../lib/nvme/host';
import { MappedDoorbells } from '../../lib/nvme/host/doorbells';
import { NativeQueueLoop } from '../../lib/nvme/host/native-queue-loop';
import { ScriptQueueLoop, type QueueLoop } from '../../lib/nvme/host/queue-loop';
import { QueuePair } from '../../lib/nvme/host/queue-pair';
import { CQE_BYTES, NvmOpcode, SQE_BYTES, encodeCommand, type FeatureName } from '../../lib/nvme/spec';
import type { DmaMemory } from '../../lib/pci';
import { HostileDevice, LIES, patternOf, type Lie } from './hostile-controller';
import type { Random } from './random';
import { Violation, type Fixture, type Role, type Step, type Tally } from './role';
import { waitFor } from './waiting';

/** The driver attaches to a device with these properties. */
interface Attach extends Step {
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
interface Call extends Step {
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
interface Loop extends Step {
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
type DriverStep = Attach | LieStep | Show | ShowConfig | Call | Post | Loop | Plain;

const CALLS_PER_SESSION = 60;
const ADMIN_TIMEOUT = 8;
/** Turns without anything new after which nothing is expected any more, and the device vanishes. */
const IDLE_TURNS = 40;

/** What calls leave for later ones. */
interface Program {
  readonly device: HostileDevice;
  readonly nvme: NvmeController;
  memory: DmaMemory | null;
  queue: IoQueue | null;
  pair: CreatedQueuePair | null;
  outstanding: number;
}

const FEATURES: readonly FeatureName[] = [
  'numberOfQueues',
  'arbitration',
  'temperatureThreshold',
  'volatileWriteCache',
];

async function memoryOf(program: Program): Promise<DmaMemory> {
  return (program.memory ??= await program.device.dma.allocate(1 << 18));
}

type CallFunction = (program: Program, a: number, b: number) => unknown;

const CALLS = {
  identifyController: ({ nvme }) => nvme.admin.identifyController(),
  identifyNvmController: ({ nvme }) => nvme.admin.identifyNvmController(),
  identifyNamespace: ({ nvme }, a) => nvme.admin.identifyNamespace(a % 4),
  identify: ({ nvme }, a, b) => nvme.admin.identify(a % 32, { nsid: b % 3 }),
  activeNamespaces: ({ nvme }, a) => nvme.admin.activeNamespaces(a % 3),
  namespaceDescriptors: ({ nvme }) => nvme.admin.namespaceDescriptors(1),
  getLogPage: ({ nvme }, a, b) => nvme.admin.getLogPage(a % 20, 4 * (1 + (b % 3000))),
  errorLog: ({ nvme }, a) => nvme.admin.errorLog(1 + (a % 70)),
  smartLog: ({ nvme }) => nvme.admin.smartLog(),
  firmwareSlotLog: ({ nvme }) => nvme.admin.firmwareSlotLog(),
  changedNamespaces: ({ nvme }) => nvme.admin.changedNamespaces(),
  commandEffectsLog: ({ nvme }) => nvme.admin.commandEffectsLog(),
  supportedLogPages: ({ nvme }) => nvme.admin.supportedLogPages(),
  getFeature: ({ nvme }, a) => nvme.admin.getFeature(FEATURES[a % 4] ?? 'arbitration'),
  getFeatureNumber: ({ nvme }, a) => nvme.admin.getFeature(1 + (a % 30)),
  featureCapabilities: ({ nvme }, a) => nvme.admin.featureCapabilities(1 + (a % 30)),
  setFeature: ({ nvme }, a, b) => nvme.admin.setFeature(2 + (a % 30), b),
  abort: ({ nvme }, a, b) => nvme.admin.abort(a % 4, b & 0xffff),
  command: ({ nvme }, a, b) => nvme.admin.command({ opcode: a & 0xff, read: 1 + (b % 12000) }),
  commandWrite: ({ nvme }, a, b) =>
    nvme.admin.command({ opcode: a & 0xff, write: new Uint8Array(1 + (b % 9000)) }),
  asyncEvent: ({ nvme }) => nvme.admin.command({ opcode: 0x0c }),
  ioQueueLimit: ({ nvme }) => nvme.ioQueueLimit(),
  createIoQueue: async (program, a) => (program.queue = await program.nvme.createIoQueue(1 + (a % 100))),
  closeIoQueue: async (program) => {
    const { queue } = program;
    program.queue = null;
    await queue?.close();
  },
  read: async (program, a, b) => {
    const memory = await memoryOf(program);
    const blocks = 1 + (b % 8);
    await namespaceOf(program).read(memory, { lba: a % 5000, blocks, ...queueOf(program) });
    return { lba: a % 5000, word: new Uint32Array(memory.buffer)[0] };
  },
  readLarge: async (program, a, b) =>
    namespaceOf(program).read(await memoryOf(program), {
      lba: a % 5000,
      blocks: 1 + (b % 500),
      offset: 4 * (a % 64),
      ...queueOf(program),
    }),
  write: async (program, a, b) =>
    namespaceOf(program).write(await memoryOf(program), {
      lba: a % 5000,
      blocks: 1 + (b % 64),
      ...queueOf(program),
    }),
  compare: async (program, a, b) =>
    namespaceOf(program).compare(await memoryOf(program), { lba: a % 5000, blocks: 1 + (b % 16) }),
  writeZeroes: (program, a, b) =>
    namespaceOf(program).writeZeroes({ lba: a % 5000, blocks: 1 + (b % 70000) }),
  deallocate: (program, a) => namespaceOf(program).deallocate([{ lba: a % 5000, blocks: 8 }]),
  flush: (program) => namespaceOf(program).flush(),
  createQueuePair: async (program, a) => {
    program.pair ??= await program.nvme.createQueuePair(2 + (a % 64));
  },
  submit: (program, a, b) => {
    const { queue } = program.pair ?? {};
    if (queue === undefined || queue.outstanding >= queue.capacity || queue.outstanding < 0) return;
    encodeCommand(queue.submissions, queue.claim(), {
      opcode: NvmOpcode.read,
      cid: a & 0xfff,
      nsid: 1,
      cdw10: b,
    });
    queue.ring();
  },
  reap: (program) => {
    program.pair?.queue.poll(8, () => undefined);
    program.pair?.queue.ring();
  },
  deleteQueuePair: async (program) => {
    const { pair } = program;
    program.pair = null;
    await pair?.delete();
  },
} as const satisfies Record<string, CallFunction>;
type CallName = keyof typeof CALLS;
const CALL_NAMES = Object.keys(CALLS) as CallName[];

function namespaceOf({ nvme }: Program): NvmeController['namespaces'][number] {
  return nvme.namespaces[0] ?? nvme.namespace(1);
}

function queueOf({ queue }: Program): { queue?: IoQueue } {
  return queue === null ? {} : { queue };
}

function generate(random: Random): DriverStep[] {
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

/** A driver and its device. */
class FuzzedDriver {
  readonly #tally: Tally;
  readonly #pending = new Set<string>();
  #device: HostileDevice | null = null;
  #program: Program | null = null;
  #fault: Error | null = null;
  #calls = 0;

  constructor(tally: Tally) {
    this.#tally = tally;
  }

  async step(step: DriverStep, before: readonly DriverStep[]): Promise<void> {
    switch (step.do) {
      case 'attach':
        await this.#attach(step, before);
        return;
      case 'lie':
        this.#device?.lies.push({ lie: step, left: step.skip });
        return;
      case 'show':
        this.#device?.shown.push({ offset: step.offset, value: step.value, left: step.times });
        return;
      case 'show config':
        return;
      case 'post':
        this.#device?.post(step.queue, step.words);
        return;
      case 'call':
        if (this.#program !== null) this.#start(step.call, () => this.#run(step));
        return;
      case 'loop':
        this.#tally.messages += step.completions.length / 4;
        compareLoops(step);
        this.#tally.see('queue loops agree');
        return;
      case 'interrupt':
        for (let vector = 0; vector < 4; vector++) this.#device?.msix.signal(vector);
        return;
      case 'vanish':
        this.#device?.vanish();
        return;
      case 'wait':
        await this.wait();
    }
  }

  /** Everything that was called has to end; where the controller does not complete a command, when the device vanishes. */
  async wait(): Promise<void> {
    this.#tally.alive();
    await this.#settle();
    if (this.#pending.size > 0) {
      this.#tally.see('vanished with calls under way');
      this.#device?.vanish();
    }
    await waitFor(
      () => this.#fault !== null || this.#pending.size === 0,
      `the end of ${[...this.#pending].join(', ')}`,
    );
    if (this.#fault !== null) throw this.#fault;
  }

  /** After all, the driver reads rightly from an honest controller. Call it once, when nothing else was. */
  async readRightly(): Promise<void> {
    await this.#attach({ do: 'attach', mappable: true, dstrd: 0, vectors: 0, adminEntries: 8 }, []);
    const program = this.#program;
    if (program === null) throw new Violation('the driver does not attach to an honest controller');
    let word: number | undefined;
    this.#start('the last read', async () => {
      const memory = await memoryOf(program);
      await program.nvme.namespace(1).read(memory, { lba: 77, blocks: 8 });
      word = new Uint32Array(memory.buffer)[5];
    });
    await this.wait();
    if (word !== patternOf(77)) throw new Violation(`the driver reads ${word} from an honest controller`);
  }

  /** Lets the controller work until all calls have ended, or nothing happens any more. */
  async #settle(): Promise<void> {
    let idle = 0;
    let before = this.#tally.messages;
    while (this.#pending.size > 0 && this.#fault === null && idle < IDLE_TURNS) {
      await turn();
      if (this.#device?.tick() === true || this.#tally.messages !== before) idle = 0;
      else {
        idle++;
        if (idle > 20) await new Promise((resolve) => setTimeout(resolve, 1));
      }
      before = this.#tally.messages;
    }
  }

  async close(): Promise<void> {
    const program = this.#program;
    if (program !== null) {
      this.#start('close', () => program.nvme.close());
      await this.wait();
    }
    await this.#device?.close();
    if (this.#fault !== null) throw this.#fault;
  }

  async #attach(
    { mappable, cap, dstrd, vectors, adminEntries }: Attach,
    before: readonly DriverStep[],
  ): Promise<void> {
    if (this.#device !== null) return;
    const device = new HostileDevice(
      this.#tally,
      mappable,
      cap === undefined ? null : BigInt(`0x${cap}`),
      dstrd,
    );
    this.#device = device;
    for (const step of before) {
      if (step.do === 'lie') device.lies.push({ lie: step, left: step.skip });
      if (step.do === 'show') device.shown.push({ offset: step.offset, value: step.value, left: step.times });
      if (step.do === 'show config') device.configLies.push({ at: step.at, value: step.value });
    }
    this.#start('attach', async () => {
      const nvme = await NvmeController.attach(device, {
        adminTimeout: ADMIN_TIMEOUT,
        vectors,
        adminEntries,
      });
      this.#program = { device, nvme, memory: null, queue: null, pair: null, outstanding: 0 };
    });
    await this.wait();
  }

  #start(name: string, call: () => unknown): void {
    const label = `${name} (call ${++this.#calls})`;
    this.#pending.add(label);
    void (async () => {
      try {
        await call();
        this.#tally.see(`${name} ok`);
      } catch (error) {
        this.#check(name, error);
      } finally {
        this.#pending.delete(label);
      }
    })();
  }

  #run({ call, a, b }: Call): unknown {
    if (this.#program === null) return undefined;
    const run: CallFunction = CALLS[call];
    return run(this.#program, a, b);
  }

  #check(name: string, error: unknown): void {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (typeof code === 'string' && code.startsWith('ERR_')) {
      this.#tally.see(`fails with ${code}`);
      return;
    }
    if (error instanceof Violation) this.#fault ??= error;
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    this.#fault ??= new Violation(`${name} fails with what is not documented: ${text}`);
  }
}

/** What a run of a queue loop leaves: the number of completions, their command ids, the submission entries, the doorbells. */
type LoopResult = readonly [
  count: number,
  cids: Uint32Array,
  submissions: Uint32Array,
  doorbells: Uint32Array,
];

/** The form in C++ and the form in TypeScript do the same with the same queue. */
function compareLoops(step: Loop): void {
  const script = runLoop(step, false);
  const native = runLoop(step, true);
  const same = script.every((part, index) => isDeepStrictEqual(part, native[index]));
  if (!same)
    throw new Violation(
      `the queue loop in C++ takes ${native[0]} completions (${native[1].join(' ')}), the one in TypeScript ${script[0]} (${script[1].join(' ')})`,
    );
}

const PAGE = 4096;
const pages = (bytes: number): number => Math.ceil(bytes / PAGE) * PAGE;

function runLoop({ entries, depth, room, completions, ...from }: Loop, native: boolean): LoopResult {
  const completionOffset = pages(entries * SQE_BYTES);
  const doorbellOffset = completionOffset + pages(entries * CQE_BYTES);
  const fd = createSharedMemory(doorbellOffset + PAGE);
  const memory = Mapping.map(fd, 0, doorbellOffset);
  const doorbells = Mapping.map(fd, doorbellOffset, PAGE);
  try {
    const placement = { id: 1, entries, submissionOffset: 0, completionOffset };
    const rung = new MappedDoorbells(new Uint32Array(doorbells.buffer), 0);
    const pair = new QueuePair(placement, memory.buffer, rung);
    const words = new Uint32Array(completions.slice().buffer);
    for (const [index, word] of words.entries()) pair.completions[index * 4 + 3] = word;
    pair.submissions.fill(0x0102_0304);
    const loop: QueueLoop = native
      ? new NativeQueueLoop({
          ...placement,
          memory,
          doorbells,
          tailIndex: rung.tailIndex(1),
          headIndex: rung.headIndex(1),
          depth,
          room,
        })
      : new ScriptQueueLoop(pair, rung, depth, room);
    for (const index of loop.pointers.keys()) loop.pointers[index] = index + 1;
    const ready = Math.min(from.ready, entries - 1);
    const count = loop.run(from.tail, from.head, from.phase, ready, 0);
    const most = Math.min(ready, room);
    if (count < 0 || count > most)
      throw new Violation(`a queue loop takes ${count} completions, at most ${most} may be`);
    return [
      count,
      loop.cids.slice(0, count),
      pair.submissions.slice(),
      new Uint32Array(doorbells.buffer, 0, 16).slice(),
    ];
  } finally {
    memory.close();
    doorbells.close();
    closeFd(fd);
  }
}

class HostFixture implements Fixture {
  readonly #tally: Tally;

  constructor(tally: Tally) {
    this.#tally = tally;
  }

  async run(steps: readonly Step[]): Promise<void> {
    const driver = new FuzzedDriver(this.#tally);
    this.#tally.connections++;
    const all = steps as readonly DriverStep[];
    try {
      for (const [index, step] of all.entries())
        await driver.step(step, all.slice(0, step.do === 'attach' ? index : 0));
    } finally {
      await driver.close();
    }
    const last = new FuzzedDriver(this.#tally);
    try {
      await last.readRightly();
    } finally {
      await last.close();
    }
  }

  async rest(): Promise<void> {
    await turn();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

export const nvmeHostRole: Role = {
  name: 'nvme-host',
  wanted: [
    ...CALL_NAMES.map((name) => `${name} ok`),
    ...LIES.map((how) => `lie: ${how}`),
    ...['TIMEOUT', 'DISCONNECTED', 'CLOSED', 'NVME_STATUS', 'NVME_CONTROLLER', 'PCI'].map(
      (code) => `fails with ERR_VFIO_USER_${code}`,
    ),
    'attach ok',
    'close ok',
    'queue loops agree',
    'vanished with calls under way',
  ],
  generate,
  open: (tally) => Promise.resolve(new HostFixture(tally)),
};
