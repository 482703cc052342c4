// SPDX-License-Identifier: MIT
import { DmaBatchError } from '../../lib/dma/batch';
import { DmaContainer, devicesOf } from '../../lib/dma/container';
import type { DmaRange } from '../../lib/dma/memory';
import { formatRange } from '../../lib/dma/table';
import type { DmaChange, DmaTarget, DmaTargetLog } from '../../lib/dma/target';
import { VfioUserError } from '../../lib/errors';
import { atEnd, failure } from '../client/support';

const PAGE = 4096;
const [ENOENT, EEXIST, EBUSY] = [2, 17, 16];

/** A refusal of a device, as a transport tells it. */
const refusal = (errno: number): VfioUserError =>
  new VfioUserError('ERR_VFIO_USER_REMOTE', `errno ${errno}`, { errno });

/** A device without a socket. It answers a call when it is told to. */
class FakeTarget implements DmaTarget {
  readonly maxDmaMaps = 65_535;
  readonly dmaPageSize = PAGE;
  readonly dirtyLog: DmaTargetLog = {
    mark: () => undefined,
    checkUnmap: () => PAGE,
    unmap: () => Promise.reject(refusal(EBUSY)),
    take: () => {
      throw new Error('nothing is logged');
    },
  };
  /** What it was told, call by call. */
  readonly calls: string[][] = [];
  /** Why it fails, by change, such as `map 0x1000+0x1000`; the first is used up. */
  readonly refuses = new Map<string, number[]>();
  readonly name: string;
  #held: (() => void)[] | null = null;

  constructor(name = 'a device') {
    this.name = name;
  }

  /** From now on it answers when {@link answer} is called. */
  hold(): void {
    this.#held = [];
  }

  /** Answers the first call that waits. */
  answer(): void {
    this.#held?.shift()?.();
  }

  change(changes: readonly DmaChange[]): Promise<(Error | null)[]> {
    const told = changes.map(({ kind, range }) => `${kind} ${formatRange(range)}`);
    if (told.length > 0) this.calls.push(told);
    return this.#answer(told.map((one) => this.#errorOf(one)));
  }

  unmapAll(ranges: readonly DmaRange[]): Promise<(Error | null)[]> {
    this.calls.push([`unmap all ${ranges.length}`]);
    return this.#answer(ranges.map((range) => this.#errorOf(`unmap ${formatRange(range)}`)));
  }

  #errorOf(told: string): Error | null {
    const errno = this.refuses.get(told)?.shift();
    return errno === undefined ? null : refusal(errno);
  }

  #answer(errors: (Error | null)[]): Promise<(Error | null)[]> {
    const held = this.#held;
    if (held === null) return Promise.resolve(errors);
    return new Promise((resolve) => {
      held.push(() => {
        resolve(errors);
      });
    });
  }
}

async function containerOf(...targets: FakeTarget[]): Promise<DmaContainer> {
  const dma = new DmaContainer();
  atEnd(() => {
    dma.close();
  });
  for (const target of targets) await devicesOf(dma).attach(target);
  return dma;
}

/** Lets everything happen that does not wait for a device. */
const settle = (): Promise<void> => new Promise(setImmediate);

