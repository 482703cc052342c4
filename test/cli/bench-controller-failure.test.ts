// SPDX-License-Identifier: MIT
/** `bench` of a controller that fails: it says so in a register alone, while nothing is completed. */
import { Scratch, cli, startCli, type Running } from './run-cli';

let scratch: Scratch;
let drive: Running;
beforeEach(() => {
  scratch = new Scratch();
});
afterEach(async () => {
  drive.kill('SIGTERM');
  await drive.ended;
  scratch.remove();
});

async function serve(...args: string[]): Promise<string> {
  const socket = scratch.file('socket');
  drive = startCli(scratch, 'serve', 'nvme', '--socket', socket, '--size', '8m', ...args);
  await drive.said('Ctrl-C ends it.');
  return socket;
}

/** A run that nothing else would end. */
const LONG = ['--rw', 'randread', '--runtime', '600', '--timeout', '30'];

test.each([
  ['mapped', 'poll'],
  ['mapped', 'interrupt'],
  ['trapped', 'poll'],
])(
  'a fatal error ends the run at once, with %s doorbells and completion %s',
  async (doorbells, completion) => {
    const socket = await serve('--doorbells', doorbells, '--fault', 'on=read,nth=300,fatal');
    const { stdout, ...rest } = await cli(scratch, 'bench', socket, ...LONG, '--completion', completion);
    expect(rest).toEqual({
      status: 1,
      signal: null,
      stderr: `vfio-user: ${socket} failed during the run: ${socket} has failed with a fatal error (CFS, CSTS 0x3); a command that was in flight may or may not have been carried out: attach to it anew, and look at the log of its server\n`,
    });
    // What was measured until then is told.
    expect(stdout).toMatch(/IOPS/);
  },
);

test('a controller that was pulled out ends the run', async () => {
  const socket = await serve('--fault', 'on=read,nth=300,remove');
  const { status, stderr } = await cli(scratch, 'bench', socket, ...LONG);
  expect(status).toBe(1);
  expect(stderr).toContain(' is gone: its registers read as ones, as if it had been pulled out; ');
});

test('with --reconnect it is reset, the jobs go on, and the gap is told', async () => {
  const socket = await serve('--fault', 'on=read,nth=300,fatal');
  const args = [
    '--rw',
    'randread',
    '--io_size',
    '16m',
    '--numjobs',
    '2',
    '--reconnect',
    '--output-format',
    'json',
  ];
  const { status, stdout, stderr } = await cli(scratch, 'bench', socket, ...args);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  interface FioJob {
    error: number;
    read: { io_bytes: number };
    'vfio-user': { gaps: { back: boolean; resubmitted: number }[] };
  }
  const { jobs } = JSON.parse(stdout) as { jobs: FioJob[] };
  expect(jobs).toMatchObject([
    { error: 0, read: { io_bytes: 2 * (16 << 20) }, 'vfio-user': { gaps: [{ back: true }] } },
  ]);
  // The reads that the controller had taken, or at least the one that it failed at.
  expect(jobs[0]?.['vfio-user'].gaps[0]?.resubmitted).toBeGreaterThan(0);
});
