// SPDX-License-Identifier: MIT
import { Xoshiro128 } from '../../../lib/random';
import { type Delay, drawDelay } from '../../../lib/nvme/faults/delay';
import { parseFault } from '../../../lib/nvme/faults/parse';
import { FaultPlan, type Strike } from '../../../lib/nvme/faults/plan';
import { type Command, encodeCommand } from '../../../lib/nvme/spec';

const READ = 2;
const WRITE = 1;

function planOf(...faults: string[]): FaultPlan {
  const plan = new FaultPlan();
  for (const fault of faults) plan.add(parseFault(fault));
  return plan;
}

/** What happens to a command; it lies in the middle of a queue, as it does there. */
function strike(plan: FaultPlan, command: Partial<Command>, queue = 1): Strike | null {
  const words = new Uint32Array(48);
  encodeCommand(words, 16, { opcode: READ, nsid: 1, ...command });
  return plan.command(queue, new Int32Array(words.buffer), 16);
}

function struck(plan: FaultPlan, count: number, command: Partial<Command> = {}): number[] {
  return Array.from({ length: count }, (_, i) => i + 1).filter(() => strike(plan, command) !== null);
}

describe('what matches', () => {
  test('opcode and kind of queue', () => {
    const plan = planOf('on=read,hang');
    expect(strike(plan, { opcode: READ })).toMatchObject({ action: { kind: 'hang' } });
    expect(strike(plan, { opcode: WRITE })).toBeNull();
    expect(strike(plan, { opcode: READ }, 0)).toBeNull(); // Get Log Page
  });

  test('the queue', () => {
    const plan = planOf('queue=2,hang');
    expect([1, 2, 3].map((queue) => strike(plan, {}, queue) !== null)).toEqual([false, true, false]);
  });

  test('the namespace, also of commands for all of them', () => {
    const plan = planOf('namespace=2,hang');
    expect([1, 2, 3, 0xffff_ffff].map((nsid) => strike(plan, { nsid }) !== null)).toEqual([
      false,
      true,
      false,
      true,
    ]);
  });

  test.each([
    [0, 1, false],
    [9, 1, false],
    [8, 2, false],
    [9, 2, true],
    [0, 100, true],
    [10, 1, true],
    [20, 1, true],
    [20, 5, true],
    [21, 1, false],
    [2 ** 33 + 15, 1, false],
  ])('blocks 10 to 20 by a command at %d of %d blocks: %s', (lba, blocks, hit) => {
    const plan = planOf('lba=10-20,hang');
    const command = { cdw10: lba % 2 ** 32, cdw11: Math.floor(lba / 2 ** 32), cdw12: blocks - 1 };
    expect(strike(plan, command) !== null).toBe(hit);
  });

  test('upper bits of word 12 are no blocks, and blocks of 2^32 and more are found', () => {
    const plan = planOf('lba=0x200000003,hang');
    expect(strike(plan, { cdw10: 0, cdw11: 2, cdw12: 0xffff_0003 })).not.toBeNull();
    expect(strike(plan, { cdw10: 0, cdw11: 2, cdw12: 0xffff_0002 })).toBeNull();
    expect(strike(planOf('lba=0xfffffffff,hang'), { cdw10: 0xffff_ffff, cdw11: 0xf })).not.toBeNull();
  });

  test('registers by overlap and direction', () => {
    const plan = planOf('register=csts,access=read,delay=1ms');
    expect(plan.register(0x1c, 4, 'read')).toMatchObject({ delay: 1 });
    expect(plan.register(0x18, 8, 'read')).not.toBeNull();
    expect(plan.register(0x18, 4, 'read')).toBeNull();
    expect(plan.register(0x20, 4, 'read')).toBeNull();
    expect(plan.register(0x1c, 4, 'write')).toBeNull();
    expect(planOf('register=doorbells,fatal').register(0x1008, 4, 'write')).not.toBeNull();
    expect(planOf('register=any,fatal').register(0, 4, 'write')).not.toBeNull();
  });
});

describe('when it strikes', () => {
  test.each([
    ['nth=3,hang', [3]],
    ['every=3,hang', [3, 6, 9]],
    ['count=2,hang', [1, 2]],
    ['every=2,count=2,hang', [2, 4]],
    ['hang', [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]],
  ])('%s', (fault, expected) => {
    expect(struck(planOf(fault), 10)).toEqual(expected);
  });

  test('chance follows from the seed', () => {
    const hits = (seed: number): number[] => struck(planOf(`probability=10%,seed=${seed},hang`), 1000);
    expect(hits(1)).toEqual(hits(1));
    expect(hits(1)).not.toEqual(hits(2));
    expect(hits(1).length).toBeGreaterThan(60);
    expect(hits(1).length).toBeLessThan(140);
    expect(struck(planOf('probability=10%,count=3,hang'), 1000)).toHaveLength(3);
    // Without a seed it is 0.
    expect(struck(planOf('probability=10%,hang'), 1000)).toEqual(hits(0));
  });

  test('chance does not depend on other faults', () => {
    const alone = struck(planOf('probability=10%,seed=3,on=read,hang'), 500);
    const plan = planOf('probability=50%,seed=3,delay=normal:1ms:1ms', 'probability=10%,seed=3,on=read,hang');
    const beside = Array.from({ length: 500 }, (_, i) => i + 1).filter(
      () => strike(plan, {})?.action?.kind === 'hang',
    );
    expect(beside).toEqual(alone);
  });
});

