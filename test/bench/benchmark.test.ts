// SPDX-License-Identifier: MIT
/** The benchmark end to end, over dist/: the jobs run in worker threads, the controller in another process. */
import { childController, childServer } from '../client/child-server';
import { run } from './run-benchmark';

jest.setTimeout(120_000);

const SIZE = 16 << 20;

test('all workloads, for a time', async () => {
  const workloads = ['read', 'write', 'randread', 'randwrite', 'randrw'];
  const told = await run(
    await childController(),
    workloads.map((workload) => ({ workload, runtime: 0.3 })),
  );
  told.forEach(({ result, error }, index) => {
    expect(error).toBeUndefined();
    expect(result).toMatchObject({ verified: 0, mismatches: 0, interrupted: false });
    expect(result!.failure).toBeUndefined();
    const [job] = result!.jobs;
    expect(job!.runtimeMs).toBeGreaterThanOrEqual(300);
    expect([job!.read.ios > 0, job!.write.ios > 0]).toEqual([
      ['read', 'randread', 'randrw'].includes(workloads[index]!),
      ['write', 'randwrite', 'randrw'].includes(workloads[index]!),
    ]);
    expect(job!.read.bytes).toBe(job!.read.ios * 4096);
  });
  expect(told[0]!.result!.target).toMatchObject({
    serial: 'CHILD',
    lbaSize: 512,
    capacity: SIZE,
    mappedDoorbells: true,
  });
});

test('verify, several jobs, large blocks, doorbells by message', async () => {
  const told = await run(await childController(), [
    { workload: 'write', verify: true, jobs: 2, blockSize: 131072 },
    { workload: 'randwrite', verify: true, runtime: 0.2, jobs: 2 },
    { workload: 'randrw', verify: true, runtime: 0.2, blockSize: 512 },
    { workload: 'read', jobs: 2, size: 1 << 20, depth: 1 },
  ]);
  for (const { result } of told) expect(result).toMatchObject({ mismatches: 0 });
  // Without a time, every block once: 128 of 128 KiB.
  expect(told[0]!.result).toMatchObject({
    verified: 128,
    jobs: [{ write: { ios: 64 } }, { write: { ios: 64 } }],
  });
  expect(told[1]!.result!.verified).toBeGreaterThan(0);
  expect(told[2]!.result!.verified).toBeGreaterThan(0);
  expect(told[3]!.result).toMatchObject({ jobs: [{ read: { ios: 128 } }, { read: { ios: 128 } }] });

  const byMessage = await run(await childController('mappableDoorbells: false'), [
    { workload: 'write', verify: true, size: 1 << 20, depth: 4 },
  ]);
  expect(byMessage[0]!.result).toMatchObject({
    verified: 256,
    mismatches: 0,
    target: { mappedDoorbells: false },
  });
});

test('options that make no sense, before anything is measured', async () => {
  const cases: [Record<string, unknown>, string, RegExp][] = [
    [{ size: 0 }, 'ERR_OUT_OF_RANGE', /size of 0/],
    [{ size: SIZE + 512 }, 'ERR_OUT_OF_RANGE', /beyond namespace 1/],
    [{ size: 4096, jobs: 2 }, 'ERR_OUT_OF_RANGE', /too small/],
    [{ blockSize: 1000 }, 'ERR_INVALID_ARG_VALUE', /no multiple/],
    [{ blockSize: 0 }, 'ERR_OUT_OF_RANGE', /block size is 0/],
    [{ blockSize: 262144 }, 'ERR_OUT_OF_RANGE', /largest transfer/],
    [{ depth: 1024 }, 'ERR_OUT_OF_RANGE', /hold 1023/],
    [{ depth: 0 }, 'ERR_OUT_OF_RANGE', /depth is 0/],
    [{ jobs: 0 }, 'ERR_OUT_OF_RANGE', /number of jobs is 0/],
    [{ jobs: 65 }, 'ERR_OUT_OF_RANGE', /64 I\/O queue pairs/],
    [{ workload: 'read', verify: true }, 'ERR_INVALID_ARG_VALUE', /workload that writes/],
    [{ runtime: 0 }, 'ERR_OUT_OF_RANGE', /run time is 0/],
    [{ readShare: 1.1 }, 'ERR_OUT_OF_RANGE', /share of reads/],
    [{ nsid: 2 }, 'ERR_OUT_OF_RANGE', /no namespace 2/],
  ];
  const told = await run(await childController(), [...cases.map(([options]) => options), { size: 4096 }]);
  cases.forEach(([options, code, text], index) => {
    expect([options, told[index]!.error]).toEqual([
      options,
      { name: expect.any(String) as string, code, message: expect.stringMatching(text) as string },
    ]);
  });
  // The device is as good as before.
  expect(told.at(-1)!.result).toMatchObject({ jobs: [{ read: { ios: 1 } }] });
});

