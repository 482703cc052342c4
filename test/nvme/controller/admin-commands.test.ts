// SPDX-License-Identifier: MIT
/** Identify, log pages, and what all admin commands have alike. */
import {
  type Command,
  decodeCommandEffectsLog,
  decodeErrorLog,
  decodeFirmwareSlotLog,
  decodeIdentifyController,
  decodeIdentifyNamespace,
  decodeNamespaceDescriptors,
  decodeNamespaceList,
  decodeSmartLog,
  decodeSupportedLogPages,
} from '../../../lib/nvme/spec';
import { Address } from './support';
import { useAdmin } from './use-host';

const t = useAdmin({ queuePairs: 4 });

describe('Identify', () => {
  test('controller', async () => {
    expect(await t.status({ opcode: 6, cdw10: 1 })).toBe('00/00');
    expect(decodeIdentifyController(t.data())).toMatchObject({
      vid: 0x4e58,
      sn: 'TEST',
      mn: 'vfio-user memory drive',
      mdts: 5,
      ver: 0x0001_0400,
      cntrltype: 1,
      sqes: 0x66,
      cqes: 0x44,
      nn: 32,
      mnan: 32,
      oaes: 0x100,
      oacs: 2,
      oncs: 0x1df,
      vwc: 6,
      tnvmcap: 16n << 20n,
    });
    expect(decodeIdentifyController(t.data()).subnqn).toMatch(
      /^nqn\.2014-08\.org\.nvmexpress:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/,
    );
  });

  test('namespace, its descriptors, and lists', async () => {
    expect(await t.status({ opcode: 6, nsid: 1 })).toBe('00/00');
    expect(decodeIdentifyNamespace(t.data())).toMatchObject({
      nsze: 32768,
      ncap: 32768,
      lbafs: [
        { ds: 9, ms: 0 },
        { ds: 12, ms: 0 },
      ],
    });
    expect(await t.status({ opcode: 6, nsid: 1, cdw10: 3 })).toBe('00/00');
    const { nguid, uuid, csi } = decodeNamespaceDescriptors(t.data());
    expect([uuid?.replaceAll('-', ''), csi]).toEqual([nguid, 0]);
    expect(await t.status({ opcode: 6, cdw10: 2 })).toBe('00/00');
    expect(decodeNamespaceList(t.data())).toEqual([1]);
    expect(await t.status({ opcode: 6, cdw10: 2, nsid: 1 })).toBe('00/00');
    expect(decodeNamespaceList(t.data())).toEqual([]);
    expect(await t.status({ opcode: 6, cdw10: 7 })).toBe('00/00');
    expect(decodeNamespaceList(t.data())).toEqual([1]);
    for (const [cdw10, nsid] of [
      [5, 1],
      [6, 0],
    ] as const) {
      t.data().fill(0xff);
      expect(await t.status({ opcode: 6, cdw10, nsid })).toBe('00/00');
      expect(t.data().every((byte) => byte === 0)).toBe(true);
    }
  });

  test.each<[string, Command, string]>([
    ['namespace 0', { opcode: 6, nsid: 0 }, '00/0b DNR'],
    ['namespace 33, which is above NN', { opcode: 6, nsid: 33 }, '00/0b DNR'],
    ['the broadcast namespace', { opcode: 6, nsid: 0xffff_ffff }, '00/0b DNR'],
    ['descriptors of namespace 33', { opcode: 6, cdw10: 3, nsid: 33 }, '00/0b DNR'],
    ['descriptors of an inactive namespace', { opcode: 6, cdw10: 3, nsid: 2 }, '00/02 DNR'],
    ['a list above all namespaces', { opcode: 6, cdw10: 2, nsid: 0xffff_fffe }, '00/0b DNR'],
    ['data of namespace 33 of a command set', { opcode: 6, cdw10: 5, nsid: 33 }, '00/0b DNR'],
    ['a command set that there is not', { opcode: 6, cdw10: 6, cdw11: 0x0200_0000 }, '00/02 DNR'],
    ['a CNS that there is not', { opcode: 6, cdw10: 0x1c }, '00/02 DNR'],
    ['an SGL', { opcode: 6, cdw10: 1, psdt: 1 }, '00/02 DNR'],
    ['a fused command', { opcode: 6, cdw10: 1, fuse: 1 }, '00/02 DNR'],
    ['PRP1 that is misaligned', { opcode: 6, cdw10: 1, prp1: Address.data + 2 }, '00/13 DNR'],
    ['PRP2 that is misaligned', { opcode: 6, cdw10: 1, prp1: Address.data + 16, prp2: 8 }, '00/13 DNR'],
    ['PRP1 that is not mapped', { opcode: 6, cdw10: 1, prp1: 0x7fff_0000 }, '00/04'],
  ])('%s is refused', async (_, command, expected) => {
    expect(await t.status(command)).toBe(expected);
  });

  test('two PRPs with an offset', async () => {
    const command = { opcode: 6, cdw10: 1, prp1: Address.data + 0xf00, prp2: Address.data + 0x5000 };
    expect(await t.status(command)).toBe('00/00');
    expect(t.host.memory.bytes(Address.data + 0xf00 + 4, 4)).toEqual(new TextEncoder().encode('TEST'));
    expect(t.host.memory.bytes(Address.data + 0x5000 + 516 - 0x100, 1)[0]).toBe(32); // NN
  });
});

