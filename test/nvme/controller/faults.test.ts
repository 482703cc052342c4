// SPDX-License-Identifier: MIT
/** Faults on demand, as a host sees them in its queues, its memory and its registers. */
import { performance } from 'node:perf_hooks';
import { BackendResult, createBackend, customBackend } from '../../../lib/nvme/backends';
import { type Command, decodeErrorLog } from '../../../lib/nvme/spec';
import { gate } from '../../support/gate';
import { Address, Host, type HostQueue, type Result, turns, until } from './support';

const [FLUSH, WRITE, READ, COMPARE, WRITE_ZEROES] = [0, 1, 2, 5, 8];
const [IDENTIFY, ASYNC_EVENT_REQUEST, KEEP_ALIVE] = [6, 0x0c, 0x18];
const CSTS = 0x1c;
const CC = 0x14;

let host: Host;
let queue: HostQueue;

async function start(options: ConstructorParameters<typeof Host>[0] = {}): Promise<void> {
  host = new Host(options);
  host.enable();
  queue = await host.createQueues();
  host.interrupts.length = 0;
}
beforeEach(() => start());
afterEach(() => {
  jest.restoreAllMocks();
  host.close();
});

const io = (command: Command): Command => ({ nsid: 1, prp1: Address.data, ...command });
const run = (command: Command): Promise<Result> => host.run(queue, io(command));
const status = async (command: Command): Promise<string> => (await run(command)).status;

/** Sends a command and does not wait. Returns its id. */
function send(command: Command, to = queue): number {
  const cid = host.push(to, io(command));
  host.ring(to);
  return cid;
}

function fill(length: number, value: number): Uint8Array {
  return host.memory.bytes(Address.data, length).fill(value).slice();
}

/** Reads blocks without faults. */
async function stored(lba: number, blocks: number): Promise<Uint8Array> {
  const at = Address.data + 0x4000;
  expect(await status({ opcode: READ, cdw10: lba, cdw12: blocks - 1, prp1: at, prp2: at + 0x1000 })).toBe(
    '00/00',
  );
  return host.memory.bytes(at, blocks * 512).slice();
}

function differingBits(one: Uint8Array, other: Uint8Array): number {
  let count = 0;
  for (const [i, byte] of one.entries()) {
    for (let rest = byte ^ other[i]!; rest !== 0; rest &= rest - 1) count++;
  }
  return count;
}

describe('status', () => {
  test('the third write fails with Write Fault, and is not done', async () => {
    host.controller.faults.add('on=write,nth=3,status=write-fault');
    const outcomes: string[] = [];
    for (let lba = 0; lba < 4; lba++) {
      fill(512, lba + 1);
      outcomes.push(await status({ opcode: WRITE, cdw10: lba }));
    }
    expect(outcomes).toEqual(['00/00', '00/00', '02/80', '00/00']);
    expect([...(await stored(0, 4))].filter((_, i) => i % 512 === 0)).toEqual([1, 2, 0, 4]);
    expect(host.controller.statistics).toMatchObject({ errors: 1, writeCommands: 3 });
  });

  test('with Do Not Retry, and in the error log with its blocks', async () => {
    host.controller.faults.add('lba=8-15,status=2/0x81,dnr,count=1');
    expect(await status({ opcode: READ, cdw10: 4, cdw12: 4 })).toBe('02/81 DNR');
    await host.adminCommand({ opcode: 2, cdw10: (15 << 16) | 1 });
    expect(decodeErrorLog(host.memory.bytes(Address.data, 64))[0]).toMatchObject({
      sqid: 1,
      lba: 4n,
      nsid: 1,
    });
  });

  test('of an admin command', async () => {
    host.controller.faults.add('on=identify,count=1,status=internal-error');
    expect((await host.adminCommand({ opcode: IDENTIFY, cdw10: 1 })).status).toBe('00/06');
    expect((await host.adminCommand({ opcode: IDENTIFY, cdw10: 1 })).status).toBe('00/00');
  });

  test('only in one queue', async () => {
    const second = await host.createQueues(2);
    host.controller.faults.add('queue=2,status=internal-error');
    expect(await status({ opcode: FLUSH })).toBe('00/00');
    expect((await host.run(second, io({ opcode: FLUSH }))).status).toBe('00/06');
  });
});

