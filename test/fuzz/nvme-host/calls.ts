// SPDX-License-Identifier: MIT
/** A program that uses all of the driver: each call takes two numbers, which choose what it is about. */
import { type NvmeController, type CreatedQueuePair, type IoQueue } from '../../../lib/nvme/host';
import { NvmOpcode, encodeCommand, type FeatureName } from '../../../lib/nvme/spec';
import type { DmaMemory } from '../../../lib/pci';
import type { HostileDevice } from './device';

/** What calls leave for later ones. */
export interface Program {
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

export async function memoryOf(program: Program): Promise<DmaMemory> {
  return (program.memory ??= await program.device.dma.allocate(1 << 18));
}

export type CallFunction = (program: Program, a: number, b: number) => unknown;

export const CALLS = {
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
export type CallName = keyof typeof CALLS;
export const CALL_NAMES = Object.keys(CALLS) as CallName[];

function namespaceOf({ nvme }: Program): NvmeController['namespaces'][number] {
  return nvme.namespaces[0] ?? nvme.namespace(1);
}

function queueOf({ queue }: Program): { queue?: IoQueue } {
  return queue === null ? {} : { queue };
}
