// SPDX-License-Identifier: MIT
import { FileBackend } from '../../../lib/nvme/backends';
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
import { Address, Host, turns, until } from './support';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

let host: Host;
beforeEach(() => {
  host = new Host({ queuePairs: 4 });
  host.enable();
});
afterEach(() => {
  host.close();
});

/** Status of an admin command. */
async function status(command: Command): Promise<string> {
  return (await host.adminCommand(command)).status;
}

function data(length = 4096): Uint8Array {
  return host.memory.bytes(Address.data, length);
}

describe('Identify', () => {
  test('controller', async () => {
    expect(await status({ opcode: 6, cdw10: 1 })).toBe('00/00');
    expect(decodeIdentifyController(data())).toMatchObject({
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
    expect(decodeIdentifyController(data()).subnqn).toMatch(
      /^nqn\.2014-08\.org\.nvmexpress:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/,
    );
  });

  test('namespace, its descriptors, and lists', async () => {
    expect(await status({ opcode: 6, nsid: 1 })).toBe('00/00');
    expect(decodeIdentifyNamespace(data())).toMatchObject({
      nsze: 32768,
      ncap: 32768,
      lbafs: [
        { ds: 9, ms: 0 },
        { ds: 12, ms: 0 },
      ],
    });
    expect(await status({ opcode: 6, nsid: 1, cdw10: 3 })).toBe('00/00');
    const { nguid, uuid, csi } = decodeNamespaceDescriptors(data());
    expect([uuid?.replaceAll('-', ''), csi]).toEqual([nguid, 0]);
    expect(await status({ opcode: 6, cdw10: 2 })).toBe('00/00');
    expect(decodeNamespaceList(data())).toEqual([1]);
    expect(await status({ opcode: 6, cdw10: 2, nsid: 1 })).toBe('00/00');
    expect(decodeNamespaceList(data())).toEqual([]);
    expect(await status({ opcode: 6, cdw10: 7 })).toBe('00/00');
    expect(decodeNamespaceList(data())).toEqual([1]);
    for (const [cdw10, nsid] of [
      [5, 1],
      [6, 0],
    ] as const) {
      data().fill(0xff);
      expect(await status({ opcode: 6, cdw10, nsid })).toBe('00/00');
      expect(data().every((byte) => byte === 0)).toBe(true);
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
    expect(await status(command)).toBe(expected);
  });

  test('two PRPs with an offset', async () => {
    const command = { opcode: 6, cdw10: 1, prp1: Address.data + 0xf00, prp2: Address.data + 0x5000 };
    expect(await status(command)).toBe('00/00');
    expect(host.memory.bytes(Address.data + 0xf00 + 4, 4)).toEqual(new TextEncoder().encode('TEST'));
    expect(host.memory.bytes(Address.data + 0x5000 + 516 - 0x100, 1)[0]).toBe(32); // NN
  });
});

describe('Get Log Page', () => {
  const log = (page: number, length: number, more: Command | object = {}): Command => ({
    opcode: 2,
    cdw10: (((length / 4 - 1) << 16) | page) >>> 0,
    ...more,
  });

  test('every page', async () => {
    expect(await status(log(0, 1024))).toBe('00/00');
    expect(decodeSupportedLogPages(data())).toEqual([0, 1, 2, 3, 4, 5]);
    expect(await status(log(2, 512))).toBe('00/00');
    expect(decodeSmartLog(data())).toMatchObject({
      temperature: 298,
      avail_spare: 100,
      critical_warning: 0,
    });
    expect(await status(log(3, 512))).toBe('00/00');
    expect(decodeFirmwareSlotLog(data())).toMatchObject({
      activeSlot: 1,
      revisions: ['1.0', '', '', '', '', '', ''],
    });
    expect(await status(log(5, 4096))).toBe('00/00');
    const effects = decodeCommandEffectsLog(data());
    expect([...effects.admin.keys()]).toEqual([0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 0x18, 0x80]);
    expect([...effects.io.keys()]).toEqual([0, 1, 2, 4, 5, 8, 9, 0x0c, 0x19]);
  });

  test('the error log has the newest error first; an offset skips', async () => {
    await host.adminCommand({ opcode: 0xc0, nsid: 7 });
    const { cid } = await host.adminCommand({ opcode: 6, cdw10: 0xee });
    expect(await status(log(1, 4096))).toBe('00/00');
    const entries = decodeErrorLog(data());
    expect(entries.map((entry) => entry.error_count)).toEqual([2n, 1n]);
    // Invalid Field with DNR.
    expect(entries[0]).toMatchObject({ sqid: 0, cmdid: cid, status_field: 0x4002, phase_tag: 0 });
    expect(await status(log(1, 64, { cdw12: 64 }))).toBe('00/00');
    expect(decodeErrorLog(data(64))[0]).toMatchObject({ error_count: 1n, nsid: 7 });
  });

  test('more than the page has is zeros', async () => {
    data(8192).fill(0xaa);
    expect(await status(log(2, 8192, { prp2: Address.data + 4096 }))).toBe('00/00');
    expect(
      data(8192)
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
    expect(await status(log(page, length, more))).toBe(expected);
  });
});

describe('features', () => {
  const get = (feature: number, select = 0, cdw11 = 0): Promise<{ status: string; dw0: number }> =>
    host.adminCommand({ opcode: 10, cdw10: (select << 8) | feature, cdw11 });
  const set = (feature: number, cdw11: number, more: object = {}): Promise<{ status: string; dw0: number }> =>
    host.adminCommand({ opcode: 9, cdw10: feature, cdw11, ...more });

  test.each([
    [0x01, 0x0102_0305],
    [0x05, 0x000a],
    [0x08, 0x0407],
    [0x0a, 1],
    [0x0b, 0x100],
  ])('feature %i is set, read, and back to its default after a reset', async (feature, value) => {
    expect((await set(feature, value)).status).toBe('00/00');
    expect((await get(feature)).dw0).toBe(value);
    expect((await get(feature, 1)).dw0).toBe(0);
    expect((await get(feature, 2)).dw0).toBe(0);
    expect((await get(feature, 3)).dw0).toBe(4);
    host.write32(0x14, 0);
    host.enable();
    expect((await get(feature)).dw0).toBe(0);
  });

  test('number of queues: no more than there are, and not once there are some', async () => {
    expect((await get(7)).dw0).toBe(0x0003_0003);
    expect((await set(7, 0x0001_00ff)).dw0).toBe(0x0001_0003);
    expect((await get(7)).dw0).toBe(0x0001_0003);
    expect((await set(7, 0xffff)).status).toBe('00/02 DNR');
    expect((await set(7, 0xffff_0000)).status).toBe('00/02 DNR');
    await host.createQueues();
    expect((await set(7, 0)).status).toBe('00/0c DNR');
    expect(await status({ opcode: 5, prp1: Address.cq, cdw10: 0x000f_0003, cdw11: 1 })).toBe('01/01 DNR');
  });

  test('interrupt vector configuration is kept by vector', async () => {
    expect((await set(9, 0x1_0002)).status).toBe('00/00');
    expect((await get(9, 0, 2)).dw0).toBe(0x1_0002);
    expect((await get(9, 0, 3)).dw0).toBe(3);
    expect((await get(9, 0, 5)).status).toBe('00/02 DNR');
    expect((await set(9, 5)).status).toBe('00/02 DNR');
  });

  test('power state 0 is the only one', async () => {
    expect((await set(2, 0)).status).toBe('00/00');
    expect((await set(2, 1)).status).toBe('00/02 DNR');
  });

  test('temperature thresholds', async () => {
    expect((await get(4)).dw0).toBe(343);
    expect((await set(4, 0x10_0010)).status).toBe('00/00');
    expect((await get(4, 0, 0x10_0000)).dw0).toBe(0x10);
    expect((await get(4)).dw0).toBe(343);
    expect((await set(4, 0x1_0000)).status).toBe('00/02 DNR');
    expect((await set(4, 0x20_0000)).status).toBe('00/02 DNR');
    expect((await set(4, 0xf_0000 | 400)).status).toBe('00/00');
    expect((await get(4)).dw0).toBe(400);
  });

  test.each<[string, number, number, object, string]>([
    ['one that there is not', 0x7f, 0, {}, '00/02 DNR'],
    ['a volatile write cache that there is not', 6, 1, {}, '00/02 DNR'],
    ['saving', 1, 0, { cdw10: 0x8000_0001 }, '01/0d DNR'],
    ['a namespace', 1, 0, { nsid: 1 }, '01/0f DNR'],
    ['all namespaces', 1, 0, { nsid: 0xffff_ffff }, '00/00'],
  ])('Set Features of %s', async (_, feature, value, more, expected) => {
    expect((await set(feature, value, more)).status).toBe(expected);
  });

  test('Get Features refuses what there is not', async () => {
    expect((await get(0x7f)).status).toBe('00/02 DNR');
    expect((await get(6)).status).toBe('00/02 DNR');
    expect((await get(1, 4)).status).toBe('00/02 DNR');
  });

  test('without Keep Alive in time the controller fails', async () => {
    expect((await set(0x0f, 1)).status).toBe('00/00');
    expect((await get(0x0f)).dw0).toBe(1000);
    expect(await status({ opcode: 0x18 })).toBe('00/00');
    expect(host.read32(0x1c)).toBe(1);
    await until(() => host.read32(0x1c) === 3);
    expect(host.controller.fault).toMatch(/Keep Alive/);
    host.write32(0x14, 0);
    expect(host.read32(0x1c)).toBe(0);
  });

  test('after a shutdown nobody waits for Keep Alive', async () => {
    expect((await set(0x0f, 1)).status).toBe('00/00');
    host.write32(0x14, 0x0046_4001);
    // This one has its timer set later: when it has expired, so would have the other.
    const later = new Host();
    later.enable();
    expect((await later.adminCommand({ opcode: 9, cdw10: 0x0f, cdw11: 1 })).status).toBe('00/00');
    await until(() => later.read32(0x1c) === 3);
    expect([host.read32(0x1c), host.controller.fault]).toEqual([9, null]);
    later.close();
  });
});

test('a file has a volatile write cache, which Flush and write-through make durable', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'nvme-'));
  const backend = new FileBackend(join(folder, 'disk'), 1 << 20);
  const flush = jest.spyOn(backend, 'flush');
  const drive = new Host({ backend });
  drive.enable();
  expect((await drive.adminCommand({ opcode: 6, cdw10: 1 })).status).toBe('00/00');
  expect(drive.memory.bytes(Address.data + 525, 1)[0]).toBe(7);
  const queue = await drive.createQueues();
  const write: Command = { opcode: 1, nsid: 1, prp1: Address.data };
  expect((await drive.run(queue, write)).status).toBe('00/00');
  expect(flush).toHaveBeenCalledTimes(0);
  expect((await drive.run(queue, { opcode: 0, nsid: 0xffff_ffff })).status).toBe('00/00');
  expect(flush).toHaveBeenCalledTimes(1);
  expect((await drive.run(queue, { ...write, cdw12: 0x4000_0000 })).status).toBe('00/00');
  expect(flush).toHaveBeenCalledTimes(2);
  expect((await drive.adminCommand({ opcode: 9, cdw10: 6, cdw11: 0 })).status).toBe('00/00');
  expect((await drive.run(queue, write)).status).toBe('00/00');
  expect(flush).toHaveBeenCalledTimes(3);
  flush.mockRejectedValueOnce(new Error('EIO'));
  expect((await drive.run(queue, { opcode: 0, nsid: 1 })).status).toBe('02/80');
  drive.write32(0x14, 0x0046_4001);
  expect(drive.read32(0x1c)).toBe(5); // RDY, and shutdown occurring
  await until(() => drive.read32(0x1c) === 9);
  expect(flush).toHaveBeenCalledTimes(5);
  drive.close();
  rmSync(folder, { recursive: true });
});

describe('queues', () => {
  const cq = (more: Command | object = {}): Command => ({
    opcode: 5,
    prp1: Address.cq,
    cdw10: 0x000f_0001,
    cdw11: 1,
    ...more,
  });
  const sq = (more: Command | object = {}): Command => ({
    opcode: 1,
    prp1: Address.sq,
    cdw10: 0x000f_0001,
    cdw11: 0x1_0001,
    ...more,
  });

  test.each<[string, object, string]>([
    ['id 0', { cdw10: 0x000f_0000 }, '01/01 DNR'],
    ['an id beyond the number of queues', { cdw10: 0x000f_0005 }, '01/01 DNR'],
    ['1 entry', { cdw10: 0x0000_0001 }, '01/02 DNR'],
    ['more than MQES entries', { cdw10: 0x0400_0001 }, '01/02 DNR'],
    ['a list of pages', { cdw11: 0 }, '00/02 DNR'],
    ['an address inside a page', { prp1: Address.cq + 64 }, '00/13 DNR'],
    ['a vector that there is not', { cdw11: 0x0005_0003 }, '01/08 DNR'],
    ['memory that is not mapped', { prp1: 0x4000_0000 }, '00/04'],
  ])('Create I/O Completion Queue refuses %s', async (_, more, expected) => {
    expect(await status(cq(more))).toBe(expected);
    expect(await status(cq())).toBe('00/00');
    expect(await status(cq())).toBe('01/01 DNR');
  });

  test.each<[string, object, string]>([
    ['id 0', { cdw10: 0x000f_0000 }, '01/01 DNR'],
    ['an id beyond the number of queues', { cdw10: 0x000f_0005 }, '01/01 DNR'],
    ['1 entry', { cdw10: 0x0000_0001 }, '01/02 DNR'],
    ['more than MQES entries', { cdw10: 0x0400_0001 }, '01/02 DNR'],
    ['the admin completion queue', { cdw11: 0x0_0001 }, '01/01 DNR'],
    ['a completion queue beyond their number', { cdw11: 0x9_0001 }, '01/01 DNR'],
    ['a completion queue that there is not', { cdw11: 0x2_0001 }, '01/00 DNR'],
    ['a list of pages', { cdw11: 0x1_0000 }, '00/02 DNR'],
    ['an address inside a page', { prp1: Address.sq + 64 }, '00/13 DNR'],
    ['memory that is not mapped', { prp1: 0x4000_0000 }, '00/04'],
  ])('Create I/O Submission Queue refuses %s', async (_, more, expected) => {
    expect(await status(cq())).toBe('00/00');
    expect(await status(sq(more))).toBe(expected);
    expect(await status(sq())).toBe('00/00');
    expect(await status(sq())).toBe('01/01 DNR');
  });

  test('entry sizes of CC are checked when a queue is created', async () => {
    host.write32(0x14, 0);
    host.enable();
    host.write32(0x14, 0x0005_0001);
    expect(await status(cq())).toBe('01/02 DNR');
  });

  test('deletion: submission queues first, and each once', async () => {
    await host.createQueues(1);
    const other = await host.createQueues(2);
    expect(await status({ opcode: 4, cdw10: 1 })).toBe('01/0c DNR');
    expect(await status({ opcode: 0, cdw10: 1 })).toBe('00/00');
    expect(await status({ opcode: 0, cdw10: 1 })).toBe('01/01 DNR');
    expect(await status({ opcode: 4, cdw10: 1 })).toBe('00/00');
    expect(await status({ opcode: 4, cdw10: 1 })).toBe('01/01 DNR');
    for (const opcode of [0, 4]) expect(await status({ opcode, cdw10: 0 })).toBe('01/01 DNR');
    expect((await host.run(other, { opcode: 0, nsid: 1 })).status).toBe('00/00');
    const again = await host.createQueues(1);
    expect((await host.run(again, { opcode: 0, nsid: 1 })).sqHead).toBe(1);
  });
});

describe('asynchronous events', () => {
  const aer: Command = { opcode: 0x0c };

  test('four requests are held, the fifth is refused', async () => {
    for (let i = 0; i < 4; i++) host.push(host.admin, aer);
    const fifth = host.push(host.admin, aer);
    host.ring(host.admin);
    expect(await host.completion(host.admin)).toMatchObject({ cid: fifth, status: '01/05 DNR' });
    await turns();
    expect(host.take(host.admin)).toBeUndefined();
  });

  test('an invalid tail is told once, and again after the error log was read', async () => {
    const queue = await host.createQueues();
    const first = host.push(host.admin, aer);
    host.ring(host.admin);
    host.write32(0x1008, 99);
    // Error, invalid doorbell write value, log page 01h
    expect(await host.completion(host.admin)).toMatchObject({ cid: first, dw0: 0x0001_0100 });
    host.push(host.admin, aer);
    host.ring(host.admin);
    host.write32(0x1008, 0xffff_ffff);
    await turns();
    expect(host.take(host.admin)).toBeUndefined();
    const read = host.push(host.admin, { opcode: 2, cdw10: 0x000f_0001, prp1: Address.data });
    host.ring(host.admin);
    expect((await host.completion(host.admin)).cid).toBe(read);
    expect(decodeErrorLog(data(64))[0]).toMatchObject({ sqid: 0xffff, cmdid: 0xffff });
    host.write32(0x1008, 16);
    expect((await host.completion(host.admin)).dw0).toBe(0x0001_0100);
    expect((await host.run(queue, { opcode: 0, nsid: 1 })).status).toBe('00/00');
    expect(host.controller.statistics.badDoorbells).toBe(3);
  });

  test('a doorbell of a queue that there is not; the event waits for a request', async () => {
    host.write32(0x1010, 1);
    const cid = host.push(host.admin, aer);
    host.ring(host.admin);
    expect(await host.completion(host.admin)).toMatchObject({ cid, dw0: 0x0001_0000 });
  });

  test('a temperature threshold below the temperature', async () => {
    expect(await status({ opcode: 9, cdw10: 0x0b, cdw11: 2 })).toBe('00/00');
    const cid = host.push(host.admin, aer);
    host.push(host.admin, { opcode: 9, cdw10: 4, cdw11: 200 });
    host.ring(host.admin);
    expect(await host.completion(host.admin)).toMatchObject({ cid, dw0: 0x0002_0101 });
    await host.completion(host.admin);
    expect(await status({ opcode: 2, cdw10: 0x007f_0002 })).toBe('00/00');
    expect(decodeSmartLog(data()).critical_warning).toBe(2);
  });

  test('Abort takes back a request, and nothing else', async () => {
    const cid = host.push(host.admin, aer);
    const abort = host.push(host.admin, { opcode: 8, cdw10: cid << 16 });
    host.ring(host.admin);
    expect(await host.completion(host.admin)).toMatchObject({ cid, status: '00/07' });
    expect(await host.completion(host.admin)).toMatchObject({ cid: abort, status: '00/00', dw0: 0 });
    expect(await host.adminCommand({ opcode: 8, cdw10: cid << 16 })).toMatchObject({
      status: '00/00',
      dw0: 1,
    });
    expect(await host.adminCommand({ opcode: 8, cdw10: 1 })).toMatchObject({ status: '00/00', dw0: 1 });
  });
});

test.each([0x03, 0x07, 0x0d, 0x10, 0x11, 0x14, 0x15, 0x19, 0x7c, 0x81, 0x84, 0xc0, 0xff])(
  'admin opcode %i is unknown',
  async (opcode) => {
    expect(await status({ opcode })).toBe('00/01 DNR');
  },
);

test('the admin queue interrupts on vector 0', async () => {
  host.interrupts.length = 0;
  await status({ opcode: 6, cdw10: 1 });
  expect(host.interrupts).toEqual([0]);
  host.delivers = false;
  expect(await status({ opcode: 6, cdw10: 1 })).toBe('00/00');
  expect(host.read32(0x1c)).toBe(1);
});
