// SPDX-License-Identifier: MIT
/** The admin commands: the words that they send (NVMe base 2.0, 5), and what the emulated controller answers. */
import { NvmeAdmin, NvmeStatusError, QueuePair } from '../../../lib/nvme/host';
import { AdminQueue } from '../../../lib/nvme/host/admin-queue';
import { DmaArena } from '../../../lib/nvme/host/dma-arena';
import { AdminOpcode, Feature, IdentifyCns, LogPage } from '../../../lib/nvme/spec';
import { failure } from '../../client/support';
import { NAMESPACE_BYTES, attached, unwatched } from './support';

const IOVA = 0x10_0000_0000;
const ENTRIES = 8;
const ARENA = 64 << 10;

/** A command as the controller sees it. */
interface Seen {
  /** All 16 words. */
  readonly words: Uint32Array;
  /** Words by name, those that are not 0; data pointer and command id left out. */
  readonly fields: Record<string, number>;
  /** The memory at an address of the data pointer or of a PRP list. */
  readonly memory: (address: number) => Uint8Array;
}

/** What the controller does: status field and dword 0 of the completion; nothing for a command that is held. */
type Answer = (command: Seen) => { status?: number; result?: number } | undefined;

/** The admin commands of a controller that is this test. */
function world(answer: Answer = () => ({})) {
  const buffer = new ArrayBuffer(ARENA);
  const close = (): Promise<void> => Promise.resolve();
  const arena = new DmaArena({ buffer, iova: IOVA, size: buffer.byteLength, fd: -1, fdOffset: 0, close });
  const seen: Seen[] = [];
  let [submitted, head, phase] = [0, 0, 1];
  const complete = (cid: number, { status = 0, result = 0 }): void => {
    pair.completions[head * 4] = result;
    pair.completions[head * 4 + 3] = ((status << 17) | (phase << 16) | cid) >>> 0;
    head = (head + 1) % ENTRIES;
    if (head === 0) phase ^= 1;
  };
  const tail = (_queue: number, end: number): void => {
    for (; submitted !== end; submitted = (submitted + 1) % ENTRIES) {
      const words = pair.submissions.slice(submitted * 16, submitted * 16 + 16);
      const memory = (address: number): Uint8Array => new Uint8Array(buffer, address - IOVA);
      const command = { words, fields: fieldsOf(words), memory };
      seen.push(command);
      const completion = answer(command);
      if (completion !== undefined) complete(words[0]! >>> 16, completion);
    }
  };
  arena.allocate(4096);
  const placement = { id: 0, entries: ENTRIES, submissionOffset: 0, completionOffset: 1024 };
  const pair = new QueuePair(placement, buffer, { tail, head: () => undefined });
  const queue = new AdminQueue('drive', arena, 1000, unwatched());
  queue.start(pair);
  return { admin: new NvmeAdmin(queue), queue, arena, seen, complete };
}

/** NVMe base 2.0, 3.3.3.1. */
function fieldsOf(words: Uint32Array): Record<string, number> {
  const names = ['opcode', 'nsid', 'cdw2', 'cdw3', 'mptr', 'mptr', '', '', '', ''];
  for (let index = 10; index < 16; index++) names.push(`cdw${index}`);
  const values = [words[0]! & 0xffff, ...words.subarray(1)];
  const pairs = names.map((name, index) => [name, values[index]!] as const);
  return Object.fromEntries(pairs.filter(([name, value]) => name !== '' && value !== 0));
}

const address = (words: Uint32Array, at: number): number => words[at + 1]! * 2 ** 32 + words[at]!;

/** Answers with data, in the first page. */
function sends(bytes: Record<number, readonly number[] | string>): Answer {
  return ({ words, memory }) => {
    for (const [offset, part] of Object.entries(bytes)) {
      memory(address(words, 6)).set(
        typeof part === 'string' ? Buffer.from(part, 'latin1') : part,
        Number(offset),
      );
    }
    return {};
  };
}

