// SPDX-License-Identifier: MIT
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { processorUse } from '../../lib/bench/processors';
import { serve } from '../../lib/server';
import { MAIN, Scratch, cli, failure, startCli, type Running } from './run-cli';

const QUICK = ['--runtime', '200ms', '--size', '16m'];

let scratch: Scratch;
beforeEach(() => {
  scratch = new Scratch();
});
afterEach(() => {
  scratch.remove();
});

/** A controller in another process, with 16 MiB. */
async function served(): Promise<{ socket: string; server: Running }> {
  const socket = scratch.file('socket');
  const server = startCli(scratch, 'serve', 'nvme', '--socket', socket, '--size', '16m');
  await server.said('Ctrl-C ends it.');
  return { socket, server };
}

describe('without endpoint', () => {
  test('verifies what it wrote, prints a table, and leaves nothing behind', async () => {
    const { stdout, ...rest } = await cli(scratch, 'bench', '--rw', 'write', '--size', '16m', '--verify');
    // Piped, so that there is no status line.
    expect(rest).toEqual({ status: 0, signal: null, stderr: '' });
    expect(stdout).toMatch(
      /^vfio-user memory drive, NVMe 1\.4, 16\.0MiB in blocks of 512 bytes, mapped doorbells\n\nbench: embedded endpoint, namespace 1\n/,
    );
    expect(stdout).toMatch(
      /\nrw=write, bs=4096, iodepth=32, numjobs=1, verify=pattern, size=16777216, randseed=\d+,\n/,
    );
    expect(stdout).toMatch(/\nwrite +[1-9]\d* /);
    expect(stdout).toContain('\n4096 I/Os in ');
    expect(stdout).toContain('\nerrors: 0\nverify: 4096 blocks read back, all as written\n');
    await scratch.deserted();
  });

  test('JSON on stdout, and nothing else', async () => {
    const { stdout, ...rest } = await cli(
      scratch,
      'bench',
      ...QUICK,
      '--rw',
      'randrw',
      '--rwmixread',
      '70',
      '--numjobs',
      '2',
      '--output-format',
      'json',
    );
    expect(rest).toEqual({ status: 0, signal: null, stderr: '' });
    const { jobs } = JSON.parse(stdout) as {
      jobs: { read: { total_ios: number }; write: { total_ios: number } }[];
    };
    expect(jobs).toHaveLength(1);
    expect(jobs).toMatchObject([
      { error: 0, 'job options': { rw: 'randrw', bs: '4096', iodepth: '32', numjobs: '2', rwmixread: '70' } },
    ]);
    const [job] = jobs;
    const reads = job?.read.total_ios ?? 0;
    const writes = job?.write.total_ios ?? 0;
    expect(reads / (reads + writes)).toBeCloseTo(0.7, 1);
    await scratch.deserted();
  });

  test('Ctrl-C prints what was measured, and leaves nothing behind', async () => {
    const running = startCli(scratch, 'bench', '--size', '16m', '--runtime', '60');
    await running.busy(0.8);
    running.kill('SIGINT');
    const { stdout, ...rest } = await running.ended;
    expect(rest).toEqual({ status: 4, signal: null, stderr: '' });
    expect(stdout).toMatch(/\nread +[1-9]\d* /);
    expect(stdout).toContain(
      'interrupted: the run did not come to its end; these are the results up to then\n',
    );
    await scratch.deserted();
  });

  test('says so when the figures are those of the scheduler: both sides have one processor', async () => {
    const [processor] = processorUse(process.pid)!.allowed;
    const { stdout } = await promisify(execFile)(
      'taskset',
      ['-c', String(processor), process.execPath, MAIN, 'bench', '--runtime', '1', '--output-format', 'json'],
      { env: { ...process.env, NODE_DEBUG: '', TMPDIR: scratch.path } },
    );
    const [job] = (JSON.parse(stdout) as { jobs: { 'vfio-user': Record<string, unknown> }[] }).jobs;
    expect(job!['vfio-user']['doubts']).toEqual([
      expect.stringMatching(
        new RegExp(
          `^this job had \\d+ % of a processor.*; the figures tell about the scheduler\\. Both sides have one processor, number ${processor}: `,
        ),
      ),
    ]);
    expect(job!['vfio-user']['processor_share']).toBeLessThan(0.9);
    await scratch.deserted();
  });

  test('kill -9 of the tool ends its endpoint too, and removes the directory', async () => {
    const running = startCli(scratch, 'bench', '--size', '16m', '--runtime', '60');
    await running.busy(0.8);
    expect(scratch.processes()).toHaveLength(2);
    expect(scratch.entries()).toHaveLength(1);
    running.kill('SIGKILL');
    expect(await running.ended).toMatchObject({ status: null, signal: 'SIGKILL' });
    await scratch.deserted();
  });

  test('kill -9 of the endpoint fails the tool, which removes the directory', async () => {
    const running = startCli(scratch, 'bench', '--size', '16m', '--runtime', '60');
    await running.busy(0.8);
    for (const pid of scratch.processes()) if (pid !== running.pid) process.kill(pid, 'SIGKILL');
    const { stderr, ...rest } = await running.ended;
    expect(rest).toMatchObject({ status: 3, signal: null });
    expect(stderr).toMatch(/^vfio-user: \S+ went away during the run: [^\n]+\n$/);
    await scratch.deserted();
  });

  test('an endpoint that does not start', async () => {
    scratch.remove(); // There is no TMPDIR for its socket.
    const { stderr, ...rest } = await cli(scratch, 'bench');
    expect(rest).toEqual({ status: 3, signal: null, stdout: '' });
    expect(stderr).toMatch(
      /^vfio-user: the embedded endpoint ended with status 1 at its start; it said: ENOENT[^\n]+mkdtemp[^\n]+\n$/,
    );
  });

  test('the demo tells all, and what to do next', async () => {
    const { stdout, ...rest } = await cli(scratch, 'bench', '--demo');
    expect(rest).toEqual({ status: 0, signal: null, stderr: '' });
    expect(stdout.match(/^\d\. .*$/gm)).toHaveLength(7);
    expect(stdout).toMatch(/one at a time: [\d.]+[kM]? IOPS/);
    expect(stdout).toMatch(/32 in flight: [\d.]+[kM]? IOPS/);
    expect(stdout).toContain('Read back and compared: 16384 blocks, 0 differ.');
    expect(stdout).toContain('npx vfio-user bench --help');
    await scratch.deserted();
  });
});

