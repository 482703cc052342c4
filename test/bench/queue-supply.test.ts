// SPDX-License-Identifier: MIT
import { EventEmitter } from 'node:events';
import { VfioUserError } from '../../lib/errors';
import type { Job, QueueLocation } from '../../lib/bench/job';
import { JOB_STATE_BYTES, JobState } from '../../lib/bench/job-state';
import type { PlannedJob } from '../../lib/bench/plan';
import { QueueSupply } from '../../lib/bench/queue-supply';
import { monotonicTime } from '../../lib/bench/monotonic';
import type { NvmeController } from '../../lib/nvme/host';
import type { WatchedQueue } from '../../lib/nvme/host/status-watch';
import { turns } from '../support/wait';

/** A controller without a device, which is lost and comes back when the test says so. */
class FakeController extends EventEmitter {
  readonly device = Object.assign(new EventEmitter(), { name: 'fake' });
  readonly doorbellArea = null;
  /** Ids of the queue pairs that there are. */
  readonly ids = new Set<number>();
  readonly log: string[] = [];
  /** What its status is looked at for. */
  readonly watched = new Set<WatchedQueue>();
  /** Times that it was to look from then on. */
  begun = 0;
  /** Called before each creation. */
  onCreate: () => void = () => undefined;
  #next = 1;

  async createQueuePair(entries: number): Promise<unknown> {
    this.onCreate();
    await turns(1);
    const id = this.#next++;
    this.ids.add(id);
    this.log.push(`create ${id}`);
    return {
      placement: { id, entries, submissionOffset: 0, completionOffset: 0 },
      delete: () => {
        this.log.push(`delete ${id}`);
        this.ids.delete(id);
        return Promise.resolve();
      },
    };
  }

  watchPairs(pairs: WatchedQueue): unknown {
    this.watched.add(pairs);
    return {
      begin: () => {
        this.begun++;
      },
      end: () => void this.watched.delete(pairs),
    };
  }

  lose(): void {
    this.emit('disconnect', new Error('lost'), { failed: 0, resubmitted: 0 });
  }

  comeBack(gap = 5): void {
    this.device.emit('reconnect', { gap });
    this.emit('reconnect', { gap });
  }
}

function planned(): PlannedJob {
  const state = new SharedArrayBuffer(JOB_STATE_BYTES);
  return { job: { completion: 'poll', state } as Job, state: new JobState(state), entries: 8 };
}

async function supplied(jobs = 2) {
  const controller = new FakeController();
  const lost = jest.fn();
  const supply = new QueueSupply(controller as unknown as NvmeController, lost);
  const all = Array.from({ length: jobs }, planned);
  await supply.add(all);
  const locations: (QueueLocation | null)[] = [];
  const next = (index: number, held = 1): void => {
    void supply.next(all[index]!, held).then((location) => (locations[index] = location));
  };
  return { controller, supply, all, lost, locations, next };
}

test('a controller that comes back: jobs get queue pairs once all of them have left theirs', async () => {
  const { controller, supply, all, locations, next } = await supplied();
  expect(all.map((job) => supply.first(job).queue.id)).toEqual([1, 2]);
  controller.lose();
  expect(all.map(({ state }) => state.paused)).toEqual([true, true]);
  next(0);
  controller.comeBack();
  await turns();
  // The other one may still write into its queue.
  expect([controller.log, locations]).toEqual([['create 1', 'create 2'], []]);
  next(1, 3);
  await turns();
  expect(controller.log.slice(2)).toEqual(['delete 1', 'delete 2', 'create 3', 'create 4']);
  expect(locations.map((location) => location?.queue.id)).toEqual([3, 4]);
  expect(all.map(({ state }) => state.paused)).toEqual([false, false]);
  expect(supply.gaps(all)).toMatchObject([{ back: true, awayMs: 5, firstIoMs: null, resubmitted: 4 }]);
  for (const { state } of all) state.firstIoAt = monotonicTime() + 7;
  const [gap] = supply.gaps(all);
  expect(gap!.firstIoMs).toBeGreaterThanOrEqual(7);
  expect(supply.gaps([all[1]!])).toMatchObject([{ resubmitted: 3 }]);
});

test('jobs that have ended are not waited for, and get nothing', async () => {
  const { controller, supply, all, locations, next } = await supplied();
  supply.ended(all[0]!);
  controller.lose();
  next(1);
  controller.comeBack();
  await turns();
  expect(controller.log.slice(-1)).toEqual(['create 3']);
  expect(locations[1]?.queue.id).toBe(3);
  expect([supply.gaps([all[0]!]), supply.gaps([all[1]!]).length]).toEqual([[], 1]);
});

