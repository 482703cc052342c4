// SPDX-License-Identifier: MIT
import { Mutex, memoize } from '../lib/async';

/** A promise that is settled from outside. */
function deferred(): { promise: Promise<void>; resolve: () => void; reject: (error: Error) => void } {
  let resolve!: () => void;
  let reject!: (error: Error) => void;
  const promise = new Promise<void>((onResolve, onReject) => {
    resolve = onResolve;
    reject = onReject;
  });
  return { promise, resolve, reject };
}

describe('a mutex', () => {
  test('runs one action at a time, in order, also after one that fails', async () => {
    const mutex = new Mutex();
    const log: string[] = [];
    const gates = [deferred(), deferred()] as const;
    const first = mutex.run(async () => {
      log.push('first begins');
      await gates[0].promise;
      log.push('first ends');
      return 1;
    });
    const second = mutex.run(async () => {
      log.push('second begins');
      await gates[1].promise;
    });
    const third = mutex.run(() => {
      log.push('third');
      return Promise.resolve(3);
    });
    gates[0].resolve();
    expect(await first).toBe(1);
    gates[1].reject(new Error('refused'));
    await expect(second).rejects.toThrow('refused');
    expect(await third).toBe(3);
    expect(log).toEqual(['first begins', 'first ends', 'second begins', 'third']);
  });

  test('shared actions wait for those that run alone, and overlap', async () => {
    const mutex = new Mutex();
    const log: string[] = [];
    const [first, second, never] = [deferred(), deferred(), deferred()];
    void mutex.runShared(() => {
      log.push('shared at once');
      return never.promise;
    });
    const runs = [mutex.run(() => first.promise), mutex.run(() => second.promise)];
    const shared = [1, 2].map((number) =>
      mutex.runShared(() => {
        log.push(`shared ${number}`);
        return Promise.resolve(number);
      }),
    );
    first.reject(new Error('refused'));
    await expect(runs[0]).rejects.toThrow('refused');
    log.push('first has ended');
    second.resolve();
    await runs[1];
    expect(await Promise.all(shared)).toEqual([1, 2]);
    expect(log).toEqual(['shared at once', 'first has ended', 'shared 1', 'shared 2']);
  });

  test('a shared action that was let in sees no other begin before it has', async () => {
    const mutex = new Mutex();
    const log: string[] = [];
    const shared = mutex.runShared(() => {
      log.push('shared');
      return Promise.resolve();
    });
    const alone = mutex.run(() => {
      log.push('alone');
      return Promise.resolve();
    });
    await Promise.all([shared, alone]);
    expect(log).toEqual(['shared', 'alone']);
  });
});

describe('a memoized function', () => {
  test('asks once for each key', async () => {
    const asked: number[] = [];
    const double = memoize((key: number) => {
      asked.push(key);
      return Promise.resolve(2 * key);
    });
    expect(await Promise.all([double(1), double(1), double(2)])).toEqual([2, 2, 4]);
    expect(await double(1)).toBe(2);
    expect(asked).toEqual([1, 2]);
  });

  test('asks again after a failure, which those who asked meanwhile share', async () => {
    let calls = 0;
    const ask = memoize(() => (++calls === 1 ? Promise.reject(new Error('busy')) : Promise.resolve(calls)));
    const outcomes = await Promise.allSettled([ask(), ask()]);
    expect(outcomes.map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    expect([await ask(), await ask()]).toEqual([2, 2]);
  });
});