describe('delay', () => {
  test('reads of blocks 0 to 7 are late, others overtake them', async () => {
    host.controller.faults.add('on=read,lba=0-7,delay=1h');
    const late = send({ opcode: READ, cdw10: 7 });
    const early = send({ opcode: READ, cdw10: 8 });
    expect((await host.completion(queue)).cid).toBe(early);
    await turns();
    expect(host.take(queue)).toBeUndefined();
    host.controller.faults.clear();
    expect(await status({ opcode: READ, cdw10: 0 })).toBe('00/00');
    // What was struck stays late, and a reset is not held up by it.
    host.write32(CC, 0);
    await until(() => host.read32(CSTS) === 0, 'the controller is reset');
    host.enable();
    queue = await host.createQueues();
    await turns();
    expect(host.take(queue)).toBeUndefined();
    expect(late).not.toBe(early);
  });

  test('when its time has come the command is done', async () => {
    fill(512, 7);
    expect(await status({ opcode: WRITE, cdw10: 3 })).toBe('00/00');
    host.controller.faults.add('delay=40ms,count=2');
    const begin = performance.now();
    expect(await status({ opcode: READ, cdw10: 3, prp1: Address.data + 0x1000 })).toBe('00/00');
    expect(performance.now() - begin).toBeGreaterThanOrEqual(40);
    expect(host.memory.bytes(Address.data + 0x1000, 512)).toEqual(new Uint8Array(512).fill(7));
    expect((await host.adminCommand({ opcode: IDENTIFY, cdw10: 1 })).status).toBe('00/00');
    expect(performance.now() - begin).toBeGreaterThanOrEqual(80);
    expect(host.interrupts).toEqual([1, 1, 0]);
  });

  test('a failure that is late', async () => {
    host.controller.faults.add('delay=1ms,status=unrecovered-read-error');
    expect(await status({ opcode: READ })).toBe('02/81');
  });

  test('its queue is deleted when it has ended', async () => {
    host.controller.faults.add('on=io,delay=30ms');
    const cid = send({ opcode: FLUSH });
    await until(() => host.controller.faults.list()[0]!.struck === 1);
    expect((await host.adminCommand({ opcode: 0, cdw10: 1 })).status).toBe('00/00');
    expect(host.take(queue)).toMatchObject({ cid, status: '00/00' });
  });

  test('it has room for its completion', async () => {
    host.controller.faults.add('on=io,count=15,delay=20ms');
    for (let i = 0; i < 15; i++) host.push(queue, io({ opcode: FLUSH }));
    host.ring(queue);
    const cids = new Set<number>();
    for (let i = 0; i < 15; i++) cids.add((await host.completion(queue)).cid);
    expect(cids.size).toBe(15);
  });

  test('the client that goes away does not wait for it', async () => {
    host.controller.faults.add('delay=1h');
    send({ opcode: FLUSH });
    await until(() => host.controller.faults.list()[0]!.struck === 1);
    await host.reset();
    host.detach();
  });
});

describe('completions', () => {
  test('hang: the command never completes, the others do, and nothing holds up a deletion or a reset', async () => {
    host.controller.faults.add('nth=1,hang');
    const lost = send({ opcode: FLUSH });
    const { cid } = await run({ opcode: FLUSH });
    expect(cid).not.toBe(lost);
    expect((await host.adminCommand({ opcode: 0, cdw10: 1 })).status).toBe('00/00');
    await host.reset();
  });

  test('twice: two entries with the same id', async () => {
    host.controller.faults.add('on=flush,count=1,twice');
    const cid = send({ opcode: FLUSH });
    const [one, two] = [await host.completion(queue), await host.completion(queue)];
    expect(one).toEqual({ cid, status: '00/00', dw0: 0, sqHead: 1, sqId: 1 });
    expect(two).toEqual(one);
    expect(await status({ opcode: FLUSH })).toBe('00/00');
  });

  test('twice in a queue that has room for one', async () => {
    host.controller.faults.add('on=io,twice');
    for (let i = 0; i < 15; i++) host.push(queue, io({ opcode: FLUSH }));
    host.ring(queue);
    const cids: number[] = [];
    for (let i = 0; i < 30; i++) cids.push((await host.completion(queue)).cid);
    expect(new Set(cids).size).toBe(15);
    expect(cids.slice(0, 4)).toEqual([cids[0], cids[0], cids[2], cids[2]]);
  });

  test('cid: that of nobody, and one that was asked for', async () => {
    host.controller.faults.add('nth=1,cid');
    host.controller.faults.add('nth=2,cid=0xabc');
    const cid = send({ opcode: FLUSH });
    expect((await host.completion(queue)).cid).toBe(~cid & 0xffff);
    send({ opcode: FLUSH });
    expect((await host.completion(queue)).cid).toBe(0xabc);
    expect(await status({ opcode: FLUSH })).toBe('00/00');
  });

  test('of admin commands', async () => {
    host.controller.faults.add('on=keep-alive,nth=1,twice');
    host.controller.faults.add('on=keep-alive,nth=2,cid=7');
    const cid = send({ opcode: KEEP_ALIVE }, host.admin);
    expect([(await host.completion(host.admin)).cid, (await host.completion(host.admin)).cid]).toEqual([
      cid,
      cid,
    ]);
    send({ opcode: KEEP_ALIVE }, host.admin);
    expect((await host.completion(host.admin)).cid).toBe(7);
  });

  test('silent: the completion is there, the interrupt is not', async () => {
    host.controller.faults.add('on=flush,nth=2,silent');
    expect(await status({ opcode: FLUSH })).toBe('00/00');
    expect(host.interrupts).toEqual([1]);
    expect(await status({ opcode: FLUSH })).toBe('00/00');
    await turns();
    expect(host.interrupts).toEqual([1]);
    expect(await status({ opcode: FLUSH })).toBe('00/00');
    expect(host.interrupts).toEqual([1, 1]);
  });

  test('what is silent comes with the interrupt of what was done with it', async () => {
    host.controller.faults.add('on=flush,silent');
    host.push(queue, io({ opcode: READ }));
    host.push(queue, io({ opcode: FLUSH }));
    host.ring(queue);
    await host.completion(queue);
    await host.completion(queue);
    expect(host.interrupts).toEqual([1]);
  });
});

