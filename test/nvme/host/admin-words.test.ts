// SPDX-License-Identifier: MIT
/** The words that admin commands send, and what is made of their answers (NVMe base 2.0, 5). */
import type { NvmeAdmin } from '../../../lib/nvme/host';
import { address, sends, world } from './admin-world';

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