describe('the words of', () => {
  const uuid = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
  const cases: [
    string,
    (admin: NvmeAdmin) => Promise<unknown>,
    Record<string, number>,
    Record<number, readonly number[] | string>,
    unknown,
  ][] = [
    [
      'Identify Controller',
      (admin) => admin.identifyController(),
      { opcode: 0x06, cdw10: 0x01 },
      { 4: 'SERIAL', 77: [5] },
      expect.objectContaining({ sn: 'SERIAL', mdts: 5 }),
    ],
    [
      'Identify Namespace',
      (admin) => admin.identifyNamespace(7),
      { opcode: 0x06, nsid: 7 },
      { 0: [0, 1], 130: [9] },
      expect.objectContaining({ nsze: 256, lbafs: [{ ms: 0, ds: 9, rp: 0 }] }),
    ],
    [
      'Identify Controller of the NVM command set',
      (admin) => admin.identifyNvmController(),
      { opcode: 0x06, cdw10: 0x06 },
      { 1: [4] },
      expect.objectContaining({ wzsl: 4 }),
    ],
    [
      'the list of active namespaces',
      (admin) => admin.activeNamespaces(2),
      { opcode: 0x06, nsid: 2, cdw10: 0x02 },
      { 0: [3, 0, 0, 0, 9, 1] },
      [3, 0x109],
    ],
    [
      'namespace descriptors',
      (admin) => admin.namespaceDescriptors(1),
      { opcode: 0x06, nsid: 1, cdw10: 0x03 },
      { 0: [3, 16, 0, 0, ...uuid] },
      { uuid: '01020304-0506-0708-090a-0b0c0d0e0f10' },
    ],
    [
      'Identify of anything',
      (admin) => admin.identify(0x13, { nsid: 1, controllerId: 0x1234, csi: 2, cnsSpecific: 5 }),
      { opcode: 0x06, nsid: 1, cdw10: 0x1234_0013, cdw11: 0x0200_0005 },
      { 4095: [0xaa] },
      expect.objectContaining({ length: 4096, 4095: 0xaa }),
    ],
    [
      'the error log',
      (admin) => admin.errorLog(2),
      { opcode: 0x02, cdw10: 0x001f_0001 },
      { 0: [8], 12: [5, 0x80] },
      [expect.objectContaining({ error_count: 8n, status_field: 0x4002, phase_tag: 1 })],
    ],
    [
      'SMART',
      (admin) => admin.smartLog(),
      { opcode: 0x02, nsid: 0xffff_ffff, cdw10: 0x007f_0002 },
      { 0: [1, 0x2a, 1], 112: [3] },
      expect.objectContaining({ critical_warning: 1, temperature: 298, power_cycles: 3n }),
    ],
    [
      'the firmware slots',
      (admin) => admin.firmwareSlotLog(),
      { opcode: 0x02, cdw10: 0x007f_0003 },
      { 0: [0x21], 8: '1.0' },
      { activeSlot: 1, nextSlot: 2, revisions: ['1.0', '', '', '', '', '', ''] },
    ],
    [
      'changed namespaces',
      (admin) => admin.changedNamespaces(),
      { opcode: 0x02, cdw10: 0x03ff_0004 },
      { 0: [4, 0, 0, 0, 6] },
      [4, 6],
    ],
    [
      'the effects of commands',
      (admin) => admin.commandEffectsLog(2),
      { opcode: 0x02, cdw10: 0x03ff_0005, cdw14: 0x0200_0000 },
      { 24: [1], 1028: [3] },
      {
        admin: new Map([[0x06, expect.objectContaining({ supported: true })]]),
        io: new Map([[0x01, expect.objectContaining({ blockContentChange: true })]]),
      },
    ],
    [
      'the supported log pages',
      (admin) => admin.supportedLogPages(),
      { opcode: 0x02, cdw10: 0x00ff_0000 },
      { 4: [1], 12: [1] },
      [1, 3],
    ],
    [
      'any log page',
      (admin) =>
        admin.getLogPage(0x09, 8, {
          nsid: 3,
          offset: 0x1_0000_0010,
          specific: 0x7f,
          specificId: 0x1234,
          csi: 1,
          retainEvent: true,
        }),
      {
        opcode: 0x02,
        nsid: 3,
        cdw10: 0x0001_ff09,
        cdw11: 0x1234_0000,
        cdw12: 0x10,
        cdw13: 1,
        cdw14: 0x0100_0000,
      },
      { 0: [1, 2, 3, 4, 5, 6, 7, 8] },
      new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8]),
    ],
  ];

  test.each(cases)('%s, and its data', async (_what, run, fields, data, result) => {
    const { admin, seen } = world(sends(data));
    expect(await run(admin)).toEqual(result);
    expect(seen.map((command) => command.fields)).toEqual([fields]);
  });

  test.each<[string, (admin: NvmeAdmin) => Promise<unknown>, Record<string, number>, number, unknown]>([
    [
      'Get Features by name',
      (admin) => admin.getFeature('numberOfQueues'),
      { opcode: 0x0a, cdw10: 0x07 },
      0x007e_007e,
      { submission: 127, completion: 127 },
    ],
    [
      'Get Features with an argument, the default',
      (admin) =>
        admin.getFeature('temperatureThreshold', { select: 'default', argument: { sensor: 2, type: 1 } }),
      { opcode: 0x0a, cdw10: 0x0104, cdw11: 0x0012_0000 },
      0x0012_0157,
      { threshold: 343, sensor: 2, type: 1 },
    ],
    [
      'Get Features by identifier, what is saved',
      (admin) => admin.getFeature(0xc0, { select: 'saved', nsid: 4, argument: 0xffff_ffff }),
      { opcode: 0x0a, nsid: 4, cdw10: 0x02c0, cdw11: 0xffff_ffff },
      0x8000_0000,
      0x8000_0000,
    ],
    [
      'Get Features with SEL 3',
      (admin) => admin.featureCapabilities('volatileWriteCache'),
      { opcode: 0x0a, cdw10: 0x0306 },
      5,
      { saveable: true, namespaceSpecific: false, changeable: true },
    ],
    [
      'Set Features by name',
      (admin) => admin.setFeature('keepAliveTimer', { timeout: 0xffff_ffff }),
      { opcode: 0x09, cdw10: 0x0f, cdw11: 0xffff_ffff },
      0,
      0,
    ],
    [
      'Set Features by identifier, saved',
      (admin) => admin.setFeature(0xc0, 17, { save: true, nsid: 0xffff_ffff }),
      { opcode: 0x09, nsid: 0xffff_ffff, cdw10: 0x8000_00c0, cdw11: 17 },
      0x99,
      0x99,
    ],
    [
      'Abort of what is aborted',
      (admin) => admin.abort(2, 0x1234),
      { opcode: 0x08, cdw10: 0x1234_0002 },
      0,
      true,
    ],
    [
      'Abort of what is not aborted',
      (admin) => admin.abort(0, 1),
      { opcode: 0x08, cdw10: 0x0001_0000 },
      1,
      false,
    ],
    ['Keep Alive', (admin) => admin.keepAlive(), { opcode: 0x18 }, 0, undefined],
    [
      'Asynchronous Event Request',
      (admin) => admin.asynchronousEvent(),
      { opcode: 0x0c },
      0x0002_0101,
      { type: 1, info: 1, logPage: 2 },
    ],
    [
      'any command',
      (admin) =>
        admin.command({ opcode: 0xc1, nsid: 1, cdw2: 2, cdw3: 3, metadata: 4, cdw10: 10, cdw15: 15 }),
      { opcode: 0xc1, nsid: 1, cdw2: 2, cdw3: 3, mptr: 4, cdw10: 10, cdw15: 15 },
      0x1234,
      { result: 0x1234, data: new Uint8Array(0) },
    ],
  ])('%s', async (_what, run, fields, dword0, result) => {
    const { admin, seen } = world(() => ({ result: dword0 }));
    expect(await run(admin)).toEqual(result);
    expect(seen.map((command) => command.fields)).toEqual([fields]);
  });

  test('the error log, of as many entries as the controller keeps', async () => {
    // ELPE, 0's based.
    const { admin, seen } = world(sends({ 262: [2] }));
    expect(await admin.errorLog()).toEqual([]);
    expect(seen.map(({ fields }) => fields)).toEqual([
      { opcode: 6, cdw10: 1 },
      { opcode: 2, cdw10: 0x002f_0001 },
    ]);
  });

  test('a long log page, 4 KiB at a time; its event is cleared by the last part', async () => {
    const { admin, seen } = world(({ words, memory }) => {
      memory(address(words, 6)).fill(words[12]! / 4096 + 1, 0, ((words[10]! >>> 16) + 1) * 4);
      return {};
    });
    const page = await admin.getLogPage(7, 8196);
    expect(seen.map(({ fields }) => fields)).toEqual([
      { opcode: 2, cdw10: 0x03ff_8007 },
      { opcode: 2, cdw10: 0x03ff_8007, cdw12: 4096 },
      { opcode: 2, cdw10: 0x0000_0007, cdw12: 8192 },
    ]);
    expect([0, 4095, 4096, 8191, 8192, 8195].map((at) => page[at])).toEqual([1, 1, 2, 2, 3, 3]);
  });
});

