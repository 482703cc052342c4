// SPDX-License-Identifier: MIT
/** Features that are a value, and what they make the controller do. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FileBackend } from '../../../lib/nvme/backends';
import type { Command } from '../../../lib/nvme/spec';
import { Address, Host, until } from './support';
import { useAdmin } from './use-host';

const t = useAdmin({ queuePairs: 4 });

describe('features', () => {
  const get = (feature: number, select = 0, cdw11 = 0): Promise<{ status: string; dw0: number }> =>
    t.host.adminCommand({ opcode: 10, cdw10: (select << 8) | feature, cdw11 });
  const set = (feature: number, cdw11: number, more: object = {}): Promise<{ status: string; dw0: number }> =>
    t.host.adminCommand({ opcode: 9, cdw10: feature, cdw11, ...more });

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
    t.host.write32(0x14, 0);
    t.host.enable();
    expect((await get(feature)).dw0).toBe(0);
  });

  test('number of queues: no more than there are, and not once there are some', async () => {
    expect((await get(7)).dw0).toBe(0x0003_0003);
    expect((await set(7, 0x0001_00ff)).dw0).toBe(0x0001_0003);
    expect((await get(7)).dw0).toBe(0x0001_0003);
    expect((await set(7, 0xffff)).status).toBe('00/02 DNR');
    expect((await set(7, 0xffff_0000)).status).toBe('00/02 DNR');
    await t.host.createQueues();
    expect((await set(7, 0)).status).toBe('00/0c DNR');
    expect(await t.status({ opcode: 5, prp1: Address.cq, cdw10: 0x000f_0003, cdw11: 1 })).toBe('01/01 DNR');
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
    // More than a minute to look in; it is rounded up to seconds.
    expect((await set(0x0f, 89_001)).status).toBe('00/00');
    expect((await get(0x0f)).dw0).toBe(90_000);
    expect(await t.status({ opcode: 0x18 })).toBe('00/00');
    expect(t.host.read32(0x1c)).toBe(1);
    expect((await set(0x0f, 1)).status).toBe('00/00');
    await until(() => t.host.read32(0x1c) === 3);
    expect(t.host.controller.fault).toMatch(/Keep Alive/);
    t.host.write32(0x14, 0);
    expect(t.host.read32(0x1c)).toBe(0);
  });

  test('after a shutdown nobody waits for Keep Alive', async () => {
    expect((await set(0x0f, 1)).status).toBe('00/00');
    t.host.write32(0x14, 0x0046_4001);
    // This one has its timer set later: when it has expired, so would have the other.
    const later = new Host();
    later.enable();
    expect((await later.adminCommand({ opcode: 9, cdw10: 0x0f, cdw11: 1 })).status).toBe('00/00');
    await until(() => later.read32(0x1c) === 3);
    expect([t.host.read32(0x1c), t.host.controller.fault]).toEqual([9, null]);
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
