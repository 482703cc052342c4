// SPDX-License-Identifier: MIT
/** Commands that faults strike, as a host sees them in its queues: how they end, when, and how often. */
import { performance } from 'node:perf_hooks';
import { type Command, decodeErrorLog } from '../../../lib/nvme/spec';
import { Address, turns, until } from './support';
import { useHost } from './use-host';

const [FLUSH, WRITE, READ] = [0, 1, 2];
const [IDENTIFY, KEEP_ALIVE] = [6, 0x18];
const CSTS = 0x1c;
const CC = 0x14;

const t = useHost();

const io = (command: Command): Command => ({ nsid: 1, prp1: Address.data, ...command });

describe('status', () => {
  test('the third write fails with Write Fault, and is not done', async () => {
    t.host.controller.faults.add('on=write,nth=3,status=write-fault');
    const outcomes: string[] = [];
    for (let lba = 0; lba < 4; lba++) {
      t.host.memory.bytes(Address.data, 512).fill(lba + 1);
      outcomes.push(await t.status({ opcode: WRITE, cdw10: lba }));
    }
    expect(outcomes).toEqual(['00/00', '00/00', '02/80', '00/00']);
    expect(await t.content(0, 4)).toEqual([1, 2, 0, 4]);
    expect(t.host.controller.statistics).toMatchObject({ errors: 1, writeCommands: 3 });
  });

  test('with Do Not Retry, and in the error log with its blocks', async () => {
    t.host.controller.faults.add('lba=8-15,status=2/0x81,dnr,count=1');
    expect(await t.status({ opcode: READ, cdw10: 4, cdw12: 4 })).toBe('02/81 DNR');
    await t.host.adminCommand({ opcode: 2, cdw10: (15 << 16) | 1 });
    expect(decodeErrorLog(t.host.memory.bytes(Address.data, 64))[0]).toMatchObject({
      sqid: 1,
      lba: 4n,
      nsid: 1,
    });
  });

  test('of an admin command', async () => {
    t.host.controller.faults.add('on=identify,count=1,status=internal-error');
    expect((await t.host.adminCommand({ opcode: IDENTIFY, cdw10: 1 })).status).toBe('00/06');
    expect((await t.host.adminCommand({ opcode: IDENTIFY, cdw10: 1 })).status).toBe('00/00');
  });

  test('only in one queue', async () => {
    const second = await t.host.createQueues(2);
    t.host.controller.faults.add('queue=2,status=internal-error');
    expect(await t.status({ opcode: FLUSH })).toBe('00/00');
    expect((await t.host.run(second, io({ opcode: FLUSH }))).status).toBe('00/06');
  });
});

describe('delay', () => {
  test('reads of blocks 0 to 7 are late, others overtake them', async () => {
    t.host.controller.faults.add('on=read,lba=0-7,delay=1h');
    const late = t.send({ opcode: READ, cdw10: 7 });
    const early = t.send({ opcode: READ, cdw10: 8 });
    expect((await t.host.completion(t.queue)).cid).toBe(early);
    await turns();
    expect(t.host.take(t.queue)).toBeUndefined();
    t.host.controller.faults.clear();
    expect(await t.status({ opcode: READ, cdw10: 0 })).toBe('00/00');
    // What was struck stays late, and a reset is not held up by it.
    t.host.write32(CC, 0);
    await until(() => t.host.read32(CSTS) === 0, 'the controller is reset');
    t.host.enable();
    t.queue = await t.host.createQueues();
    await turns();
    expect(t.host.take(t.queue)).toBeUndefined();
    expect(late).not.toBe(early);
  });

  test('when its time has come the command is done', async () => {
    await t.fill(3, 7);
    t.host.controller.faults.add('delay=40ms,count=2');
    const begin = performance.now();
    expect(await t.status({ opcode: READ, cdw10: 3, prp1: Address.data + 0x1000 })).toBe('00/00');
    expect(performance.now() - begin).toBeGreaterThanOrEqual(40);
    expect(t.host.memory.bytes(Address.data + 0x1000, 512)).toEqual(new Uint8Array(512).fill(7));
    expect((await t.host.adminCommand({ opcode: IDENTIFY, cdw10: 1 })).status).toBe('00/00');
    expect(performance.now() - begin).toBeGreaterThanOrEqual(80);
    expect(t.host.interrupts).toEqual([1, 1, 0]);
  });

  test('a failure that is late', async () => {
    t.host.controller.faults.add('delay=1ms,status=unrecovered-read-error');
    expect(await t.status({ opcode: READ })).toBe('02/81');
  });

  test('its queue is deleted when it has ended', async () => {
    t.host.controller.faults.add('on=io,delay=30ms');
    const cid = t.send({ opcode: FLUSH });
    await until(() => t.host.controller.faults.list()[0]!.struck === 1);
    expect((await t.host.adminCommand({ opcode: 0, cdw10: 1 })).status).toBe('00/00');
    expect(t.host.take(t.queue)).toMatchObject({ cid, status: '00/00' });
  });

  test('it has room for its completion', async () => {
    t.host.controller.faults.add('on=io,count=15,delay=20ms');
    for (let i = 0; i < 15; i++) t.host.push(t.queue, io({ opcode: FLUSH }));
    t.host.ring(t.queue);
    const cids = new Set<number>();
    for (let i = 0; i < 15; i++) cids.add((await t.host.completion(t.queue)).cid);
    expect(cids.size).toBe(15);
  });

  test('the client that goes away does not wait for it', async () => {
    t.host.controller.faults.add('delay=1h');
    t.send({ opcode: FLUSH });
    await until(() => t.host.controller.faults.list()[0]!.struck === 1);
    await t.host.reset();
    t.host.detach();
  });
});