/** The memory backend, and one that takes its time. */
describe.each(['synchronous', 'asynchronous'])('data of a backend that is %s', (kind) => {
  beforeEach(async () => {
    if (kind === 'synchronous') return;
    host.close();
    const memory = createBackend({ kind: 'memory', size: 16 << 20 });
    await start({
      backend: customBackend({
        size: memory.size,
        read: async (offset, target) => {
          await turns(1);
          expect(memory.read(offset, target, 0, target.length)).toBe(BackendResult.success);
        },
        write: async (offset, source) => {
          await turns(1);
          expect(memory.write(offset, source, 0, source.length)).toBe(BackendResult.success);
        },
      }),
    });
  });

  test('flip: what a read brings differs by so many bits from what is stored', async () => {
    const written = fill(4096, 0x5a);
    expect(await status({ opcode: WRITE, cdw10: 16, cdw12: 7 })).toBe('00/00');
    host.controller.faults.add('on=read,nth=1,flip=3,seed=1');
    expect(await status({ opcode: READ, cdw10: 16, cdw12: 7 })).toBe('00/00');
    expect(differingBits(host.memory.bytes(Address.data, 4096), written)).toBe(3);
    expect(await stored(16, 8)).toEqual(written);
  });

  test('flip: what a write stores differs, and the buffer of the host does not change', async () => {
    const written = fill(4096, 0x5a);
    host.controller.faults.add('on=write,nth=1,flip,seed=1');
    // In two parts that do not lie together.
    host.memory.bytes(Address.data + 0x8000, 2048).fill(0x5a);
    const prp1 = Address.data + 2048;
    expect(await status({ opcode: WRITE, cdw10: 16, cdw12: 7, prp1, prp2: Address.data + 0x8000 })).toBe(
      '00/00',
    );
    expect(host.memory.bytes(Address.data, 4096)).toEqual(written);
    expect(differingBits(await stored(16, 8), written)).toBe(1);
  });

  test('torn: the first blocks land, and success is told', async () => {
    fill(4096, 1);
    expect(await status({ opcode: WRITE, cdw10: 16, cdw12: 7 })).toBe('00/00');
    fill(4096, 2);
    host.controller.faults.add('on=write,torn=3,count=1');
    expect(await status({ opcode: WRITE, cdw10: 16, cdw12: 7 })).toBe('00/00');
    expect([...(await stored(16, 8))].filter((_, i) => i % 512 === 0)).toEqual([2, 2, 2, 1, 1, 1, 1, 1]);
    host.controller.faults.add('on=write-zeroes,torn=1,count=1');
    expect(await status({ opcode: WRITE_ZEROES, cdw10: 16, cdw12: 7 })).toBe('00/00');
    expect([...(await stored(16, 8))].filter((_, i) => i % 512 === 0)).toEqual([0, 2, 2, 1, 1, 1, 1, 1]);
    fill(4096, 3);
    host.controller.faults.add('torn=0,count=1');
    expect(await status({ opcode: WRITE, cdw10: 16, cdw12: 7 })).toBe('00/00');
    expect((await stored(16, 1))[0]).toBe(0);
  });

  test('lost: nothing lands, and success is told', async () => {
    fill(512, 1);
    expect(await status({ opcode: WRITE, cdw10: 5 })).toBe('00/00');
    fill(512, 2);
    host.controller.faults.add('lost,count=1');
    expect(await status({ opcode: WRITE, cdw10: 5 })).toBe('00/00');
    expect((await stored(5, 1))[0]).toBe(1);
    expect(await status({ opcode: COMPARE, cdw10: 5 })).toBe('02/85 DNR');
    expect(await status({ opcode: WRITE, cdw10: 5 })).toBe('00/00');
    expect(await status({ opcode: COMPARE, cdw10: 5 })).toBe('00/00');
  });

  test('the same seed flips the same bits', async () => {
    const damaged = async (seed: number): Promise<Uint8Array> => {
      host.controller.faults.add(`on=read,nth=1,flip=5,seed=${seed}`);
      fill(4096, 0);
      expect(await status({ opcode: READ, cdw12: 7 })).toBe('00/00');
      return host.memory.bytes(Address.data, 4096).slice();
    };
    const first = await damaged(9);
    expect(await damaged(9)).toEqual(first);
    expect(await damaged(10)).not.toEqual(first);
  });

  test('a command that is wrong fails as it does without faults', async () => {
    host.controller.faults.add('flip');
    expect(await status({ opcode: READ, cdw10: 32768 })).toBe('00/80 DNR');
    expect(await status({ opcode: READ, nsid: 2 })).toBe('00/02 DNR');
    expect(await status({ opcode: READ, prp1: 0x4000_0000 })).toBe('00/04');
  });
});

