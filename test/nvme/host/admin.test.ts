// SPDX-License-Identifier: MIT
/** The data of admin commands, what is refused, errors, and signals. */
import { type NvmeAdmin, NvmeStatusError } from '../../../lib/nvme/host';
import { ARENA, IOVA, address, world } from './admin-world';

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