describe('with an endpoint', () => {
  test('says what it overwrites; Ctrl-C leaves the controller shut down', async () => {
    const { socket, server } = await served();
    const running = startCli(
      scratch,
      'bench',
      socket,
      '--rw',
      'randwrite',
      '--runtime',
      '60',
      '--size',
      '1m',
    );
    await running.busy(0.8);
    running.kill('SIGTERM');
    const { stdout, ...rest } = await running.ended;
    const warning = `vfio-user: --rw randwrite overwrites the first 1.00MiB of the first namespace of ${socket}\n`;
    expect(rest).toEqual({ status: 4, signal: null, stderr: warning });
    expect(stdout).toContain(
      'interrupted: the run did not come to its end; these are the results up to then\n',
    );
    const { stdout: json } = await cli(scratch, 'info', socket, '--json');
    expect(JSON.parse(json)).toMatchObject({ nvme: { cc: 0, csts: 0 } });
    server.kill('SIGTERM');
    await server.ended;
    await scratch.deserted();
  });

  test('a server that dies in the middle', async () => {
    const { socket, server } = await served();
    const running = startCli(scratch, 'bench', socket, '--runtime', '60');
    await running.busy(0.8);
    server.kill('SIGKILL');
    const { stdout, stderr, ...rest } = await running.ended;
    expect(rest).toEqual({ status: 3, signal: null });
    // What was measured before is printed all the same.
    expect(stdout).toMatch(/\nread +[1-9]\d* /);
    expect(stderr).toMatch(/^vfio-user: \S+ went away during the run: [^\n]+\n$/);
  });

  test('an endpoint that another client holds', async () => {
    const { socket, server } = await served();
    const holder = startCli(scratch, 'bench', socket, '--runtime', '60');
    await holder.busy(0.8);
    const { stderr, ...rest } = await cli(scratch, 'bench', socket, '--connect-timeout', '300ms');
    expect(rest).toEqual({ status: 3, signal: null, stdout: '' });
    expect(stderr).toMatch(/^vfio-user: \S+ accepts connections but does not answer: [^\n]+\n$/);
    holder.kill('SIGINT');
    expect(await holder.ended).toMatchObject({ status: 4 });
    server.kill('SIGTERM');
    await server.ended;
  });

  test('what does not fit the controller is wrong usage', async () => {
    const { socket, server } = await served();
    const lines: [string[], string][] = [
      [['--size', '32m'], 'a size of 32.0MiB is beyond namespace 1, which has 16.0MiB'],
      [['--bs', '1000'], "a block size of 1000B is no multiple of the namespace's block of 512 bytes"],
      [['--bs', '1m'], "a block size of 1.00MiB is above the controller's largest transfer, 128KiB"],
      [['--nsid', '7'], `${socket} has no namespace 7; it has 1`],
      [['--iodepth', '5000'], "an I/O depth of 5000 is too much; the controller's queues hold 1023"],
      [
        ['--verify'],
        'verifying needs a workload that writes (write, randwrite, rw, randrw): it reads back what the run has written',
      ],
    ];
    for (const [args, line] of lines)
      expect(await cli(scratch, 'bench', socket, ...args)).toEqual(failure(2, line));
    server.kill('SIGTERM');
    await server.ended;
  }, 30_000);

  test('a device that is no NVMe controller', async () => {
    const socket = scratch.file('nic');
    const server = await serve(socket, {
      name: 'nic',
      pci: { vendorId: 0x494f, deviceId: 0x0dc8, classCode: 0x020000 },
    });
    const line =
      `${socket} is not an NVMe controller: its class code is 0x020000 (Ethernet controller), NVMe has 0x010802. ` +
      '"vfio-user info" shows what it is';
    expect(await cli(scratch, 'bench', socket)).toEqual(failure(1, line));
    await server.close();
  });
});

