// SPDX-License-Identifier: MIT
/** Jobs on the thread that has the connection: a doorbell that is a message may fail. */
import { runBetweenTurns } from '../../lib/bench/job-runner';
import { EventFd } from '../../lib/native';
import { world } from './fake-device';

/** A job whose eighth doorbell throws an error. */
function runUntil(error: Error, completion: 'poll' | 'interrupt', interruptFd: number | null) {
  const { job, queue, device } = world(
    { runtimeMs: Infinity, ioLimit: 1000, depth: 1, completion },
    'each turn',
  );
  let count = 0;
  const doorbells = {
    head: () => undefined,
    tail: (id: number, value: number) => {
      if (++count === 8) throw error;
      device.tail(id, value);
    },
  };
  const start = { job, location: { queue, interruptFd, doorbells: null } };
  return runBetweenTurns(start, device.memory, () => doorbells, {
    snapshot: () => undefined,
    next: () => Promise.reject(new Error('it has not paused')),
  });
}

describe.each(['poll', 'interrupt'] as const)('mode %s', (completion) => {
  let event: EventFd;
  beforeEach(() => {
    event = EventFd.create();
  });
  afterEach(() => {
    event.close();
  });
  const fd = (): number | null => (completion === 'poll' ? null : event.fd);

  test('its error is the error of the run', async () => {
    const error = new Error('a defect');
    await expect(runUntil(error, completion, fd())).rejects.toBe(error);
  });
});
