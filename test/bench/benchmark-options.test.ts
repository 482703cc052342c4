// SPDX-License-Identifier: MIT
/** End to end, over dist/: how runs are limited, how completions are waited for, several endpoints, and what is left behind. */
import type { ControllerStatistics } from '../../lib/nvme/controller';
import type { ChildServer } from '../client/child-server';
import { countingController, run } from './run-benchmark';

jest.setTimeout(120_000);

const statistics = async (server: ChildServer): Promise<ControllerStatistics> =>
  (await server.ask('')) as ControllerStatistics;

describe('completion modes', () => {
  test('every mode completes; only poll needs no interrupts', async () => {
    const server = await countingController();
    const runs = { size: 4 << 20, jobs: 2 };
    const interrupts: number[] = [];
    for (const completion of ['poll', 'adaptive', 'interrupt']) {
      const before = (await statistics(server)).interrupts;
      const told = await run(server, [
        { ...runs, completion, runtime: 0.3 },
        { ...runs, completion, workload: 'randwrite', verify: true, runtime: 0.1 },
        { ...runs, completion, workload: 'write', verify: true, blockSize: 131072, depth: 3 },
        { ...runs, completion, workload: 'read', depth: 1, size: 1 << 20 },
      ]);
      interrupts.push((await statistics(server)).interrupts - before);
      for (const { result, error } of told) {
        expect(error).toBeUndefined();
        expect(result!.failure).toBeUndefined();
        expect(result).toMatchObject({ mismatches: 0, interrupted: false });
        for (const job of result!.jobs) expect(job.read.ios + job.write.ios).toBeGreaterThan(0);
      }
      expect(told[1]!.result!.verified).toBeGreaterThan(0);
      expect(told[2]!.result).toMatchObject({
        verified: 32,
        jobs: [{ write: { ios: 16 } }, { write: { ios: 16 } }],
      });
      expect(told[3]!.result!.jobs.map((job) => job.read.ios)).toEqual([128, 128]);
    }
    expect(interrupts[0]).toBe(0);
    expect(interrupts[1]).toBeGreaterThan(0);
    expect(interrupts[2]).toBeGreaterThan(0);
  });

  test('a rate is kept while a job sleeps', async () => {
    const told = await run(
      await countingController(),
      ['interrupt', 'adaptive'].map((completion) => ({ completion, rateIops: 100, runtime: 0.5, depth: 2 })),
    );
    for (const { result } of told) {
      const [job] = result!.jobs;
      expect(job!.read.ios).toBeGreaterThan(0);
      expect(job!.read.ios).toBeLessThanOrEqual(Math.floor(job!.runtimeMs / 10) + 1);
    }
  });

  test('interrupts with doorbells that are messages', async () => {
    const [told] = await run(await countingController('mappableDoorbells: false'), [
      { workload: 'write', verify: true, size: 1 << 20, depth: 4, completion: 'interrupt' },
    ]);
    expect(told!.result).toMatchObject({ verified: 256, mismatches: 0, target: { mappedDoorbells: false } });
  });
});

describe('how a run is limited', () => {
  test('rate, ramp, zipf, I/O size', async () => {
    const told = await run(await countingController(), [
      { rateIops: 200, runtime: 0.5, jobs: 2, depth: 4 },
      { rampTime: 0.4, runtime: 0.3 },
      { distribution: { kind: 'zipf', theta: 1.2 }, runtime: 0.2, workload: 'randrw' },
      { ioSize: 1 << 20, jobs: 2 },
      { ioSize: 40 << 20, workload: 'write' },
      { ioSize: 8192 + 4095, depth: 32 },
      { ioSize: 2 ** 40, runtime: 0.2 },
      { distribution: { kind: 'zipf', theta: 0.9 }, workload: 'randwrite', verify: true, ioSize: 1 << 20 },
    ]);
    for (const { result, error } of told) {
      expect(error).toBeUndefined();
      expect(result!.failure).toBeUndefined();
    }
    for (const { read, runtimeMs } of told[0]!.result!.jobs) {
      expect(read.ios).toBeGreaterThan(0);
      expect(read.ios).toBeLessThanOrEqual(Math.floor(runtimeMs / 5) + 1);
    }
    const [ramped] = told[1]!.result!.jobs;
    expect(ramped!.runtimeMs).toBeGreaterThanOrEqual(300);
    // Both took their time, and one of them is in the result.
    expect(told[1]!.wall).toBeGreaterThanOrEqual(700);
    expect(ramped!.runtimeMs).toBeLessThanOrEqual(told[1]!.wall - 399);
    expect(told[2]!.result!.jobs[0]!.read.ios).toBeGreaterThan(0);
    expect(told[2]!.result!.jobs[0]!.write.ios).toBeGreaterThan(0);
    expect(told[3]!.result!.jobs.map((job) => job.read)).toMatchObject(
      Array(2).fill({ ios: 256, bytes: 1 << 20 }),
    );
    // More than the namespace has: from its beginning again.
    expect(told[4]!.result!.jobs[0]!.write).toMatchObject({ ios: 10240, bytes: 40 << 20 });
    expect(told[5]!.result!.jobs[0]!.read.ios).toBe(2);
    expect(told[6]!.result!.jobs[0]!.runtimeMs).toBeGreaterThanOrEqual(200);
    expect(told[7]!.result).toMatchObject({ mismatches: 0, jobs: [{ write: { ios: 256 } }] });
    // Some blocks were written more than once.
    expect(told[7]!.result!.verified).toBeGreaterThan(10);
    expect(told[7]!.result!.verified).toBeLessThan(256);
  });
});