describe('data of any command', () => {
  test.each([
    ['a part of a page', 5, [IOVA + 4096, 0], []],
    ['two pages', 8192, [IOVA + 4096, IOVA + 8192], []],
    // NVMe base 2.0, 4.1.1: PRP2 is the address of a list, here behind the data.
    ['a list', 12_289, [IOVA + 4096, IOVA + 20_480], [IOVA + 8192, IOVA + 12_288, IOVA + 16_384]],
  ])('%s', async (_what, length, pointers, list) => {
    const sent = Uint8Array.from({ length }, (_, index) => index * 7);
    const { admin, seen, arena } = world(({ words, memory }) => {
      const data = memory(IOVA + 4096);
      if (words[0]! % 4 === 2) data.set(sent);
      else expect(Buffer.compare(data.subarray(0, length), sent)).toBe(0);
      const entries = new BigUint64Array(memory(address(words, 8) || IOVA).slice(0, 8 * list.length).buffer);
      expect([...entries].map(Number)).toEqual(list);
      return { result: 3 };
    });
    expect(await admin.command({ opcode: 0xc2, read: length })).toEqual({ result: 3, data: sent });
    expect(await admin.command({ opcode: 0xc1, write: sent })).toEqual({
      result: 3,
      data: new Uint8Array(0),
    });
    for (const { words } of seen) expect([address(words, 6), address(words, 8)]).toEqual(pointers);
    // All memory was given back.
    expect(arena.allocate(ARENA - 4096).offset).toBe(4096);
  });

  test('memory of the caller', async () => {
    const { admin, seen } = world();
    await admin.command({ opcode: 0x7c, prp1: 0x12_3456_7000, prp2: 0x12_3456_8000 });
    expect([...seen[0]!.words.subarray(6, 10)]).toEqual([0x3456_7000, 0x12, 0x3456_8000, 0x12]);
  });

  test.each([
    [{ read: 8, write: new Uint8Array(8) }, 'ERR_INVALID_ARG_VALUE'],
    [{ read: 8, prp1: 4096 }, 'ERR_INVALID_ARG_VALUE'],
    [{ write: new Uint8Array(8), prp2: 4096 }, 'ERR_INVALID_ARG_VALUE'],
    [{ read: 0 }, 'ERR_OUT_OF_RANGE'],
    [{ read: 1.5 }, 'ERR_OUT_OF_RANGE'],
    [{ read: NaN }, 'ERR_OUT_OF_RANGE'],
    [{ write: new Uint8Array(0) }, 'ERR_OUT_OF_RANGE'],
    [{ read: ARENA }, 'ERR_VFIO_USER_DMA'],
    [{ cdw10: -1 }, 'ERR_OUT_OF_RANGE'],
    [{ cdw10: 2 ** 32, read: 8 }, 'ERR_OUT_OF_RANGE'],
    [{ opcode: 256 }, 'ERR_OUT_OF_RANGE'],
  ])('%p is refused, and nothing is sent', async (wrong, code) => {
    const { admin, seen, arena } = world();
    await expect(admin.command({ opcode: 0xc0, ...wrong })).rejects.toMatchObject({ code });
    expect(arena.allocate(ARENA - 4096).offset).toBe(4096);
    // The entry of a command that is not valid is not submitted with the next one.
    await admin.keepAlive();
    expect(seen.map(({ fields }) => fields)).toEqual([{ opcode: 0x18 }]);
  });

  test('memory of a command that timed out is not used again', async () => {
    const { admin, arena } = world(() => undefined);
    const command = { opcode: 0xc2, read: 8, timeout: 1 };
    await expect(admin.command(command)).rejects.toMatchObject({ code: 'ERR_VFIO_USER_TIMEOUT' });
    expect(arena.allocate(4096).offset).toBe(8192);
  });
});

