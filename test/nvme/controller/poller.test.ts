// SPDX-License-Identifier: MIT
/** How often a controller without work looks at its doorbells. The clock is the test's. */
import { idleInterval } from '../../../lib/nvme/controller/idle-pollers';
import { Poller, type PollerWork } from '../../../lib/nvme/controller/poller';

beforeEach(() => {
  jest.useFakeTimers();
});
afterEach(() => {
  jest.useRealTimers();
});

/** Work of which only the rounds matter. */
function only(round: () => number): PollerWork {
  return {
    round,
    bells: () => null,
    look: () => undefined,
    worked: () => undefined,
    sleeps: () => undefined,
  };
}

/** Counts rounds, and finds as many commands in the next one as it is told. */
class Doorbells {
  rounds = 0;
  commands = 0;
  readonly poller: Poller;

  constructor(idleAfter: number) {
    this.poller = new Poller(
      only(() => {
        this.rounds++;
        const { commands } = this;
        this.commands = 0;
        return commands;
      }),
      0,
      idleAfter,
    );
  }

  /** Rounds within some milliseconds. */
  roundsIn(milliseconds: number): number {
    const before = this.rounds;
    jest.advanceTimersByTime(milliseconds);
    return this.rounds - before;
  }
}

test.each([
  [0, 1],
  [127, 1],
  [128, 2],
  [511, 4],
  [512, 8],
  [1023, 8],
  [1024, 16],
  [1e9, 16],
])('after %d ms without work, looks are %d ms apart', (idle, interval) => {
  expect(idleInterval(idle)).toBe(interval);
});

test('looks become rarer, and work brings full speed back', () => {
  const doorbells = new Doorbells(10);
  doorbells.poller.wake();
  jest.advanceTimersByTime(60);
  expect(doorbells.roundsIn(50)).toBe(50);
  jest.advanceTimersByTime(2000);
  expect(doorbells.roundsIn(1600)).toBe(100);
  doorbells.commands = 3;
  let waited = 0;
  for (; doorbells.commands > 0; waited++) jest.advanceTimersByTime(1);
  expect(waited).toBeLessThanOrEqual(16);
  // A loop at full speed makes a round, or many, in each turn.
  expect(doorbells.roundsIn(5)).toBeGreaterThan(64);
  jest.advanceTimersByTime(60);
  expect(doorbells.roundsIn(50)).toBe(50);
  doorbells.poller.wake();
  expect(doorbells.roundsIn(5)).toBeGreaterThan(64);
  doorbells.poller.stop();
  expect(doorbells.roundsIn(1000)).toBe(0);
  expect(jest.getTimerCount()).toBe(0);
});

test('a loop that never sleeps', () => {
  const doorbells = new Doorbells(Infinity);
  doorbells.poller.wake();
  jest.advanceTimersByTime(100);
  expect(doorbells.roundsIn(5)).toBeGreaterThan(64);
  doorbells.poller.stop();
  expect(jest.getTimerCount()).toBe(0);
});

test('all that sleep have one timer, which ends with the last of them', () => {
  const all = Array.from({ length: 1000 }, () => new Doorbells(0));
  for (const { poller } of all) poller.wake();
  jest.advanceTimersByTime(2000);
  expect(jest.getTimerCount()).toBe(1);
  for (const { poller } of all.slice(1)) poller.stop();
  expect(jest.getTimerCount()).toBe(1);
  expect(all[0]?.roundsIn(160)).toBe(10);
  all[0]?.poller.stop();
  expect(jest.getTimerCount()).toBe(0);
});

test('a round that stops its own loop, or wakes another', () => {
  const other = new Doorbells(0);
  other.poller.wake();
  let rounds = 0;
  const poller: Poller = new Poller(
    only(() => {
      if (++rounds === 100) {
        poller.stop();
        other.poller.wake();
      }
      return 0;
    }),
    0,
    0,
  );
  poller.wake();
  jest.advanceTimersByTime(3000);
  expect(rounds).toBe(100);
  other.poller.stop();
  expect(jest.getTimerCount()).toBe(0);
});