const STEADY = { measure: 'iops', slope: false, limit: 1, percent: true, duration: 1, rampTime: 0 };

describe('where and how much', () => {
  test('an offset is kept to, and a rate in bytes', async () => {
    const server = await countingController();
    const told = await run(server, [
      { workload: 'write', offset: 4 << 20, size: 1 << 20, verify: true },
      { rate: 1 << 20, runtime: 0.5, blockSize: 8192, depth: 4 },
      { thinkTime: 0.02, thinkBlocks: 3, runtime: 0.5, depth: 8 },
      {
        split: {
          read: [
            { bytes: 4096, share: 0.5 },
            { bytes: 65536, share: 0.5 },
          ],
          write: [],
          trim: [],
        },
        ioSize: 4 << 20,
      },
      { runtime: 5, once: true, size: 1 << 20 },
    ]);
    for (const { result, error } of told) {
      expect(error).toBeUndefined();
      expect(result!.failure).toBeUndefined();
    }
    const [first, limited, thinking, split, once] = told.map(({ result }) => result!.jobs[0]!);
    expect(first!.write.ios).toBe(256);
    expect(limited!.read.ios).toBeGreaterThan(0);
    expect(limited!.read.bytes).toBeLessThanOrEqual((limited!.runtimeMs / 1000) * 2 ** 20 + 8192);
    expect(thinking!.read.ios).toBeGreaterThan(0);
    expect(thinking!.read.ios).toBeLessThanOrEqual((Math.floor(thinking!.runtimeMs / 20) + 1) * 3);
    expect(split!.read.bytes).toBeGreaterThanOrEqual(4 << 20);
    expect(split!.read.bytes).toBeLessThan((4 << 20) + 65536);
    expect(once!.read.ios).toBe(256);
    expect((await statistics(server)).errors).toBe(0);
  });

  test('a latency target that everything keeps is kept with all that may be in flight', async () => {
    const latencyTarget = { latency: 30, percentile: 100, window: 0.05 };
    const [told, missed] = await run(await countingController(), [
      { latencyTarget, runtime: 0.2, depth: 6 },
      { latencyTarget: { ...latencyTarget, latency: 1e-9 }, runtime: 0.2, depth: 6 },
    ]);
    expect(told!.result!.jobs[0]!.foundDepths).toEqual([{ depth: 6, met: true }]);
    expect(missed!.result!.jobs[0]!.foundDepths).toEqual([{ depth: 1, met: false }]);
    // The search is no part of what was measured.
    expect(told!.result!.jobs[0]!.runtimeMs).toBeGreaterThanOrEqual(200);
    expect(told!.result!.jobs[0]!.runtimeMs).toBeLessThan(told!.wall - 150);
  });

  test('a run whose rate is steady ends before its time', async () => {
    const steadyState = { ...STEADY, limit: 10_000, duration: 2 };
    const [told] = await run(await countingController(), [{ steadyState, runtime: 60 }]);
    expect(told!.result).toMatchObject({ steady: { attained: true }, interrupted: false });
    expect(told!.result!.jobs[0]!.ended.reason).toBe('finished');
    expect(told!.result!.jobs[0]!.runtimeMs).toBeLessThan(50_000);
  });
});

