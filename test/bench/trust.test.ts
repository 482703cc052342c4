// SPDX-License-Identifier: MIT
import { availableParallelism } from 'node:os';
import { performance } from 'node:perf_hooks';
import { parseProcessors, processorUse, threadTimes } from '../../lib/bench/processors';
import { doubts, isDoubtful, processorShare, type Evidence } from '../../lib/bench/trust';
import { until } from '../support/wait';
import { sampleJob } from './sample-job';

/** A run of 1 s in which a job had a processor for a part of the time, and wanted it all the time. */
function evidence(share: number, changes: Partial<Evidence> = {}): Evidence {
  const cpu = {
    ...sampleJob().cpu,
    userMs: 900 * share,
    systemMs: 100 * share,
    waitedMs: 1000 * (1 - share),
  };
  return {
    completion: 'poll',
    result: { jobs: 1, runtimeMs: 1000, cpu },
    target: undefined,
    allJobs: 1,
    allTargets: 1,
    ownProcessors: new Set([0, 1, 2, 3]),
    ...changes,
  };
}

function target(share: number, allowed: number[]): Evidence['target'] {
  return { runMs: 1000 * share, waitedMs: 1000 * (1 - share), wallMs: 1000, allowed: new Set(allowed) };
}

describe('figures are doubted', () => {
  test('not, when both sides have what they want', () => {
    expect(doubts(evidence(0.95, { target: target(0.93, [0, 1, 2, 3]) }))).toEqual([]);
  });

  test('not, when a job sleeps of its own will', () => {
    const cpu = { ...sampleJob().cpu, userMs: 20, waitedMs: 30 };
    expect(doubts(evidence(1, { result: { jobs: 1, runtimeMs: 1000, cpu } }))).toEqual([]);
  });

  test('not for the waits of jobs that are woken up', () => {
    for (const completion of ['interrupt', 'adaptive'] as const)
      expect(doubts(evidence(0.4, { completion }))).toEqual([]);
  });

  test('when others use the processors', () => {
    expect(doubts(evidence(0.41))).toEqual([
      'this job had 41 % of a processor; the figures tell about the scheduler. ' +
        'Other programs use the processors: end them, or bind both sides to processors of their own (taskset)',
    ]);
  });

  test('when both sides have one processor', () => {
    const one = { ownProcessors: new Set([3]), target: target(0.5, [3]) };
    expect(doubts(evidence(0.5, one))).toEqual([
      'this job had 50 % of a processor, and the target had 50 % of the processor time that it wanted; the figures tell about the scheduler. ' +
        'Both sides have one processor, number 3: give each one of its own (taskset), or use --completion adaptive',
    ]);
  });

  test('when the jobs have fewer processors than there are jobs', () => {
    const bound = { allJobs: 3, ownProcessors: new Set([0, 1]), target: target(0.99, [0, 1, 2, 3]) };
    const { result } = evidence(0.6);
    expect(doubts(evidence(0.6, { ...bound, result: { ...result, jobs: 3, runtimeMs: 1000 / 3 } }))).toEqual([
      'these 3 jobs had each 60 % of a processor; the figures tell about the scheduler. ' +
        '3 jobs may use 2 processors: run fewer jobs (--numjobs), or allow more processors (taskset), or use --completion adaptive',
    ]);
  });

  test('when jobs and targets are more than the processors of both', () => {
    const [text] = doubts(evidence(0.7, { allJobs: 4, target: target(0.99, [2, 3]) }));
    expect(text).toMatch(/\. 4 jobs and 1 target poll on 4 processors: run fewer jobs \(--numjobs\), or /);
  });

  test('for the sake of the target alone, in every mode', () => {
    const [text] = doubts(evidence(1, { completion: 'interrupt', target: target(0.3, [0]) }));
    expect(text).toMatch(
      /^the target had 30 % of the processor time that it wanted; .* Other programs [^-]*$/,
    );
  });
});

test('a thread that wanted no processor has its share', () => {
  expect(processorShare({ runMs: 0, waitedMs: 0 })).toBe(1);
  expect(isDoubtful(0.89)).toBe(true);
  expect(isDoubtful(0.9)).toBe(false);
});

describe('what the kernel tells', () => {
  test('the processor time of this thread and process grows with what they do', async () => {
    const before = [threadTimes()!, processorUse(process.pid)!] as const;
    const spin = (): void => {
      for (const end = performance.now() + 5; performance.now() < end;);
    };
    await until(() => {
      spin();
      return (
        threadTimes()!.runMs - before[0].runMs >= 20 &&
        processorUse(process.pid)!.runMs - before[1].runMs >= 20
      );
    }, 'both have run for 20 ms');
    expect(before[1].runMs).toBeGreaterThanOrEqual(before[0].runMs);
  });

  test('the processors that this process may use', () => {
    expect(processorUse(process.pid)!.allowed.size).toBeGreaterThanOrEqual(availableParallelism());
  });

  test('nothing of a process that is not there', () => {
    expect(processorUse(2 ** 30)).toBeUndefined();
  });
});

test.each<[string, number[]]>([
  ['0', [0]],
  ['0-2,5', [0, 1, 2, 5]],
  ['3,1-2,2', [1, 2, 3]],
  ['2-1', []],
  ['', []],
  ['1,', []],
  ['all', []],
])('the list of processors %j', (text, numbers) => {
  expect(parseProcessors(text)).toEqual(numbers);
});
