// SPDX-License-Identifier: MIT
import { ClientView } from '../../../lib/nvme/controller/client-view';
import { FakeMemory, type FakeRange } from './support';

let memory: FakeMemory;
let ranges: FakeRange[];
let view: ClientView;
beforeEach(() => {
  memory = new FakeMemory();
  ranges = Array.from({ length: 100 }, (_, index) => memory.add(index * 0x2000, 0x1000));
  view = new ClientView();
  view.attach(memory);
});

const found = (): number[] =>
  ranges.flatMap(({ iova }, index) => (view.find(Number(iova), 0x1000) === null ? [] : [index]));
const all = [...Array(100).keys()];

test.each([
  ['before they were looked for', () => undefined],
  [
    'after they were found',
    () => {
      expect(found()).toEqual(all);
    },
  ],
])('ranges that leave one after the other are not found any more: %s', (_name, before) => {
  before();
  for (const index of [0, 99, 50, 51]) view.leave(ranges[index]!);
  const left = all.filter((index) => ![0, 50, 51, 99].includes(index));
  expect(found()).toEqual(left);
  // One that has addresses above 2^53, and one that nobody has looked for.
  view.leave(memory.add(1n << 60n, 0x1000));
  view.leave(memory.add(0x1000, 0x1000));
  expect(found()).toEqual(left);
  expect(view.refresh()).toBe(true);
  expect(found()).toEqual(left);
  expect(view.find(0x1000, 1)).toBeNull();
});

test('a client pays for the ranges that it uses, once, and not for those that it has', () => {
  const place = jest.fn<ReturnType<FakeMemory['place']>, Parameters<FakeMemory['place']>>((...how) =>
    memory.place(...how),
  );
  view.attach({
    get generation() {
      return memory.generation;
    },
    get ranges(): never {
      throw new Error('all ranges were asked for');
    },
    busMaster: true,
    place,
    read: () => Promise.reject(new Error('read')),
    write: () => Promise.reject(new Error('written')),
    markDirty: () => undefined,
  });
  for (let index = 100; index < 200; index++) {
    memory.add(index * 0x2000, 0x1000);
    expect(view.refresh()).toBe(true);
    expect(view.refresh()).toBe(false);
  }
  expect(place).not.toHaveBeenCalled();
  for (let round = 0; round < 3; round++) {
    for (const index of [150, 7, 8]) expect(view.find(index * 0x2000 + 8, 0x100)?.start).toBe(index * 0x2000);
  }
  expect(place).toHaveBeenCalledTimes(3);
});

test('what is not in one range, or not in any, is not found', () => {
  expect(found()).toEqual(all);
  expect(view.find(0xfff, 2)).toBeNull();
  expect(view.find(0x1000, 1)).toBeNull();
  expect(view.find(0x1fff, 2)).toBeNull();
  expect(view.find(100 * 0x2000, 1)).toBeNull();
  view.detach();
  expect(view.find(0, 1)).toBeNull();
});

test('ranges of one direction are found, those without memory or above 2^53 are not', () => {
  memory.add(0x1000_0000, 0x1000, { readable: false });
  memory.add(0x2000_0000, 0x1000, { writable: false });
  memory.add(0x3000_0000, 0x1000, { distant: true });
  memory.add(2n ** 53n - 0x1000n, 0x2000);
  view.refresh();
  expect(view.find(0x1000_0000, 1)).toMatchObject({ readable: false, writable: true });
  expect(view.find(0x2000_0008, 1)).toMatchObject({ readable: true, writable: false, bias: -0x2000_0000 });
  expect(view.find(0x3000_0000, 1)).toBeNull();
  expect(view.find(2 ** 53 - 0x1000, 1)).toBeNull();
});