describe('a batch', () => {
  test('is one series of changes, however many there are', async () => {
    const target = new FakeTarget();
    const dma = await containerOf(target);
    const batch = dma.batch();
    for (let page = 0; page < 1000; page++) batch.map({ iova: page * PAGE, size: PAGE });
    for (let page = 0; page < 500; page++) batch.unmap(page * PAGE, PAGE);
    await batch.commit();
    expect(target.calls.map((call) => call.length)).toEqual([1500]);
    expect(dma.ranges.length).toBe(500);
  });

  test('a range that takes the place of others has it when they have left, before the rest is answered', async () => {
    const target = new FakeTarget();
    const dma = await containerOf(target);
    await dma.map({ iova: 0x1000, size: PAGE });
    await dma.map({ iova: 0x2000, size: PAGE });
    target.hold();
    const commit = dma
      .batch()
      .unmap(0x1000, PAGE)
      .unmap(0x2000, PAGE)
      .map({ iova: 0, size: 4 * PAGE })
      .map({ iova: 0x8000, size: PAGE })
      .unmap(0, 4 * PAGE)
      .map({ iova: 0x3000, size: PAGE })
      .commit();
    await settle();
    expect(target.calls.slice(2)).toEqual([
      ['unmap 0x1000+0x1000', 'unmap 0x2000+0x1000'],
      ['map 0x0+0x4000', 'map 0x8000+0x1000', 'unmap 0x0+0x4000'],
      ['map 0x3000+0x1000'],
    ]);
    expect(dma.dump()).toBe('0x1000+0x1000, 0x2000+0x1000');
    target.answer();
    await settle();
    expect(dma.dump()).toBe('0x0+0x4000, 0x8000+0x1000');
    target.answer();
    await settle();
    expect(dma.dump()).toBe('0x3000+0x1000, 0x8000+0x1000');
    target.answer();
    expect((await commit).map(({ iova }) => iova)).toEqual([0n, 0x8000n, 0x3000n]);
  });

  test('what a device takes although it has not let go of what was there is taken back', async () => {
    const target = new FakeTarget();
    const dma = await containerOf(target);
    await dma.map({ iova: 0x1000, size: PAGE });
    target.refuses.set('unmap 0x1000+0x1000', [EBUSY]);
    const batch = dma
      .batch()
      .unmap(0x1000, PAGE)
      .map({ iova: 0x1000, size: 2 * PAGE });
    await expect(batch.commit()).rejects.toMatchObject({
      outcomes: [{ error: { errnoName: 'EBUSY' } }, { error: failure('ERR_VFIO_USER_DMA', 'overlaps') }],
    });
    expect(target.calls.at(-1)).toEqual(['unmap 0x1000+0x2000']);
    expect(dma.dump()).toBe('0x1000+0x1000');
  });

  test('an unmap that was refused, and is made good by a later one of the batch', async () => {
    const target = new FakeTarget();
    const dma = await containerOf(target);
    target.refuses.set('unmap 0x0+0x1000', [EBUSY]);
    const range = { iova: 0, size: PAGE };
    await dma.map(range);
    target.refuses.set('map 0x0+0x1000', [EEXIST]);
    const batch = dma.batch().unmap(0, PAGE).map(range).unmap(0, PAGE);
    await expect(batch.commit()).rejects.toMatchObject({
      outcomes: [{ error: { errnoName: 'EBUSY' } }, { error: { errnoName: 'EEXIST' } }, { error: null }],
    });
    expect(dma.dump()).toBe('nothing');
  });

  test('what one of two devices refuses is taken back from the other, unless the batch has unmapped it', async () => {
    const [good, bad] = [new FakeTarget('good'), new FakeTarget('bad')];
    const dma = await containerOf(good, bad);
    for (const iova of ['0x0', '0x1000']) bad.refuses.set(`map ${iova}+0x1000`, [EBUSY]);
    bad.refuses.set('unmap 0x0+0x1000', [ENOENT]);
    const batch = dma.batch();
    for (let page = 0; page < 3; page++) batch.map({ iova: page * PAGE, size: PAGE });
    const error: unknown = await batch
      .unmap(0, PAGE)
      .commit()
      .catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(DmaBatchError);
    expect((error as DmaBatchError).outcomes.map((outcome) => outcome.error?.message)).toEqual([
      'errno 16',
      'errno 16',
      undefined,
      'errno 2',
    ]);
    expect(good.calls.slice(1)).toEqual([['unmap 0x1000+0x1000']]);
    expect(bad.calls.slice(1)).toEqual([]);
    expect(dma.dump()).toBe('0x2000+0x1000');
  });

  test('a container that is closed before the batch is done has nothing', async () => {
    const target = new FakeTarget();
    const dma = await containerOf(target);
    await dma.map({ iova: 0x1000, size: PAGE });
    target.hold();
    const commit = dma
      .batch()
      .unmap(0x1000, PAGE)
      .map({ iova: 0x1000, size: 2 * PAGE })
      .commit();
    await settle();
    dma.close();
    target.answer();
    target.answer();
    await expect(commit).rejects.toMatchObject({
      outcomes: [{ error: null }, { error: { code: 'ERR_VFIO_USER_CLOSED' } }],
    });
    expect(dma.ranges).toEqual([]);
  });
});