test('who sleeps says so first, and then looks once more: a host may have been told before that it need not wake anybody', () => {
  const told: boolean[] = [];
  let looks = 0;
  let late = 5;
  let asleep = false;
  const poller = new Poller(
    {
      round: () => (asleep && late-- > 0 ? 1 : 0),
      bells: () => null,
      look: () => {
        looks++;
      },
      worked: () => undefined,
      sleeps: (sleeping) => {
        told.push((asleep = sleeping));
      },
    },
    0,
    10,
  );
  poller.wake();
  jest.advanceTimersByTime(200);
  expect(told).toEqual([true, false, true, false, true, false, true, false, true, false, true]);
  // Now and then, also while it sleeps: once a second, at one of the looks 16 ms apart.
  jest.advanceTimersByTime(1000);
  looks = 0;
  jest.advanceTimersByTime(10_240);
  expect(looks).toBe(10);
  poller.wake();
  expect(told.at(-1)).toBe(false);
  jest.advanceTimersByTime(50);
  poller.stop();
  expect(told.slice(-2)).toEqual([true, false]);
});

describe('a loop that learns of work by doorbells', () => {
  /** A loop that has slept for long, with doorbells of two queues. */
  function sleeping(): {
    bells: { bell: Int32Array; bellWord: number }[];
    rounds: () => number;
    poller: Poller;
  } {
    const bell = new Int32Array(16);
    const bells = [0, 2].map((bellWord) => ({ bell, bellWord }));
    const taken = [0, 0];
    let rounds = 0;
    const poller = new Poller(
      {
        ...only(() => {
          rounds++;
          let commands = 0;
          for (const [index, { bellWord }] of bells.entries()) {
            const tail = bell[bellWord] as number;
            commands += tail - (taken[index] as number);
            taken[index] = tail;
          }
          return commands;
        }),
        bells: () => bells,
      },
      0,
      10,
    );
    poller.wake();
    jest.advanceTimersByTime(5000);
    return { bells, rounds: () => rounds, poller };
  }

  test('makes few rounds, and is awake 16 ms after a doorbell at the latest, of whichever queue', () => {
    const { bells, rounds, poller } = sleeping();
    for (const { bell, bellWord } of bells) {
      let before = rounds();
      jest.advanceTimersByTime(16 * 640);
      expect(rounds() - before).toBe(10);
      bell[bellWord] = 1;
      before = rounds();
      jest.advanceTimersByTime(20);
      expect(rounds() - before).toBeGreaterThan(64);
      jest.advanceTimersByTime(5000);
    }
    poller.stop();
    expect(jest.getTimerCount()).toBe(0);
  });

  test('misses no doorbell that is rung before it is looked at for the first time, or at any moment after', () => {
    const { bells, rounds, poller } = sleeping();
    const { bell, bellWord } = bells[0] as (typeof bells)[number];
    for (let moment = 0; moment < 400; moment++) {
      // Others that come and go have all doorbells looked at anew.
      const other = new Doorbells(0);
      if (moment % 3 === 0) other.poller.wake();
      jest.advanceTimersByTime(moment);
      bell[bellWord] = (bell[bellWord] as number) + 1;
      const before = rounds();
      jest.advanceTimersByTime(20);
      expect(rounds() - before).toBeGreaterThan(64);
      other.poller.stop();
    }
    poller.stop();
  });

  test('whose memory is gone looks whether there is work', () => {
    const { bells, rounds, poller } = sleeping();
    structuredClone(bells[0]?.bell.buffer, { transfer: [bells[0]?.bell.buffer as ArrayBuffer] });
    const before = rounds();
    jest.advanceTimersByTime(16);
    expect(rounds() - before).toBeGreaterThan(0);
    poller.stop();
  });
});
