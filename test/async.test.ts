// SPDX-License-Identifier: MIT
import { Budget, Mutex, memoize, type Claim } from '../lib/async';
import { turns } from './support/wait';

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

describe('a budget', () => {
  const settled = async (...claims: (Claim | null)[]): Promise<(boolean | 'waits' | 'taken')[]> =>
    Promise.all(
      claims.map(async (claim) => {
        if (claim === null) return 'taken';
        return Promise.race([claim.granted, turns(2).then(() => 'waits' as const)]);
      }),
    );

  test('grants shares in the order of the calls, also where a later one would fit', async () => {
    const budget = new Budget(10);
    const claims = [6, 6, 1, 3].map((amount) => budget.take(amount));
    expect(await settled(...claims)).toEqual(['taken', 'waits', 'waits', 'waits']);
    budget.give(6);
    expect(await settled(...claims)).toEqual(['taken', true, true, true]);
    const last = budget.take(1);
    expect(await settled(last)).toEqual(['waits']);
    budget.give(3);
    expect(await settled(last)).toEqual([true]);
  });

  test('grants more than the whole when nothing else is taken', async () => {
    const budget = new Budget(10);
    expect(budget.take(1)).toBeNull();
    const large = budget.take(1000);
    expect(await settled(large)).toEqual(['waits']);
    budget.give(1);
    expect(await settled(large)).toEqual([true]);
    const next = budget.take(1);
    expect(await settled(next)).toEqual(['waits']);
    budget.give(1000);
    expect(await settled(next)).toEqual([true]);
    expect(budget.take(9)).toBeNull();
  });

  test('a wait that is cancelled lets those behind it pass', async () => {
    const budget = new Budget(10);
    expect(budget.take(8)).toBeNull();
    const [large, small] = [budget.take(5), budget.take(2)];
    large?.cancel();
    expect(await settled(large, small)).toEqual([false, true]);
    // Too late, and again: nothing happens.
    small?.cancel();
    large?.cancel();
    expect(await settled(budget.take(1))).toEqual(['waits']);
  });

  test('all waits can be cancelled, and nothing of them is taken', async () => {
    const budget = new Budget(10);
    expect(budget.take(8)).toBeNull();
    const claims = [budget.take(5), budget.take(2)];
    budget.cancelAll();
    expect(await settled(...claims)).toEqual([false, false]);
    expect(budget.take(2)).toBeNull();
    budget.give(10);
    expect(budget.take(10)).toBeNull();
  });
});