test('a mapping that is closed while a batch unmaps it is told of once', async () => {
  const target = new FakeTarget();
  const dma = await containerOf(target);
  const mapping = await dma.map({ iova: 0x1000, size: PAGE });
  target.hold();
  const commit = dma.batch().unmap(0x1000, PAGE).commit();
  await settle();
  const closed = mapping.close();
  target.answer();
  await Promise.all([commit, closed]);
  expect(target.calls.slice(1)).toEqual([['unmap 0x1000+0x1000']]);
});

test('who closes a mapping twice at once learns twice that it was refused', async () => {
  const target = new FakeTarget();
  const dma = await containerOf(target);
  const mapping = await dma.map({ iova: 0x1000, size: PAGE });
  target.refuses.set('unmap 0x1000+0x1000', [EBUSY]);
  const results = await Promise.allSettled([mapping.close(), mapping.close()]);
  expect(results).toMatchObject([{ reason: { errnoName: 'EBUSY' } }, { reason: { errnoName: 'EBUSY' } }]);
  expect(dma.ranges).toEqual([mapping]);
  await mapping.close();
  expect([dma.ranges, target.calls.length]).toEqual([[], 3]);
});

test('a device that is attached is not told of what is just being taken from the others', async () => {
  const first = new FakeTarget('first');
  const dma = await containerOf(first);
  const mapping = await dma.map({ iova: 0x1000, size: PAGE });
  await dma.map({ iova: 0x2000, size: PAGE });
  first.hold();
  const closed = mapping.close();
  const second = new FakeTarget('second');
  const attached = devicesOf(dma).attach(second);
  await settle();
  expect(second.calls).toEqual([]);
  first.answer();
  await Promise.all([closed, attached]);
  expect(second.calls).toEqual([['map 0x2000+0x1000']]);
});

test('a device that refuses what is mapped already is not attached', async () => {
  const [first, second] = [new FakeTarget('first'), new FakeTarget('second')];
  const dma = await containerOf(first);
  await dma.map({ iova: 0x1000, size: PAGE });
  second.refuses.set('map 0x1000+0x1000', [EBUSY]);
  await expect(devicesOf(dma).attach(second)).rejects.toMatchObject({ errnoName: 'EBUSY' });
  await dma.unmapAll();
  expect([first.calls.length, second.calls.length]).toEqual([2, 1]);
});

test('everything is taken from each device with one call, and what one still holds stays', async () => {
  const [good, bad] = [new FakeTarget('good'), new FakeTarget('bad')];
  const dma = await containerOf(good, bad);
  const batch = dma.batch();
  for (let page = 0; page < 3; page++) batch.map({ iova: page * PAGE, size: PAGE });
  await batch.commit();
  bad.refuses.set('unmap 0x0+0x1000', [ENOENT]);
  bad.refuses.set('unmap 0x1000+0x1000', [EBUSY]);
  await expect(dma.unmapAll()).rejects.toMatchObject({
    outcomes: [{ error: { errnoName: 'ENOENT' } }, { error: { errnoName: 'EBUSY' } }, { error: null }],
  });
  for (const { calls } of [good, bad]) expect(calls.slice(1)).toEqual([['unmap all 3']]);
  expect(dma.dump()).toBe('0x1000+0x1000');
});

test('what a user sees of a container', async () => {
  const dma = await containerOf();
  const { fd, fdOffset } = await dma.allocate(PAGE);
  const [mapping] = dma.ranges;
  expect(mapping).toMatchObject({ size: PAGE, access: 'readwrite', fd, fdOffset });
  expect(dma.lookup(mapping!.iova)?.range).toBe(mapping);
  await mapping!.close();
  // The user has the descriptor that devices do not get.
  const hidden = new DmaContainer({ directDma: false });
  atEnd(() => {
    hidden.close();
  });
  expect((await hidden.allocate(PAGE)).fd).toBeGreaterThan(0);
  expect(hidden.ranges).toMatchObject([{ fd: null }]);
});
