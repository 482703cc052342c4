// SPDX-License-Identifier: MIT
import { WORKLOADS, type Workload } from '../../lib/bench/job';
import { formatLiveLine, LiveLine, type DisplayedRun } from '../../lib/bench/live-line';
import type { BenchmarkProgress } from '../../lib/bench/progress-watch';

const RUN: DisplayedRun = { groups: [{ workload: 'randrw', jobs: 1 }] };
const NONE = { iops: 0, bandwidth: 0 };
const PROGRESS: BenchmarkProgress = {
  rates: {
    read: { iops: 82, bandwidth: 82 * 262_144 },
    write: { iops: 94.1, bandwidth: 94.1 * 262_144 },
    trim: NONE,
  },
  part: 0.248,
  secondsLeft: 91,
  elapsedMs: 0,
  ios: 0,
  bytes: 0,
  processorShare: 1,
  awaySeconds: 0,
  phase: 'run',
};
const LINE = 'Jobs: 1 (f=1): [m(1)][24.8%][r=20.5MiB/s,w=23.5MiB/s][r=82,w=94 IOPS][eta 01m:31s]';

test('the line is that of fio', () => {
  expect(formatLiveLine(PROGRESS, RUN)).toBe(LINE);
});

test('a direction that is not used is left out', () => {
  const rates = {
    read: { iops: 1, bandwidth: 512 },
    write: { iops: 1_230_000.2, bandwidth: 1_230_000.2 * 512 },
    trim: { iops: 7, bandwidth: 7 * 2 ** 30 },
  };
  const progress = { ...PROGRESS, rates, part: 1.2, secondsLeft: -1 };
  const line = (workload: Workload): string => formatLiveLine(progress, { groups: [{ workload, jobs: 4 }] });
  expect(line('randwrite')).toBe('Jobs: 4 (f=4): [w(4)][100.0%][w=601MiB/s][w=1.23M IOPS][eta 00m:00s]');
  expect(line('read')).toBe('Jobs: 4 (f=4): [R(4)][100.0%][r=512B/s][r=1 IOPS][eta 00m:00s]');
  expect(line('randtrim')).toBe('Jobs: 4 (f=4): [d(4)][100.0%][t=7.00GiB/s][t=7 IOPS][eta 00m:00s]');
});

test('jobs that do different things have their letters', () => {
  const groups = [
    { workload: 'randread', jobs: 2 },
    { workload: 'write', jobs: 1 },
  ] as const;
  expect(formatLiveLine(PROGRESS, { groups })).toBe(
    'Jobs: 3 (f=3): [r(2),W(1)][24.8%][r=20.5MiB/s,w=23.5MiB/s][r=82,w=94 IOPS][eta 01m:31s]',
  );
});

test('while a server is away the line says so', () => {
  expect(formatLiveLine({ ...PROGRESS, awaySeconds: 2.6 }, RUN)).toBe(
    'Jobs: 1 (f=1): [m(1)][24.8%][server away for 3s][r=20.5MiB/s,w=23.5MiB/s][r=82,w=94 IOPS][eta 01m:31s]',
  );
});

test('while blocks are read back there are reads alone', () => {
  expect(formatLiveLine({ ...PROGRESS, phase: 'verify' }, { groups: [{ workload: 'write', jobs: 1 }] })).toBe(
    'Jobs: 1 (f=1): [V(1)][24.8%][r=20.5MiB/s][r=82 IOPS][eta 01m:31s]',
  );
});

test.each([
  [0.2, '00m:01s'],
  [3599, '59m:59s'],
  [7205, '02h:00m:05s'],
  [93_605, '1d:02h:00m:05s'],
])('%d s left are %s', (secondsLeft, text) => {
  expect(formatLiveLine({ ...PROGRESS, secondsLeft }, RUN)).toContain(`[eta ${text}]`);
});

test('workloads have the letters of fio', () => {
  const letters = WORKLOADS.map(
    (workload) => /\[(\w)\(1\)\]/.exec(formatLiveLine(PROGRESS, { groups: [{ workload, jobs: 1 }] }))![1],
  );
  expect(letters.join('')).toBe('RWDMMrwdmm');
});

function stream(
  isTTY: boolean,
  columns?: number,
): { isTTY: boolean; columns?: number; text: string; write(text: string): void } {
  return {
    isTTY,
    ...(columns === undefined ? {} : { columns }),
    text: '',
    write(text) {
      this.text += text;
    },
  };
}

test('a terminal gets one line over and over, and a clean end', () => {
  const terminal = stream(true, 200);
  const live = new LiveLine(terminal, RUN);
  live.clear();
  live.update(PROGRESS);
  live.update({ ...PROGRESS, part: 0.5 });
  live.clear();
  live.clear();
  expect(terminal.text).toBe(`\r${LINE}\x1b[K\r${LINE.replace('24.8%', '50.0%')}\x1b[K\r\x1b[K`);
});

test.each([
  [10, 9],
  // A terminal that does not know its width.
  [0, 79],
])('a line is cut so that it does not wrap in %i columns', (columns, length) => {
  const narrow = stream(true, columns);
  new LiveLine(narrow, RUN).update(PROGRESS);
  expect(narrow.text).toBe(`\r${LINE.slice(0, length)}\x1b[K`);
});

test('anything else than a terminal gets nothing', () => {
  const pipe = stream(false);
  const live = new LiveLine(pipe, RUN);
  live.update(PROGRESS);
  live.clear();
  expect(pipe.text).toBe('');
});