test.each<[string, (admin: NvmeAdmin) => Promise<unknown>]>([
  ['a CNS', (admin) => admin.identify(256)],
  ['a log page', (admin) => admin.getLogPage(256, 4)],
  ['half a dword', (admin) => admin.getLogPage(1, 6)],
  ['no byte', (admin) => admin.getLogPage(1, 0)],
  ['no entry', (admin) => admin.errorLog(0)],
  ['a feature', (admin) => admin.getFeature(256)],
  ['a value', (admin) => admin.setFeature('powerManagement', { state: 32 })],
  ['a namespace', (admin) => admin.identifyNamespace(-1)],
])('%s that cannot be is refused', async (_what, run) => {
  const { admin, seen } = world();
  await expect(run(admin)).rejects.toMatchObject({ code: 'ERR_OUT_OF_RANGE' });
  expect(seen).toEqual([]);
});

test('a feature that has no name', async () => {
  const { admin } = world();
  const unknown = 'toString' as 'arbitration';
  await expect(admin.getFeature(unknown)).rejects.toMatchObject({
    code: 'ERR_INVALID_ARG_VALUE',
    message: expect.stringMatching(/"toString" is no name.*arbitration.*keepAliveTimer/) as string,
  });
});

test.each<[(admin: NvmeAdmin) => Promise<unknown>, string]>([
  [(admin) => admin.identifyNamespace(9), 'Identify (CNS 00h, namespace 9) failed: Invalid'],
  [(admin) => admin.identifyController(), 'Identify (CNS 01h) failed: Invalid'],
  [(admin) => admin.getLogPage(0xc0, 4), 'Get Log Page (log page C0h) failed: Invalid'],
  [(admin) => admin.getFeature('arbitration'), 'Get Features (feature 01h) failed: Invalid'],
  [(admin) => admin.setFeature(0x80, 1), 'Set Features (feature 80h) failed: Invalid'],
  [(admin) => admin.keepAlive(), 'Keep Alive failed: Invalid'],
])('an error status tells what was asked for: %s', async (run, message) => {
  const { admin } = world(() => ({ status: 0x4002 }));
  const error: unknown = await run(admin).catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(NvmeStatusError);
  expect(error).toMatchObject({ sct: 0, sc: 2, doNotRetry: true });
  expect((error as Error).message).toContain(message);
});

