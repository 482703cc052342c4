// SPDX-License-Identifier: MIT
import { DepthSearch } from '../../lib/bench/depth-search';
import type { Pace } from '../../lib/bench/job';
import { Pacing, isUnlimited } from '../../lib/bench/pacing';
import { SteadyState, type SteadyCriterion } from '../../lib/bench/steady-state';
import { PACE } from './fake-device';

describe('pacing', () => {
  const pacing = (changes: Partial<Pace>): Pacing => {
    const made = new Pacing({ ...PACE, ...changes });
    made.started = 1000;
    return made;
  };

  test('I/Os per second, from the beginning of the job on', () => {
    const pace = pacing({ iops: 100 });
    expect(pace.due).toBe(1000);
    pace.sent(4096);
    pace.sent(65_536);
    expect(pace.due).toBe(1020);
  });

  test('bytes per second', () => {
    const pace = pacing({ bandwidth: 1_000_000 });
    pace.sent(5000);
    expect(pace.due).toBe(1005);
    pace.sent(500_000);
    expect(pace.due).toBe(1505);
  });

  test('a pause begins when all is complete', () => {
    const pace = pacing({ thinkMs: 50, thinkIos: 2 });
    pace.sent(1);
    expect(pace.due).toBe(1000);
    pace.drained(1010);
    expect(pace.due).toBe(1000);
    pace.sent(1);
    expect(pace.due).toBe(Infinity);
    pace.drained(1020);
    expect(pace.due).toBe(1070);
  });

  test('a rate and a pause: the later of both', () => {
    const pace = pacing({ thinkMs: 50, thinkIos: 1, iops: 10 });
    pace.sent(1);
    pace.drained(1010);
    expect(pace.due).toBe(1100);
  });

  test.each<[Partial<Pace>, boolean]>([
    [{}, true],
    [{ iops: 1e9 }, false],
    [{ bandwidth: 1e12 }, false],
    [{ thinkMs: 1 }, false],
    [{ thinkIos: 7 }, true],
  ])('%j is unlimited: %s', (changes, unlimited) => {
    expect(isUnlimited({ ...PACE, ...changes })).toBe(unlimited);
  });
});

describe('the search for a number in flight', () => {
  const search = (most: number, largest: number): { found: unknown; tried: number[] } => {
    const one = new DepthSearch(most);
    const tried: number[] = [];
    while (one.found === undefined) {
      tried.push(one.depth);
      one.judge(one.depth <= largest);
    }
    expect(one.depth).toBe(one.found.depth);
    return { found: one.found, tried };
  };

  test('finds the largest that keeps the latency, whatever it is', () => {
    for (let most = 1; most <= 70; most++)
      for (let largest = 0; largest <= most; largest++) {
        const { found, tried } = search(most, largest);
        expect(found).toEqual({ depth: Math.max(1, largest), met: largest > 0 });
        expect(new Set(tried).size).toBe(tried.length);
        expect(tried.length).toBeLessThanOrEqual(14);
      }
  });

  test('doubles, then halves in between', () => {
    expect(search(128, 20).tried).toEqual([1, 2, 4, 8, 16, 32, 24, 20, 22, 21]);
    expect(search(100, 100).tried).toEqual([1, 2, 4, 8, 16, 32, 64, 100]);
  });
});

describe('steady state', () => {
  const criterion: SteadyCriterion = {
    measure: 'iops',
    slope: false,
    limit: 10,
    percent: true,
    duration: 3,
    rampTime: 0,
  };
  /** Feeds rates, one for each second, and returns after how many of them the run was steady. */
  const seconds = (changes: Partial<SteadyCriterion>, rates: readonly number[]): number | undefined => {
    const state = new SteadyState({ ...criterion, ...changes });
    let ios = 0;
    state.look(0, 0, 0);
    for (const [index, rate] of rates.entries()) {
      ios += rate;
      // What comes in between is not looked at.
      state.look(index * 1000 + 500, ios, ios * 4096);
      if (state.look((index + 1) * 1000, ios, ios * 4096)) return index + 1;
    }
    expect(state.outcome.attained).toBe(false);
    return undefined;
  };

  test('all rates of a window are close to their mean', () => {
    expect(seconds({}, [10, 100, 105, 95, 100])).toBe(4);
    expect(seconds({}, [100, 100, 100])).toBe(3);
    expect(seconds({}, [100, 200, 100, 200, 100])).toBeUndefined();
    expect(seconds({ percent: false, limit: 3 }, [100, 105, 100, 103, 101])).toBe(4);
  });

  test('the slope of a window is small', () => {
    // The rates differ, but do not grow.
    expect(seconds({ slope: true, limit: 5 }, [100, 200, 100])).toBe(3);
    expect(seconds({ slope: true, limit: 5 }, [100, 120, 140, 160, 170, 171, 172])).toBe(6);
  });

  test('in bytes; and not before its ramp is over', () => {
    expect(seconds({ measure: 'bw', percent: false, limit: 5 * 4096 }, [100, 110, 104, 106])).toBe(4);
    expect(seconds({ rampTime: 5 }, Array<number>(20).fill(100))).toBe(8);
  });

  test('a run that does nothing is not steady', () => {
    expect(seconds({}, [0, 0, 0, 0, 0, 0])).toBeUndefined();
  });

  test('what was found is told', () => {
    const state = new SteadyState(criterion);
    for (let second = 0; second <= 3; second++) state.look(second * 1000, second * 100, second * 5000);
    expect(state.outcome).toEqual({
      attained: true,
      value: 0,
      iops: [100, 100, 100],
      bandwidth: [5000, 5000, 5000],
    });
  });
});
