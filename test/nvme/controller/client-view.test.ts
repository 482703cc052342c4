// SPDX-License-Identifier: MIT
import { ClientView } from '../../../lib/nvme/controller/client-view';
import { FakeMemory } from './support';

test('ranges that leave one after the other are not found, and cost no new look at all the others', () => {
  const memory = new FakeMemory();
  const ranges = Array.from({ length: 100 }, (_, index) => memory.add(index * 0x2000, 0x1000));
  const view = new ClientView();
  view.attach(memory);
  const place = jest.spyOn(memory, 'place');
  const found = (): number[] =>
    ranges.flatMap(({ iova }, index) => (view.find(Number(iova), 0x1000) === null ? [] : [index]));
  for (const index of [0, 99, 50, 51]) view.leave(ranges[index]!);
  const left = [...ranges.keys()].filter((index) => ![0, 50, 51, 99].includes(index));
  expect(found()).toEqual(left);
  // One that has addresses above 2^53, and one that the view does not know.
  view.leave(memory.add(1n << 60n, 0x1000));
  view.leave(memory.add(0x1000, 0x1000));
  expect(found()).toEqual(left);
  expect(place).not.toHaveBeenCalled();
  expect(view.refresh()).toBe(true);
  expect(found()).toEqual(left);
  expect(view.find(0x1000, 1)).toBeNull();
});
