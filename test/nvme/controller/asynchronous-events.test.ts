// SPDX-License-Identifier: MIT
import { type Command, decodeErrorLog, decodeSmartLog } from '../../../lib/nvme/spec';
import { Address, Host, turns } from './support';

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
