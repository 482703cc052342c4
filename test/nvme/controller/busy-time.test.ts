// SPDX-License-Identifier: MIT
/** Controller Busy Time of the SMART log: minutes with I/O commands outstanding (NVMe base 2.0, 5.16.1.3). */
import { BusyTime } from '../../../lib/nvme/controller/busy-time';
import { Address, Host } from './support';

const MINUTE = 60_000;

describe('the time that is counted', () => {
  let now: number;
  let busy: BusyTime;
  beforeEach(() => {
    now = 1000;
    busy = new BusyTime(() => now);
  });

  test('is that of commands that overlap, once', () => {
    busy.begin();
    now += MINUTE;
    busy.begin();
    now += MINUTE / 2;
    busy.end();
    expect(busy.minutes).toBe(1);
    now += MINUTE / 2;
    busy.end();
    now += 10 * MINUTE;
    expect(busy.minutes).toBe(2);
  });

  test('is that of the loop, unless a command takes its time anyway', () => {
    busy.worked(MINUTE - 1);
    expect(busy.minutes).toBe(0);
    busy.worked(1);
    expect(busy.minutes).toBe(1);
    busy.begin();
    now += MINUTE;
    busy.worked(MINUTE);
    busy.end();
    expect(busy.minutes).toBe(2);
  });

  test('ends with a reset', () => {
    busy.begin();
    busy.begin();
    now += MINUTE;
    busy.endAll();
    now += MINUTE;
    busy.endAll();
    expect(busy.minutes).toBe(1);
    busy.begin();
    now += MINUTE;
    busy.end();
    expect(busy.minutes).toBe(2);
  });
});

test('the SMART log has it', async () => {
  const host = new Host();
  host.enable();
  const queue = await host.createQueues();
  const minutes = async (): Promise<bigint> => {
    expect((await host.adminCommand({ opcode: 2, cdw10: 0x007f_0002 })).status).toBe('00/00');
    return new DataView(host.memory.bytes(Address.data, 512).slice().buffer).getBigUint64(96, true);
  };
  expect(await minutes()).toBe(0n);
  host.controller.faults.add({ on: 'read', delay: 3_600_000 });
  const cid = host.push(queue, { opcode: 2, nsid: 1, prp1: Address.data });
  host.ring(queue);
  expect(await minutes()).toBe(0n);
  const clock = performance.now.bind(performance);
  const later = jest.spyOn(performance, 'now').mockImplementation(() => clock() + 3.5 * MINUTE);
  expect(await minutes()).toBe(3n);
  expect((await host.adminCommand({ opcode: 8, cdw10: ((cid << 16) | 1) >>> 0 })).dw0).toBe(0);
  later.mockImplementation(() => clock() + 10 * MINUTE);
  expect(await minutes()).toBe(3n);
  later.mockRestore();
  host.close();
});
