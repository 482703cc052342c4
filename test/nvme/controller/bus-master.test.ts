// SPDX-License-Identifier: MIT
/** While Bus Master Enable is clear the controller reaches no memory and sends no message; then it goes on (PCI 3.0, 6.2.2). */
import { performance } from 'node:perf_hooks';
import { gate } from '../../support/gate';
import { Address, Host, turns, until, type HostQueue } from './support';

const [CONFIG, COMMAND] = [7, 4];
const [READ, FLUSH, KEEP_ALIVE] = [2, 0, 0x18];
/** A page that is reached by message. */
const DISTANT = 0x100_0000;

let host: Host;
let queue: HostQueue;
const busMaster = (on: boolean): void => {
  host.write(COMMAND, Uint8Array.of(on ? 6 : 2, 4), CONFIG);
};

beforeEach(async () => {
  host = new Host();
  busMaster(true);
  host.enable();
  queue = await host.createQueues();
  host.interrupts.length = 0;
});
afterEach(() => {
  jest.restoreAllMocks();
  host.close();
});

test('commands wait in their queue, however long, and are done with their interrupts when it is set', async () => {
  busMaster(false);
  const { otherCommands } = host.controller.statistics;
  host.push(queue, { opcode: FLUSH, nsid: 1 });
  host.ring(queue);
  host.push(host.admin, { opcode: KEEP_ALIVE });
  host.ring(host.admin);
  await turns();
  // Far longer than a queue may be unmapped.
  const now = performance.now.bind(performance);
  jest.spyOn(performance, 'now').mockImplementation(() => now() + 60_000);
  await turns();
  expect(host.controller.statistics.otherCommands).toBe(otherCommands);
  expect([host.take(queue), host.take(host.admin), host.interrupts]).toEqual([undefined, undefined, []]);
  expect(host.controller.fault).toBeNull();
  jest.restoreAllMocks();
  busMaster(true);
  expect((await host.completion(queue)).status).toBe('00/00');
  expect((await host.completion(host.admin)).status).toBe('00/00');
  expect(host.interrupts.sort()).toEqual([0, 1]);
});

test('a command that runs keeps its completion and its data back', async () => {
  host.memory.add(DISTANT, 0x1000, { distant: true });
  const { opened, open } = gate();
  host.memory.gate = opened;
  const command = { opcode: READ, nsid: 1, cdw12: 15 };
  // One page is written by message, and is under way; two follow it.
  host.push(queue, { ...command, prp1: DISTANT, prp2: Address.data });
  host.ring(queue);
  await until(() => host.memory.messages.length === 1);
  busMaster(false);
  open();
  await turns();
  expect(host.memory.messages).toEqual(['write 1000000+1000']);
  expect([host.take(queue), host.interrupts]).toEqual([undefined, []]);
  busMaster(true);
  expect((await host.completion(queue)).status).toBe('00/00');
  expect([host.memory.messages.length, host.interrupts]).toEqual([2, [1]]);
});

test('a command that ends meanwhile is completed afterwards', async () => {
  const { opened, open } = gate();
  host.memory.add(DISTANT, 0x1000, { distant: true });
  host.memory.gate = opened;
  host.push(queue, { opcode: READ, nsid: 1, cdw12: 7, prp1: DISTANT });
  host.ring(queue);
  await until(() => host.memory.messages.length === 1);
  busMaster(false);
  open();
  await turns();
  expect([host.take(queue), host.interrupts]).toEqual([undefined, []]);
  busMaster(true);
  expect((await host.completion(queue)).status).toBe('00/00');
  expect(host.interrupts).toEqual([1]);
});

test('what the host has not taken yet is interrupted for again: the message may have been dropped', async () => {
  host.push(queue, { opcode: FLUSH, nsid: 1 });
  host.ring(queue);
  await until(() => host.interrupts.length === 1);
  busMaster(false);
  busMaster(true);
  expect(host.interrupts).toEqual([1, 1]);
  expect(host.take(queue)?.status).toBe('00/00');
  busMaster(false);
  busMaster(true);
  expect(host.interrupts).toEqual([1, 1]);
});

test('a controller may be enabled before', async () => {
  host.write32(0x14, 0);
  busMaster(false);
  host.enable();
  expect(host.read32(0x1c)).toBe(1);
  host.push(host.admin, { opcode: KEEP_ALIVE });
  host.ring(host.admin);
  await turns();
  busMaster(true);
  expect((await host.completion(host.admin)).status).toBe('00/00');
});

test.each<[string, () => unknown]>([
  [
    'of the controller',
    () => {
      host.write32(0x14, 0);
    },
  ],
  ['of the device', () => host.reset()],
])('a reset %s ends what waits', async (_, reset) => {
  host.memory.add(DISTANT, 0x2000, { distant: true });
  const { opened, open } = gate();
  host.memory.gate = opened;
  host.push(queue, { opcode: READ, nsid: 1, cdw12: 15, prp1: DISTANT, prp2: DISTANT + 0x1000 });
  host.ring(queue);
  await until(() => host.memory.messages.length === 1);
  busMaster(false);
  open();
  await turns();
  await reset();
  await until(() => host.read32(0x1c) === 0);
  expect(host.memory.messages).toHaveLength(1);
  busMaster(true);
  host.enable();
  expect((await host.adminCommand({ opcode: KEEP_ALIVE })).status).toBe('00/00');
});