describe('wrong usage, told before anything is started', () => {
  test.each<[string[], string]>([
    [
      ['--size', '0'],
      "Option --size does not accept '0'; it takes a size such as 512, 4k or 1m, at least 512 bytes",
    ],
    [
      ['--bs', '0'],
      "Option --bs does not accept '0'; it takes a size of at least 512 bytes, such as 4k, or sizes for reads, writes and trims: 4k,64k",
    ],
    [
      ['--iodepth', '0'],
      "Option --iodepth does not accept '0'; it takes a whole number such as 32 or 10k, from 1 to 65535",
    ],
    [['--rwmixread', '70'], '--rwmixread goes with --rw rw or randrw, not with --rw randread'],
    [
      ['--rw', 'randrw', '--rwmixread', '101'],
      "Option --rwmixread does not accept '101'; it takes a whole number, from 0 to 100",
    ],
    [
      ['--demo', '/run/nvme'],
      '--demo writes data, so it runs on an endpoint of its own only; leave out the endpoint',
    ],
    [
      ['--demo', '--rw', 'write', '--bs=8k'],
      '--demo shows runs of its own and takes no other options; leave out --rw, --bs',
    ],
    [['-q', '32'], 'Unknown option -q; what other tools call so is --iodepth here'],
    [['--bs', '4k', '--bs', '8k'], "Option --bs is given twice, as '4k' and as '8k'; give it once"],
    [
      ['--random-distribution', 'zipf:0'],
      "Option --random_distribution does not accept 'zipf:0'; it takes random, zipf, or zipf:<skew> with a skew above 0 and up to 10",
    ],
  ])('%j', async (args, line) => {
    expect(await cli(scratch, 'bench', ...args)).toEqual(failure(2, line));
    expect(scratch.entries()).toEqual([]);
  });
});