describe('a signal', () => {
  const ABORTED = 0x0007;

  test('has the controller abort the command', async () => {
    const { admin, seen, complete } = world(({ fields, words }) => {
      if (fields['opcode'] !== 0x08) return undefined;
      complete(words[10]! >>> 16, { status: ABORTED });
      return {};
    });
    const controller = new AbortController();
    const event = admin.asynchronousEvent({ signal: controller.signal });
    controller.abort();
    await expect(event).rejects.toMatchObject({ sct: 0, sc: 7 });
    const cid = seen[0]!.words[0]! >>> 16;
    expect(seen[1]!.fields).toEqual({ opcode: 0x08, cdw10: cid * 0x1_0000 });
  });

  test('of a command that the controller does not abort changes nothing', async () => {
    const { admin, seen, complete } = world(({ fields }) =>
      fields['opcode'] === 0x08 ? { status: 0x0103 } : undefined,
    );
    const controller = new AbortController();
    const event = admin.asynchronousEvent({ signal: controller.signal });
    controller.abort();
    complete(seen[0]!.words[0]! >>> 16, { result: 0x0004_0002 });
    expect(await event).toEqual({ type: 2, info: 0, logPage: 4 });
  });

  test('that is aborted before: nothing is sent, and no memory is lost', async () => {
    const { admin, seen, arena } = world();
    const signal = AbortSignal.abort(new Error('no more'));
    await expect(admin.identify(1, { signal })).rejects.toThrow('no more');
    expect(seen).toEqual([]);
    expect(arena.allocate(ARENA - 4096).offset).toBe(4096);
  });

  test('is forgotten with the command', async () => {
    const { admin, seen } = world();
    const controller = new AbortController();
    await admin.command({ opcode: 0xc0, signal: controller.signal });
    controller.abort();
    await admin.keepAlive();
    expect(seen).toHaveLength(2);
  });
});