describe('errors, before anything is written', () => {
  const cases: [Record<string, unknown>, string, RegExp][] = [
    [
      { rampTime: 1, verify: true },
      'ERR_INVALID_ARG_VALUE',
      /ramp time goes with measuring, not with verifying/,
    ],
    [{ rampTime: -1 }, 'ERR_OUT_OF_RANGE', /ramp time is -1 s/],
    [{ ioSize: 4095 }, 'ERR_OUT_OF_RANGE', /4095 bytes is less than one block of 4096 bytes/],
    [{ ioSize: 0 }, 'ERR_OUT_OF_RANGE', /less than one block/],
    [{ rateIops: 0 }, 'ERR_OUT_OF_RANGE', /rate of 0 I/],
    [{ rate: -5 }, 'ERR_OUT_OF_RANGE', /rate of 0 bytes/],
    [{ rate: 5, rateIops: 5 }, 'ERR_INVALID_ARG_VALUE', /in bytes or in I\/Os per second, not in both/],
    [
      { blockSize: 1 << 30, depth: 65_535, jobs: 1024 },
      'ERR_OUT_OF_RANGE',
      /I\/Os in flight need 64.0PiB of memory, and .* can be mapped; lower the block size \(--bs\), /,
    ],
    [{ offset: 1000 }, 'ERR_INVALID_ARG_VALUE', /offset of 1000 bytes is no multiple/],
    [{ offset: 16 << 20 }, 'ERR_OUT_OF_RANGE', /offset of 16.0MiB is beyond namespace 1/],
    [{ offset: 1 << 20, size: 16 << 20 }, 'ERR_OUT_OF_RANGE', /16.0MiB from offset 1.00MiB on is beyond/],
    [{ thinkTime: -1 }, 'ERR_OUT_OF_RANGE', /think time is -1 s/],
    [
      { rate: 100, latencyTarget: { latency: 1, percentile: 99, window: 1 } },
      'ERR_INVALID_ARG_VALUE',
      /does not go with a rate/,
    ],
    [
      { runtime: 1, latencyTarget: { latency: 0, percentile: 99, window: 1 } },
      'ERR_OUT_OF_RANGE',
      /latency of 0 s cannot be kept/,
    ],
    [
      { fua: { read: true, write: false } },
      'ERR_INVALID_ARG_VALUE',
      /FUA for reads needs a workload that reads/,
    ],
    [
      { verify: true, split: { read: [], write: [{ bytes: 4096, share: 1 }], trim: [] } },
      'ERR_INVALID_ARG_VALUE',
      /verifying goes with one block size/,
    ],
    [{ steadyState: STEADY }, 'ERR_OUT_OF_RANGE', /steady state needs a duration/],
    [
      { distribution: { kind: 'zipf', theta: 1 }, workload: 'write' },
      'ERR_INVALID_ARG_VALUE',
      /random workload, not write/,
    ],
    [{ completion: 'interrupt', jobs: 3 }, 'ERR_OUT_OF_RANGE', /4 MSI-X vectors are wanted.*; .* has 3/],
    [{ completion: 'adaptive', jobs: 3 }, 'ERR_OUT_OF_RANGE', /4 MSI-X vectors are wanted.*; .* has 3/],
    [{ jobs: 3 }, 'ERR_OUT_OF_RANGE', /2 I\/O queue pairs/],
  ];

  test('each is told, and the controller is as good as before', async () => {
    const server = await countingController('queuePairs: 2');
    const runs = cases.map(([options]) => ({ workload: 'randwrite', runtime: 0.1, ...options }));
    const told = await run(server, [...runs, { completion: 'interrupt', jobs: 2, runtime: 0.1 }]);
    cases.forEach(([options, code, message], index) => {
      const { error, started } = told[index]!;
      expect([options, started, error]).toEqual([
        options,
        false,
        { name: expect.any(String) as string, code, message: expect.stringMatching(message) as string },
      ]);
    });
    expect(told.at(-1)!.error).toBeUndefined();
    expect(told.at(-1)!.result!.jobs.every((job) => job.read.ios > 0)).toBe(true);
    expect(await statistics(server)).toMatchObject({ writeCommands: 0, errors: 0 });
  });

  test('what one of several endpoints cannot do stops all', async () => {
    const servers = [await countingController(), await countingController('queuePairs: 1')];
    const [told] = await run(servers, [{ workload: 'write', jobs: 2, runtime: 0.1 }]);
    expect(told!.error).toMatchObject({ code: 'ERR_OUT_OF_RANGE' });
    expect(told!.started).toBe(false);
    for (const server of servers) expect((await statistics(server)).writeCommands).toBe(0);
  });
});

