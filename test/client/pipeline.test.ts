// SPDX-License-Identifier: MIT
import { callBack, pipelined, promised, type Done } from '../../lib/client/pipeline';

/** Runs `count` items, whose replies come only when nothing more is sent; the most that were in flight. */
async function mostInFlight(count: number, copies?: number): Promise<number> {
  const waiting: Done[] = [];
  let most = 0;
  const all = pipelined(
    Array.from({ length: count }),
    (_item, _index, done) => {
      waiting.push(done);
      most = Math.max(most, waiting.length);
    },
    copies,
  );
  while (waiting.length > 0) for (const done of waiting.splice(0)) done(null);
  await all;
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
  const refused = new Error('refused');
  const results = await pipelined([5, 6, 7, 8], (item, index, done) => {
    order.push(item, index);
    if (item === 7) throw refused;
    if (item === 8) setImmediate(done, null);
    else done(item === 6 ? refused : null);
  });
  expect(order).toEqual([5, 0, 6, 1, 7, 2, 8, 3]);
  expect(results).toEqual([null, { error: refused }, { error: refused }, null]);
});

test('of nothing, and of much that is done at once', async () => {
  expect(await pipelined([], () => undefined)).toEqual([]);
  const results = await pipelined(Array.from({ length: 100_000 }), (_item, _index, done) => {
    done(null);
  });
  expect(results.every((result) => result === null)).toBe(true);
});

test('a promise of a callback, and a callback of a promise', async () => {
  const refused = new Error('refused');
  await promised((done) => {
    callBack(Promise.resolve(1), done);
  });
  const fails = promised((done) => {
    callBack(Promise.reject(refused), done);
  });
  await expect(fails).rejects.toBe(refused);
});