test('flip and torn of data that goes by message', async () => {
  const distant = host.memory.add(0x100_0000, 0x1000, { distant: true }).bytes;
  const command = { cdw12: 7, prp1: 0x100_0000 };
  distant.fill(9);
  host.controller.faults.add('on=write,torn=2');
  expect(await status({ opcode: WRITE, ...command })).toBe('00/00');
  host.controller.faults.add('on=read,nth=1,flip=2');
  expect(await status({ opcode: READ, ...command })).toBe('00/00');
  expect(differingBits(distant, new Uint8Array(4096).fill(9, 0, 1024))).toBe(2);
});

describe('the controller', () => {
  test('fatal: CSTS.CFS, until it is reset', async () => {
    host.controller.faults.add('on=write,nth=2,fatal');
    expect(await status({ opcode: WRITE })).toBe('00/00');
    send({ opcode: WRITE });
    send({ opcode: READ });
    await until(() => host.read32(CSTS) === 3, 'CSTS.CFS');
    await turns();
    expect(host.take(queue)).toBeUndefined();
    expect(host.controller.fault).toBe('a fault was asked for');
    host.write32(CC, 0);
    await until(() => host.read32(CSTS) === 0);
    host.enable();
    queue = await host.createQueues();
    expect(await status({ opcode: WRITE })).toBe('00/00');
  });

  test('event: an Asynchronous Event Request completes, and so does the command', async () => {
    const request = send({ opcode: ASYNC_EVENT_REQUEST }, host.admin);
    host.controller.faults.add('on=read,count=1,event=temperature');
    expect(await status({ opcode: READ })).toBe('00/00');
    // NVMe base 2.0, figure 146: type SMART, temperature threshold, log page 2.
    expect(await host.completion(host.admin)).toMatchObject({
      cid: request,
      status: '00/00',
      dw0: 0x02_01_01,
    });
  });

  test('disconnect: the client is gone before the command completes', async () => {
    host.controller.faults.add('on=read,nth=1,disconnect');
    send({ opcode: READ });
    await until(() => host.read32(CSTS) === 0, 'the controller is reset');
    expect(host.take(queue, false)).toBeUndefined();
  });

  test('remove: registers read as ones, and nothing happens any more', async () => {
    host.controller.faults.add('on=read,nth=1,remove');
    send({ opcode: READ });
    await until(() => host.state.unplugged, 'the device is gone');
    await turns();
    expect(host.take(queue, false)).toBeUndefined();
    expect(host.memory.busMaster).toBe(false);
  });

  test('at once', async () => {
    const { faults } = host.controller;
    const request = send({ opcode: ASYNC_EVENT_REQUEST }, host.admin);
    faults.inject('event=persistent-internal-error');
    expect(await host.completion(host.admin)).toMatchObject({ cid: request, dw0: 0x01_03_00 });
    faults.inject({ fatal: true });
    expect(host.read32(CSTS)).toBe(3);
    faults.inject('remove');
    expect(host.state.unplugged).toBe(true);
    faults.inject('disconnect');
    expect(host.state.unplugged).toBe(false);
    // Without a client.
    for (const action of ['disconnect', 'remove', 'event=spare']) faults.inject(action);
    expect(() => {
      faults.inject('hang');
    }).toThrow('at once can be done one of fatal, event, disconnect, remove');
  });
});