describe('several endpoints', () => {
  test('run at the same time; their results are apart, in the order given', async () => {
    const servers = [
      await countingController("serial: 'FIRST'"),
      await countingController("serial: 'SECOND', blockSize: 4096"),
    ];
    const told = await run(servers, [
      { runtime: 0.5, jobs: 2, completion: 'interrupt' },
      { workload: 'write', verify: true, size: 1 << 20, jobs: 2 },
    ]);
    const [timed, verified] = told.map(({ result }) => result!);
    expect(
      timed!.endpoints.map(({ target }) => [target['serial'], target['lbaSize'], target['endpoint']]),
    ).toEqual([
      ['FIRST', 512, servers[0]!.path],
      ['SECOND', 4096, servers[1]!.path],
    ]);
    for (const { jobs } of timed!.endpoints) {
      expect(jobs).toHaveLength(2);
      for (const job of jobs) expect(job.read.ios).toBeGreaterThan(0);
    }
    // One after the other would be 1 s.
    expect(timed!.endpoints.flatMap(({ jobs }) => jobs).every((job) => job.runtimeMs >= 500)).toBe(true);
    expect(verified).toMatchObject({ verified: 512, mismatches: 0 });
    expect(verified!.endpoints.map(({ jobs }) => jobs.map((job) => job.write.ios))).toEqual([
      [128, 128],
      [128, 128],
    ]);
    const [first, second] = [await statistics(servers[0]!), await statistics(servers[1]!)];
    const ios = timed!.endpoints.map(({ jobs }) => jobs[0]!.read.ios + jobs[1]!.read.ios);
    expect([first.readCommands, second.readCommands]).toEqual([ios[0]! + 256, ios[1]! + 256]);
  });

  test.each(['poll', 'interrupt'])(
    'one that is killed fails the run, by its name; both are told of (%s)',
    async (completion) => {
      const servers = [await countingController(), await countingController("serial: 'KILLED'")];
      const running = run(servers, [{ runtime: 600, completion, depth: 8 }]);
      // More than are in flight, so that some are reaped.
      for (const server of servers) while ((await statistics(server)).readCommands < 100);
      process.kill(servers[1]!.process.pid!, 'SIGKILL');
      const [told] = await running;
      expect(told!.error).toBeUndefined();
      expect(told!.result!.failure!.code).toBe('ERR_VFIO_USER_DISCONNECTED');
      expect(told!.result!.failure!.message).toContain(servers[1]!.path);
      expect(told!.result!.failure!.message).not.toContain(servers[0]!.path);
      expect(told!.result!.interrupted).toBe(false);
      expect(told!.result!.endpoints.map(({ target }) => target['serial'])).toEqual(['CHILD', 'KILLED']);
      for (const { jobs } of told!.result!.endpoints) expect(jobs[0]!.read.ios).toBeGreaterThan(0);
      expect(told!.result!.endpoints.map(({ jobs }) => jobs[0]!.ended.reason)).toEqual(['stopped', 'lost']);
    },
  );
});

test('no descriptor and no mapping is left behind, whatever became of a run', async () => {
  const servers = [await countingController('queuePairs: 4'), await countingController('queuePairs: 4')];
  const short = { runtime: 0.1, jobs: 2 };
  const told = await run(
    servers,
    [
      // The first run opens what stays: the vectors of the devices, and what threads have in common.
      { ...short, completion: 'interrupt', jobs: 3 },
      short,
      { ...short, completion: 'interrupt' },
      { ...short, completion: 'adaptive', rateIops: 100 },
      { ...short, workload: 'write', verify: true, blockSize: 65536 },
      { ...short, jobs: 5 },
      { ...short, jobs: 4, completion: 'interrupt', size: 512 },
      { ...short, workload: 'randwrite', blockSize: 1000 },
      { ...short, completion: 'interrupt', jobs: 3 },
    ],
    'settle = true;',
  );
  expect(told.map(({ error }) => error !== undefined)).toEqual([
    false,
    false,
    false,
    false,
    false,
    true,
    true,
    true,
    false,
  ]);
  const [first, ...others] = told.map(({ left }) => left);
  for (const left of others) {
    expect(left.maps).toBeLessThanOrEqual(first!.maps);
    expect(left.fds).toBeLessThanOrEqual(first!.fds);
  }
});