describe('Get Log Page', () => {
  const log = (page: number, length: number, more: Command | object = {}): Command => ({
    opcode: 2,
    cdw10: (((length / 4 - 1) << 16) | page) >>> 0,
    ...more,
  });

  test('every page', async () => {
    expect(await t.status(log(0, 1024))).toBe('00/00');
    expect(decodeSupportedLogPages(t.data())).toEqual([0, 1, 2, 3, 4, 5]);
    expect(await t.status(log(2, 512))).toBe('00/00');
    expect(decodeSmartLog(t.data())).toMatchObject({
      temperature: 298,
      avail_spare: 100,
      critical_warning: 0,
    });
    expect(await t.status(log(3, 512))).toBe('00/00');
    expect(decodeFirmwareSlotLog(t.data())).toMatchObject({
      activeSlot: 1,
      revisions: ['1.0', '', '', '', '', '', ''],
    });
    expect(await t.status(log(5, 4096))).toBe('00/00');
    const effects = decodeCommandEffectsLog(t.data());
    expect([...effects.admin.keys()]).toEqual([0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 0x18, 0x80]);
    expect([...effects.io.keys()]).toEqual([0, 1, 2, 4, 5, 8, 9, 0x0c, 0x19]);
  });

  test('the error log has the newest error first; an offset skips', async () => {
    await t.host.adminCommand({ opcode: 0xc0, nsid: 7 });
    const { cid } = await t.host.adminCommand({ opcode: 6, cdw10: 0xee });
    expect(await t.status(log(1, 4096))).toBe('00/00');
    const entries = decodeErrorLog(t.data());
    expect(entries.map((entry) => entry.error_count)).toEqual([2n, 1n]);
    // Invalid Field with DNR.
    expect(entries[0]).toMatchObject({ sqid: 0, cmdid: cid, status_field: 0x4002, phase_tag: 0 });
    expect(await t.status(log(1, 64, { cdw12: 64 }))).toBe('00/00');
    expect(decodeErrorLog(t.data(64))[0]).toMatchObject({ error_count: 1n, nsid: 7 });
  });

  test('more than the page has is zeros', async () => {
    t.data(8192).fill(0xaa);
    expect(await t.status(log(2, 8192, { prp2: Address.data + 4096 }))).toBe('00/00');
    expect(
      t
        .data(8192)
        .subarray(512)
        .every((byte) => byte === 0),
    ).toBe(true);
  });

  test.each<[string, number, number, object, string]>([
    ['a page that there is not', 0x0d, 512, {}, '01/09 DNR'],
    ['an offset beyond the page', 2, 512, { cdw12: 516 }, '00/02 DNR'],
    ['an offset above 2^32', 2, 512, { cdw13: 1 }, '00/02 DNR'],
    ['an offset that is no multiple of 4', 2, 512, { cdw12: 2 }, '00/02 DNR'],
    ['more than MDTS', 2, 131076, {}, '00/02 DNR'],
    ['a length above 2^32', 2, 512, { cdw11: 0xffff }, '00/02 DNR'],
  ])('%s is refused', async (_, page, length, more, expected) => {
    expect(await t.status(log(page, length, more))).toBe(expected);
  });
});

test.each([0x03, 0x07, 0x0d, 0x10, 0x11, 0x14, 0x15, 0x19, 0x7c, 0x81, 0x84, 0xc0, 0xff])(
  'admin opcode %i is unknown',
  async (opcode) => {
    expect(await t.status({ opcode })).toBe('00/01 DNR');
  },
);

test('the admin queue interrupts on vector 0', async () => {
  t.host.interrupts.length = 0;
  await t.status({ opcode: 6, cdw10: 1 });
  expect(t.host.interrupts).toEqual([0]);
  t.host.delivers = false;
  expect(await t.status({ opcode: 6, cdw10: 1 })).toBe('00/00');
  expect(t.host.read32(0x1c)).toBe(1);
});
