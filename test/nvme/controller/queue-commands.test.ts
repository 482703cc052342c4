// SPDX-License-Identifier: MIT
/** The commands that create and delete I/O queues. */
import type { Command } from '../../../lib/nvme/spec';
import { Address } from './support';
import { useAdmin } from './use-host';

const t = useAdmin({ queuePairs: 4 });

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
    expect(await t.status(cq(more))).toBe(expected);
    expect(await t.status(cq())).toBe('00/00');
    expect(await t.status(cq())).toBe('01/01 DNR');
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
    expect(await t.status(cq())).toBe('00/00');
    expect(await t.status(sq(more))).toBe(expected);
    expect(await t.status(sq())).toBe('00/00');
    expect(await t.status(sq())).toBe('01/01 DNR');
  });

  test('entry sizes of CC are checked when a queue is created', async () => {
    t.host.write32(0x14, 0);
    t.host.enable();
    t.host.write32(0x14, 0x0005_0001);
    expect(await t.status(cq())).toBe('01/02 DNR');
  });

  test('deletion: submission queues first, and each once', async () => {
    await t.host.createQueues(1);
    const other = await t.host.createQueues(2);
    expect(await t.status({ opcode: 4, cdw10: 1 })).toBe('01/0c DNR');
    expect(await t.status({ opcode: 0, cdw10: 1 })).toBe('00/00');
    expect(await t.status({ opcode: 0, cdw10: 1 })).toBe('01/01 DNR');
    expect(await t.status({ opcode: 4, cdw10: 1 })).toBe('00/00');
    expect(await t.status({ opcode: 4, cdw10: 1 })).toBe('01/01 DNR');
    for (const opcode of [0, 4]) expect(await t.status({ opcode, cdw10: 0 })).toBe('01/01 DNR');
    expect((await t.host.run(other, { opcode: 0, nsid: 1 })).status).toBe('00/00');
    const again = await t.host.createQueues(1);
    expect((await t.host.run(again, { opcode: 0, nsid: 1 })).sqHead).toBe(1);
  });
});