describe('the emulated controller', () => {
  test('identifies itself and its namespace', async () => {
    const { nvme } = await attached({ serial: 'S1', blockSize: 4096 });
    const { admin } = nvme;
    expect(await admin.identifyController()).toEqual(nvme.identify);
    expect(await admin.identifyNamespace(1)).toEqual(nvme.namespace(1).identify);
    expect(nvme.namespace(1).identify).toMatchObject({ nsze: NAMESPACE_BYTES / 4096, nlbaf: 1 });
    expect(await admin.activeNamespaces()).toEqual([1]);
    expect(await admin.activeNamespaces(1)).toEqual([]);
    const { uuid, nguid } = await admin.namespaceDescriptors(1);
    expect(uuid?.replaceAll('-', '')).toBe(nguid);
    expect(nguid).toBe(nvme.namespace(1).identify.nguid);
    expect(await admin.identifyNvmController()).toMatchObject({ wzsl: 0, dmrl: 0 });
    expect((await admin.identify(IdentifyCns.commandSetActiveNamespaces))[0]).toBe(1);
    await expect(admin.identifyNamespace(33)).rejects.toMatchObject({ sct: 0, sc: 0x0b });
    await expect(admin.identify(IdentifyCns.commandSets)).rejects.toMatchObject({ sct: 0, sc: 2 });
  });

  test('has its log pages', async () => {
    const { nvme, device } = await attached();
    const { admin } = nvme;
    const memory = await device.dma.allocate(4096);
    await nvme.namespace(1).read(memory, { lba: 0, blocks: 8 });
    expect(await admin.smartLog()).toMatchObject({
      critical_warning: 0,
      host_read_commands: 1n,
      data_units_read: 1n,
      num_err_log_entries: 0n,
    });
    expect(await admin.errorLog()).toEqual([]);
    await expect(admin.command({ opcode: 0xc0, nsid: 3 })).rejects.toMatchObject({ sct: 0, sc: 1 });
    expect(await admin.errorLog()).toMatchObject([
      { error_count: 1n, sqid: 0, status_field: 0x4001, nsid: 3 },
    ]);
    const { activeSlot, revisions } = await admin.firmwareSlotLog();
    expect(revisions[activeSlot - 1]).toBe(nvme.identify.fr);
    const pages = await admin.supportedLogPages();
    expect(pages).toEqual([LogPage.supportedLogPages, LogPage.error, LogPage.smart, 3, 4, 5]);
    const { admin: commands } = await admin.commandEffectsLog();
    expect(commands.get(AdminOpcode.identify)).toMatchObject({ supported: true, execution: 0 });
    expect(commands.get(AdminOpcode.formatNvm)).toMatchObject({ execution: 1 });
    expect(commands.has(AdminOpcode.sanitize)).toBe(false);
    expect(await admin.changedNamespaces()).toEqual([]);
  });

  test('keeps features', async () => {
    const { nvme } = await attached({ queuePairs: 4 });
    const { admin } = nvme;
    const limit = await admin.getFeature('temperatureThreshold');
    expect(limit).toEqual({ threshold: nvme.identify.wctemp, sensor: 0, type: 0 });
    await admin.setFeature('temperatureThreshold', { threshold: 340 });
    expect(await admin.getFeature(Feature.temperatureThreshold)).toBe(340);
    expect(await admin.getFeature('temperatureThreshold', { select: 'default' })).toEqual(limit);
    expect(await admin.featureCapabilities('temperatureThreshold')).toEqual({
      saveable: false,
      namespaceSpecific: false,
      changeable: true,
    });
    const vector = { argument: { vector: 2 } };
    expect(await admin.getFeature('interruptVectorConfiguration', vector)).toMatchObject({ vector: 2 });
    expect(await admin.setFeature('numberOfQueues', { submission: 9, completion: 2 })).toBe(0x0001_0003);
    await expect(admin.setFeature('arbitration', { burst: 1 }, { save: true })).rejects.toMatchObject({
      sct: 1,
      sc: 0x0d,
    });
    await admin.setFeature('keepAliveTimer', { timeout: 60_000 });
    await admin.keepAlive();
  });

  test('tells events, and takes back requests for them', async () => {
    const { nvme } = await attached();
    const { admin } = nvme;
    await admin.setFeature('asyncEventConfiguration', { criticalWarnings: 2 });
    const event = admin.asynchronousEvent();
    await admin.setFeature('temperatureThreshold', { threshold: 200 });
    expect(await event).toEqual({ type: 1, info: 1, logPage: LogPage.smart });
    expect(await admin.smartLog()).toMatchObject({ critical_warning: 2 });
    const controller = new AbortController();
    const other = expect(admin.asynchronousEvent({ signal: controller.signal })).rejects.toMatchObject({
      sct: 0,
      sc: 7,
    });
    controller.abort();
    await other;
    expect(await admin.abort(0, 0x1234)).toBe(false);
  });

  test('an error status, whose memory is used again', async () => {
    const { nvme } = await attached({}, { arenaSize: 64 << 10 });
    for (let round = 0; round < 40; round++) {
      await expect(nvme.admin.identify(0xee)).rejects.toMatchObject({ operation: 'Identify' });
    }
  });

  test('many at once', async () => {
    const { nvme } = await attached({}, { adminEntries: 4 });
    const all = await Promise.all(Array.from({ length: 50 }, () => nvme.admin.identifyController()));
    expect(new Set(all.map(({ sn }) => sn)).size).toBe(1);
  });

  test('one that is never completed', async () => {
    const { nvme } = await attached();
    await expect(nvme.admin.asynchronousEvent({ timeout: 20 })).rejects.toMatchObject(
      failure('ERR_VFIO_USER_TIMEOUT', 'within 20 ms'),
    );
  });

  test('what is outstanding fails when the controller is closed, and what comes later', async () => {
    const { nvme } = await attached();
    const event = expect(nvme.admin.asynchronousEvent()).rejects.toMatchObject({
      code: 'ERR_VFIO_USER_CLOSED',
    });
    await nvme.close();
    await event;
    await expect(nvme.admin.keepAlive()).rejects.toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
  });

  test('the device that is closed under its controller', async () => {
    const { device, nvme } = await attached();
    await device.close();
    await expect(nvme.admin.keepAlive()).rejects.toMatchObject(
      failure('ERR_VFIO_USER_CLOSED', 'closed under its NVMe controller'),
    );
    await nvme.close();
  });
});
