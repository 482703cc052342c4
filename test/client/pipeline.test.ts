// SPDX-License-Identifier: MIT
import { pipelined } from '../../lib/client/pipeline';

/** Runs `count` items, whose replies come only when nothing more is sent; the most that were in flight. */
async function mostInFlight(count: number, copies?: number): Promise<number> {
  const waiting: (() => void)[] = [];
  let most = 0;
  const done = pipelined(
    Array.from({ length: count }),
    () => {
      const reply = new Promise<void>((resolve) => waiting.push(resolve));
      most = Math.max(most, waiting.length);
      return reply;
    },
    copies,
  );
  while (waiting.length > 0) {
    for (const answer of waiting.splice(0)) answer();
    await new Promise(setImmediate);
  }
  await done;
  return most;
}

test('the descriptors in flight stay well below 1024, however many devices are told', async () => {
  expect(await mostInFlight(1000)).toBe(256);
  expect(await mostInFlight(1000, 0)).toBe(256);
  expect(await mostInFlight(1000, 3)).toBe(86);
  expect(await mostInFlight(1000, 1000)).toBe(1);
});

test('items are sent in order, and each failure is told in its place', async () => {
  const order: number[] = [];
  const results = await pipelined([5, 6, 7], (item, index) => {
    order.push(item, index);
    return item === 6 ? Promise.reject(new Error('refused')) : Promise.resolve();
  });
  expect(order).toEqual([5, 0, 6, 1, 7, 2]);
  expect(results).toEqual([null, { error: new Error('refused') }, null]);
});