test('a run that is aborted tells what it measured', async () => {
  const [told] = await run(
    await childController(),
    [{ runtime: 600 }],
    `const controller = new AbortController();
     options.signal = controller.signal;
     options.onProgress = ({ rates }) => { one.progress++; if (rates.read.iops > 0) controller.abort(); };`,
  );
  expect(told!.progress).toBeGreaterThanOrEqual(1);
  expect(told!.result).toMatchObject({ interrupted: true });
  expect(told!.result!.failure).toBeUndefined();
  expect(told!.result!.jobs[0]!.read.ios).toBeGreaterThan(0);
  expect(told!.result!.jobs[0]!.ended).toEqual({ reason: 'stopped', message: '' });
});

test.each([
  ['mapped doorbells', 'poll', ''],
  ['doorbells by message', 'poll', 'mappableDoorbells: false'],
  ['doorbells by message', 'interrupt', 'mappableDoorbells: false'],
])(
  'a server that is killed fails the run, which tells what it measured, with %s (%s)',
  async (_what, completion, options) => {
    const server = await childController(options);
    const [told] = await run(
      server,
      [{ runtime: 600, jobs: 1, completion }],
      `options.onProgress = ({ rates }) => {
         one.progress++;
         if (rates.read.iops > 0) process.kill(${server.process.pid}, 'SIGKILL');
       };`,
    );
    expect(told!.error).toBeUndefined();
    expect(told!.result!.failure).toMatchObject({ code: 'ERR_VFIO_USER_DISCONNECTED' });
    expect(told!.result!.failure!.message).toMatch(/^\S+ went away during the run: ./);
    const [job] = told!.result!.jobs;
    expect(job!.read.ios).toBeGreaterThan(0);
    expect(job!.runtimeMs).toBeGreaterThan(0);
    expect(job!.ended).toEqual({
      reason: 'lost',
      message: expect.stringMatching(/^went away during the run: ./) as string,
    });
  },
);

test.each([
  [
    'a command that fails',
    'write(offset, source, at, length) { return offset === 65536 ? BackendResult.mediumError : memory.write(offset, source, at, length); }',
    'ERR_VFIO_USER_NVME_STATUS',
    /^\S+ failed Write at LBA 128: Write fault \(02\/80\)$/,
    { errors: 1, ended: { reason: 'failed' } },
  ],
  [
    'data that is lost',
    'write(offset, source, at, length) { return offset === 65536 ? BackendResult.success : memory.write(offset, source, at, length); }',
    'ERR_VFIO_USER_VERIFY',
    /^\S+ did not keep what was written: 1 of 256 blocks read back differ; the first: LBA 128: corrupt: all 512 bytes are zero$/,
    { errors: 1, mismatches: 1, verified: 256, ended: { reason: 'mismatch' } },
  ],
])('%s fails the run, by its name', async (_what, write, code, message, job) => {
  const server = await childServer(`
    const memory = createBackend({ kind: 'memory', size: 1 << 20 });
    const read = memory.read.bind(memory);
    const backend = {
      kind: 'odd', size: memory.size, volatileCache: false, read,
      ${write},
      zero: (offset, length) => memory.zero(offset, length),
      flush: () => memory.flush(),
      close: () => memory.close(),
    };
    return new NvmeControllerModel({ backend });
  `);
  const [told] = await run(server, [{ workload: 'write', verify: true }]);
  expect(told!.error).toBeUndefined();
  expect(told!.result!.failure).toEqual({ code, message: expect.stringMatching(message) as string });
  expect(told!.result!.failure!.message).toContain(server.path);
  expect(told!.result!.jobs).toMatchObject([job]);
});