describe('completions', () => {
  test('hang: the command never completes, the others do, and nothing holds up a deletion or a reset', async () => {
    t.host.controller.faults.add('nth=1,hang');
    const lost = t.send({ opcode: FLUSH });
    const { cid } = await t.run({ opcode: FLUSH });
    expect(cid).not.toBe(lost);
    expect((await t.host.adminCommand({ opcode: 0, cdw10: 1 })).status).toBe('00/00');
    await t.host.reset();
  });

  test('twice: two entries with the same id', async () => {
    t.host.controller.faults.add('on=flush,count=1,twice');
    const cid = t.send({ opcode: FLUSH });
    const [one, two] = [await t.host.completion(t.queue), await t.host.completion(t.queue)];
    expect(one).toEqual({ cid, status: '00/00', dw0: 0, sqHead: 1, sqId: 1 });
    expect(two).toEqual(one);
    expect(await t.status({ opcode: FLUSH })).toBe('00/00');
  });

  test('twice in a queue that has room for one', async () => {
    t.host.controller.faults.add('on=io,twice');
    for (let i = 0; i < 15; i++) t.host.push(t.queue, io({ opcode: FLUSH }));
    t.host.ring(t.queue);
    const cids: number[] = [];
    for (let i = 0; i < 30; i++) cids.push((await t.host.completion(t.queue)).cid);
    expect(new Set(cids).size).toBe(15);
    expect(cids.slice(0, 4)).toEqual([cids[0], cids[0], cids[2], cids[2]]);
  });

  test('cid: that of nobody, and one that was asked for', async () => {
    t.host.controller.faults.add('nth=1,cid');
    t.host.controller.faults.add('nth=2,cid=0xabc');
    const cid = t.send({ opcode: FLUSH });
    expect((await t.host.completion(t.queue)).cid).toBe(~cid & 0xffff);
    t.send({ opcode: FLUSH });
    expect((await t.host.completion(t.queue)).cid).toBe(0xabc);
    expect(await t.status({ opcode: FLUSH })).toBe('00/00');
  });

  test('of admin commands', async () => {
    t.host.controller.faults.add('on=keep-alive,nth=1,twice');
    t.host.controller.faults.add('on=keep-alive,nth=2,cid=7');
    const cid = t.send({ opcode: KEEP_ALIVE }, t.host.admin);
    expect([
      (await t.host.completion(t.host.admin)).cid,
      (await t.host.completion(t.host.admin)).cid,
    ]).toEqual([cid, cid]);
    t.send({ opcode: KEEP_ALIVE }, t.host.admin);
    expect((await t.host.completion(t.host.admin)).cid).toBe(7);
  });

  test('silent: the completion is there, the interrupt is not', async () => {
    t.host.controller.faults.add('on=flush,nth=2,silent');
    expect(await t.status({ opcode: FLUSH })).toBe('00/00');
    expect(t.host.interrupts).toEqual([1]);
    expect(await t.status({ opcode: FLUSH })).toBe('00/00');
    await turns();
    expect(t.host.interrupts).toEqual([1]);
    expect(await t.status({ opcode: FLUSH })).toBe('00/00');
    expect(t.host.interrupts).toEqual([1, 1]);
  });

  test('what is silent comes with the interrupt of what was done with it', async () => {
    t.host.controller.faults.add('on=flush,silent');
    t.host.push(t.queue, io({ opcode: READ }));
    t.host.push(t.queue, io({ opcode: FLUSH }));
    t.host.ring(t.queue);
    await t.host.completion(t.queue);
    await t.host.completion(t.queue);
    expect(t.host.interrupts).toEqual([1]);
  });
});

describe('while the controller runs', () => {
  test('faults come and go', async () => {
    const { faults } = t.host.controller;
    const id = faults.add('on=read,status=internal-error');
    expect(await t.status({ opcode: READ })).toBe('00/06');
    expect(faults.list()).toEqual([{ id, fault: 'on=read,status=internal-error', matched: 1, struck: 1 }]);
    expect(faults.remove(id)).toBe(true);
    expect(faults.remove(id)).toBe(false);
    expect(await t.status({ opcode: READ })).toBe('00/00');
    faults.add({ on: 'read', status: 'internal-error', dnr: true });
    expect(await t.status({ opcode: READ })).toBe('00/06 DNR');
    expect(faults.clear()).toBe(1);
    expect(await t.status({ opcode: READ })).toBe('00/00');
  });

  test('they stay across resets and clients, and go on counting', async () => {
    t.host.controller.faults.add('on=flush,nth=3,status=internal-error');
    for (let i = 0; i < 2; i++) expect(await t.status({ opcode: FLUSH })).toBe('00/00');
    await t.host.reset();
    t.host.detach();
    t.host.attach();
    t.host.enable();
    t.queue = await t.host.createQueues();
    expect(await t.status({ opcode: FLUSH })).toBe('00/06');
  });

  test('chance strikes the same commands again', async () => {
    const strikes = async (): Promise<string[]> => {
      const id = t.host.controller.faults.add('on=flush,probability=30%,seed=4,status=internal-error');
      const outcomes: string[] = [];
      for (let i = 0; i < 40; i++) outcomes.push(await t.status({ opcode: FLUSH }));
      t.host.controller.faults.remove(id);
      return outcomes;
    };
    const first = await strikes();
    expect(first).toContain('00/06');
    expect(first).toContain('00/00');
    expect(await strikes()).toEqual(first);
  });
});
