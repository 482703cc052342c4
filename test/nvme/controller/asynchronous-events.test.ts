// SPDX-License-Identifier: MIT
import { type Command, decodeErrorLog, decodeSmartLog } from '../../../lib/nvme/spec';
import { Address, turns } from './support';
import { useAdmin } from './use-host';

const t = useAdmin({ queuePairs: 4 });

describe('asynchronous events', () => {
  const aer: Command = { opcode: 0x0c };

  test('four requests are held, the fifth is refused', async () => {
    for (let i = 0; i < 4; i++) t.host.push(t.host.admin, aer);
    const fifth = t.host.push(t.host.admin, aer);
    t.host.ring(t.host.admin);
    expect(await t.host.completion(t.host.admin)).toMatchObject({ cid: fifth, status: '01/05 DNR' });
    await turns();
    expect(t.host.take(t.host.admin)).toBeUndefined();
  });

  test('an invalid tail is told once, and again after the error log was read', async () => {
    const queue = await t.host.createQueues();
    const first = t.host.push(t.host.admin, aer);
    t.host.ring(t.host.admin);
    t.host.write32(0x1008, 99);
    // Error, invalid doorbell write value, log page 01h
    expect(await t.host.completion(t.host.admin)).toMatchObject({ cid: first, dw0: 0x0001_0100 });
    t.host.push(t.host.admin, aer);
    t.host.ring(t.host.admin);
    t.host.write32(0x1008, 0xffff_ffff);
    await turns();
    expect(t.host.take(t.host.admin)).toBeUndefined();
    const read = t.host.push(t.host.admin, { opcode: 2, cdw10: 0x000f_0001, prp1: Address.data });
    t.host.ring(t.host.admin);
    expect((await t.host.completion(t.host.admin)).cid).toBe(read);
    expect(decodeErrorLog(t.data(64))[0]).toMatchObject({ sqid: 0xffff, cmdid: 0xffff });
    t.host.write32(0x1008, 16);
    expect((await t.host.completion(t.host.admin)).dw0).toBe(0x0001_0100);
    expect((await t.host.run(queue, { opcode: 0, nsid: 1 })).status).toBe('00/00');
    expect(t.host.controller.statistics.badDoorbells).toBe(3);
  });

  test('a doorbell of a queue that there is not; the event waits for a request', async () => {
    t.host.write32(0x1010, 1);
    const cid = t.host.push(t.host.admin, aer);
    t.host.ring(t.host.admin);
    expect(await t.host.completion(t.host.admin)).toMatchObject({ cid, dw0: 0x0001_0000 });
  });

  test('a temperature threshold below the temperature', async () => {
    expect(await t.status({ opcode: 9, cdw10: 0x0b, cdw11: 2 })).toBe('00/00');
    const cid = t.host.push(t.host.admin, aer);
    t.host.push(t.host.admin, { opcode: 9, cdw10: 4, cdw11: 200 });
    t.host.ring(t.host.admin);
    expect(await t.host.completion(t.host.admin)).toMatchObject({ cid, dw0: 0x0002_0101 });
    await t.host.completion(t.host.admin);
    expect(await t.status({ opcode: 2, cdw10: 0x007f_0002 })).toBe('00/00');
    expect(decodeSmartLog(t.data()).critical_warning).toBe(2);
  });

  test('Abort takes back a request, and nothing else', async () => {
    const cid = t.host.push(t.host.admin, aer);
    const abort = t.host.push(t.host.admin, { opcode: 8, cdw10: cid << 16 });
    t.host.ring(t.host.admin);
    expect(await t.host.completion(t.host.admin)).toMatchObject({ cid, status: '00/07' });
    expect(await t.host.completion(t.host.admin)).toMatchObject({ cid: abort, status: '00/00', dw0: 0 });
    expect(await t.host.adminCommand({ opcode: 8, cdw10: cid << 16 })).toMatchObject({
      status: '00/00',
      dw0: 1,
    });
    expect(await t.host.adminCommand({ opcode: 8, cdw10: 1 })).toMatchObject({ status: '00/00', dw0: 1 });
  });
});