test('a job that ends instead of pausing does not keep the others', async () => {
  const { controller, supply, all, locations, next } = await supplied();
  controller.lose();
  next(1);
  controller.comeBack();
  supply.ended(all[0]!);
  await turns();
  expect(locations[1]?.queue.id).toBe(3);
  // Its last I/O was complete before it could notice.
  expect(supply.gaps([all[0]!])).toEqual([]);
});

test('a controller that is lost once more while queue pairs are created', async () => {
  const { controller, supply, all, locations, next } = await supplied();
  controller.lose();
  next(0);
  next(1);
  let creations = 0;
  controller.onCreate = () => {
    if (++creations !== 2) return;
    controller.lose();
    controller.comeBack(9);
    throw new VfioUserError('ERR_VFIO_USER_DISCONNECTED', 'lost once more');
  };
  controller.comeBack();
  await turns();
  expect(locations.map((location) => location?.queue.id)).toEqual([4, 5]);
  expect([...controller.ids]).toEqual([4, 5]);
  expect(supply.lost).toBeUndefined();
  expect(supply.gaps(all)).toMatchObject([
    { back: true, awayMs: 5, resubmitted: 2 },
    { back: true, awayMs: 9, resubmitted: 0 },
  ]);
});

test('queue pairs that cannot be created end the run', async () => {
  const { controller, supply, all, lost, locations, next } = await supplied();
  controller.lose();
  next(0);
  next(1);
  const error = new RangeError('no room');
  controller.onCreate = () => {
    throw error;
  };
  controller.comeBack();
  await turns();
  expect(locations).toEqual([null, null]);
  expect(supply.lost).toBe(error);
  expect(lost).toHaveBeenCalledTimes(1);
  expect(all.map(({ state }) => state.wish)).toEqual([2, 2]);
});

test.each(['stop', 'giveUp', 'abandon'] as const)(
  '%s: jobs that wait for the controller end',
  async (how) => {
    const { controller, supply, all, locations, next } = await supplied();
    controller.lose();
    next(0);
    supply[how]();
    // One that comes to look later does not wait.
    next(1);
    await turns();
    expect(locations).toEqual([null, null]);
    const [gap] = supply.gaps(all);
    expect(gap).toMatchObject({ back: false, firstIoMs: null, resubmitted: 2 });
    expect(gap!.awayMs).toBeGreaterThan(0);
  },
);

test('a run that is over by its own will waits for the controller, which ends what is in flight', async () => {
  const { controller, all, locations, next } = await supplied(1);
  controller.lose();
  all[0]!.state.finish();
  next(0);
  controller.comeBack();
  await turns();
  expect(locations[0]?.queue.id).toBe(2);
});

test('a controller that is gone for good, and nothing after the supply was closed', async () => {
  const { controller, supply, all, lost, next, locations } = await supplied();
  controller.lose();
  next(0);
  next(1);
  const error = new Error('did not come back');
  controller.emit('close', error);
  await turns();
  expect([supply.lost, lost.mock.calls.length, locations]).toEqual([error, 1, [null, null]]);
  supply.close();
  expect(controller.eventNames()).toEqual([]);
  expect(controller.device.eventNames()).toEqual([]);
  await supply.delete();
  expect(controller.ids.size).toBe(0);
  expect(all).toHaveLength(2);
});

test('the status of the controller is looked at while jobs are at work, by what they publish', async () => {
  const { controller, supply, all, next } = await supplied();
  const [pairs] = controller.watched;
  const seen = (): (number | undefined)[] => [pairs?.outstanding, pairs?.completed, controller.begun];
  expect(seen()).toEqual([2, 0, 0]);
  for (const job of all) supply.first(job);
  const idle = {
    reads: 0,
    writes: 0,
    trims: 0,
    readBytes: 0,
    writtenBytes: 0,
    trimmedBytes: 0,
    elapsedMs: 0,
  };
  all[0]!.state.publish({ ...idle, reads: 5, trims: 2 });
  all[1]!.state.publish({ ...idle, writes: 3 });
  expect(seen()).toEqual([2, 10, 2]);
  controller.lose();
  expect(seen()).toEqual([0, 10, 2]);
  next(0);
  next(1);
  controller.comeBack();
  await turns();
  expect(seen()).toEqual([2, 10, 3]);
  all[0]!.state.phase = 'done';
  expect(seen()).toEqual([1, 10, 3]);
  supply.ended(all[0]!);
  supply.close();
  expect([pairs?.outstanding, controller.watched.size]).toEqual([1, 0]);
});

test('a controller that was reset over the same connection was away as long as that took', async () => {
  const { controller, supply, all, next } = await supplied();
  controller.lose();
  next(0);
  next(1);
  controller.emit('reconnect', { gap: 7 });
  await turns();
  expect(supply.gaps(all)).toMatchObject([{ back: true, awayMs: 7 }]);
});
