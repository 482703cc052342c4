// SPDX-License-Identifier: MIT
import { callBack, pipelined, promised } from '../../lib/client/pipeline';

/** Runs `count` items, whose replies come only when nothing more is sent; the most that were in flight. */
async function mostInFlight(count: number, copies?: number): Promise<number> {
  const waiting: (() => void)[] = [];
  let most = 0;
  const all = pipelined(
    count,
    (done) => (index) => {
      waiting.push(() => {
        done(null, null, index);
      });
      most = Math.max(most, waiting.length);
    },
    copies,
  );
  while (waiting.length > 0) for (const finish of waiting.splice(0)) finish();
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
  const results = await pipelined(4, (done) => (index) => {
    order.push(index);
    if (index === 2) throw refused;
    if (index === 3) setImmediate(done, null, null, index);
    else done(index === 1 ? refused : null, null, index);
  });
  expect(order).toEqual([0, 1, 2, 3]);
  expect(results).toEqual([null, { error: refused }, { error: refused }, null]);
});

test('of nothing, and of much that is done at once', async () => {
  expect(await pipelined(0, () => () => undefined)).toEqual([]);
  const results = await pipelined(100_000, (done) => (index) => {
    done(null, null, index);
  });
  expect(results.every((result) => result === null)).toBe(true);
});

test('a promise of a callback, and a callback of a promise', async () => {
  const refused = new Error('refused');
  await promised((done) => {
    callBack(Promise.resolve(1), done, 0);
  });
  const fails = promised((done) => {
    callBack(Promise.reject(refused), done, 0);
  });
  await expect(fails).rejects.toBe(refused);
});