describe('several faults', () => {
  test('delays add up, and the first action is done', () => {
    const plan = planOf(
      'delay=5ms',
      'on=read,delay=10ms,status=internal-error',
      'twice,delay=100ms',
      'silent',
    );
    expect(strike(plan, {})).toMatchObject({
      delay: 15,
      silent: true,
      action: { kind: 'status', status: 6 },
    });
    expect(plan.list().map(({ struck }) => struck)).toEqual([1, 1, 0, 1]);
    expect(strike(plan, { opcode: WRITE })).toMatchObject({ delay: 105, action: { kind: 'twice' } });
  });

  test('each counts what matches it', () => {
    const plan = planOf('nth=1,hang', 'nth=2,lost,on=read');
    expect([strike(plan, {}), strike(plan, {}), strike(plan, {})].map((each) => each?.action?.kind)).toEqual([
      'hang',
      'lost',
      undefined,
    ]);
  });
});

describe('the list', () => {
  test('tells what was done, and shrinks', () => {
    const plan = planOf('on=read,every=2,hang', 'register=csts,delay=1ms');
    for (let i = 0; i < 5; i++) strike(plan, {});
    expect(plan.list()).toEqual([
      { id: 1, fault: 'on=read,every=2,hang', matched: 5, struck: 2 },
      { id: 2, fault: 'register=csts,delay=1ms', matched: 0, struck: 0 },
    ]);
    expect(plan.remove(1)).toBe(true);
    expect(plan.remove(1)).toBe(false);
    expect(plan.add(parseFault('hang'))).toBe(3);
    expect(plan.clear()).toBe(2);
    expect(plan.list()).toEqual([]);
  });

  test('what cannot strike any more costs nothing', () => {
    const plan = planOf('nth=2,hang');
    expect([plan.strikesCommands, plan.strikesRegisters]).toEqual([true, false]);
    strike(plan, {});
    expect(plan.strikesCommands).toBe(true);
    strike(plan, {});
    expect(plan.strikesCommands).toBe(false);
    const id = plan.add(parseFault('register=csts,count=1,fatal'));
    expect([plan.strikesCommands, plan.strikesRegisters]).toEqual([false, true]);
    plan.register(0x1c, 4, 'read');
    expect(plan.strikesRegisters).toBe(false);
    plan.remove(id);
    expect(plan.list()).toHaveLength(1);
  });
});

describe('delays', () => {
  const draws = (delay: Delay): number[] => {
    const random = Xoshiro128.fromSeed(5);
    return Array.from({ length: 20_000 }, () => drawDelay(delay, random));
  };
  const mean = (values: number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
  const deviation = (values: number[]): number => {
    const middle = mean(values);
    return Math.sqrt(mean(values.map((value) => (value - middle) ** 2)));
  };

  test('uniform', () => {
    const values = draws({ kind: 'uniform', least: 10, most: 20 });
    expect(Math.min(...values)).toBeGreaterThanOrEqual(10);
    expect(Math.max(...values)).toBeLessThanOrEqual(20);
    expect(mean(values)).toBeCloseTo(15, 0);
    expect(deviation(values)).toBeCloseTo(10 / Math.sqrt(12), 0);
  });

  test('normal, cut at 0', () => {
    const values = draws({ kind: 'normal', mean: 100, deviation: 10 });
    expect(Math.abs(mean(values) - 100)).toBeLessThan(0.5);
    expect(Math.abs(deviation(values) - 10)).toBeLessThan(0.5);
    const cut = draws({ kind: 'normal', mean: 0, deviation: 10 });
    expect(Math.min(...cut)).toBe(0);
    expect(cut.filter((value) => value === 0).length).toBeGreaterThan(9000);
  });

  test('exponential', () => {
    const values = draws({ kind: 'exponential', mean: 50 });
    expect(Math.min(...values)).toBeGreaterThanOrEqual(0);
    expect(Math.abs(mean(values) - 50)).toBeLessThan(2);
    expect(Math.abs(deviation(values) - 50)).toBeLessThan(2);
  });
});