describe('registers', () => {
  /** An access as the server does it. */
  const access = (kind: 'read' | 'write', offset: number, data: Uint8Array): void | Promise<void> =>
    kind === 'read'
      ? host.state.regions.get(0)?.read?.(offset, data)
      : host.state.regions.get(0)?.write?.(offset, data, false);

  test('are read late', async () => {
    host.controller.faults.add('register=csts,access=read,delay=30ms');
    const begin = performance.now();
    const data = new Uint8Array(4);
    await access('read', CSTS, data);
    expect(performance.now() - begin).toBeGreaterThanOrEqual(30);
    expect([...data]).toEqual([1, 0, 0, 0]);
    // Others are not.
    expect(access('read', CC, new Uint8Array(4))).toBeUndefined();
  });

  test('are written late', async () => {
    host.controller.faults.add('register=cc,delay=20ms');
    await access('write', CC, new Uint8Array(4));
    expect(host.read32(CSTS)).toBe(0);
  });

  test('an error of a late access is told as without faults', async () => {
    host.controller.faults.add('register=any,delay=1ms');
    await expect(access('read', 2, new Uint8Array(4))).rejects.toMatchObject({ errno: 22 });
  });

  test('the end of the client ends the wait', async () => {
    const { opened, open } = gate();
    host.controller.faults.add('register=csts,delay=10h');
    const late = Promise.resolve(access('read', CSTS, new Uint8Array(4))).then(open);
    host.detach();
    await opened;
    await late;
  });

  test('fatal, remove and disconnect', () => {
    host.controller.faults.add('register=csts,nth=2,fatal');
    expect([host.read32(CSTS), host.read32(CSTS)]).toEqual([1, 3]);
    host.controller.faults.add('register=csts,nth=1,remove');
    expect(host.read32(CSTS)).toBe(0xffff_ffff);
    host.controller.faults.add('register=aqa,nth=1,disconnect');
    host.write32(0x24, 0);
    expect(host.state.unplugged).toBe(false);
  });
});

describe('while the controller runs', () => {
  test('faults come and go', async () => {
    const { faults } = host.controller;
    const id = faults.add('on=read,status=internal-error');
    expect(await status({ opcode: READ })).toBe('00/06');
    expect(faults.list()).toEqual([{ id, fault: 'on=read,status=internal-error', matched: 1, struck: 1 }]);
    expect(faults.remove(id)).toBe(true);
    expect(faults.remove(id)).toBe(false);
    expect(await status({ opcode: READ })).toBe('00/00');
    faults.add({ on: 'read', status: 'internal-error', dnr: true });
    expect(await status({ opcode: READ })).toBe('00/06 DNR');
    expect(faults.clear()).toBe(1);
    expect(await status({ opcode: READ })).toBe('00/00');
  });

  test('they stay across resets and clients, and go on counting', async () => {
    host.controller.faults.add('on=flush,nth=3,status=internal-error');
    for (let i = 0; i < 2; i++) expect(await status({ opcode: FLUSH })).toBe('00/00');
    await host.reset();
    host.detach();
    host.attach();
    host.enable();
    queue = await host.createQueues();
    expect(await status({ opcode: FLUSH })).toBe('00/06');
  });

  test('chance strikes the same commands again', async () => {
    const strikes = async (): Promise<string[]> => {
      const id = host.controller.faults.add('on=flush,probability=30%,seed=4,status=internal-error');
      const outcomes: string[] = [];
      for (let i = 0; i < 40; i++) outcomes.push(await status({ opcode: FLUSH }));
      host.controller.faults.remove(id);
      return outcomes;
    };
    const first = await strikes();
    expect(first).toContain('00/06');
    expect(first).toContain('00/00');
    expect(await strikes()).toEqual(first);
  });
});
