// SPDX-License-Identifier: MIT
import { formatLiveLine, LiveLine, statusLetter } from '../../lib/bench/live-line';

const MIB = 1_048_576;

test('the line is that of fio', () => {
  const line = formatLiveLine({
    jobs: 1,
    letter: 'r',
    progress: 0.248,
    read: { bytesPerSecond: 20.5 * MIB, iops: 82 },
    write: { bytesPerSecond: 23.5 * MIB, iops: 94 },
    etaSeconds: 91,
  });
  expect(line).toBe('Jobs: 1 (f=1): [r(1)][24.8%][r=20.5MiB/s,w=23.5MiB/s][r=82,w=94 IOPS][eta 01m:31s]');
});

test('a direction that is not used is left out', () => {
  const status = { jobs: 4, letter: 'w', progress: 1.2, etaSeconds: -1 };
  expect(formatLiveLine({ ...status, write: { bytesPerSecond: 4096.4, iops: 1_230_000.2 } })).toBe(
    'Jobs: 4 (f=4): [w(4)][100.0%][w=4.00KiB/s][w=1.23M IOPS][eta 00m:00s]',
  );
  expect(formatLiveLine(status)).toBe('Jobs: 4 (f=4): [w(4)][100.0%][eta 00m:00s]');
});

test.each([
  [0.2, '00m:01s'],
  [3599, '59m:59s'],
  [7205, '02h:00m:05s'],
  [93_605, '1d:02h:00m:05s'],
])('%d s left are %s', (etaSeconds, text) => {
  expect(formatLiveLine({ jobs: 1, letter: 'R', progress: 0, etaSeconds })).toContain(`[eta ${text}]`);
});

test('workloads have the letters of fio', () => {
  const workloads = ['read', 'write', 'rw', 'readwrite', 'randread', 'randwrite', 'randrw', 'other'];
  expect(workloads.map(statusLetter).join('')).toBe('RWMMrwm?');
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
  const terminal = stream(true);
  const live = new LiveLine(terminal);
  live.clear();
  live.update('one');
  live.update('two');
  live.clear();
  live.clear();
  expect(terminal.text).toBe('\rone\x1b[K\rtwo\x1b[K\r\x1b[K');
});

test('a line is cut so that it does not wrap', () => {
  const narrow = stream(true, 10);
  new LiveLine(narrow).update('0123456789abcdef');
  expect(narrow.text).toBe('\r012345678\x1b[K');
});

test('anything else than a terminal gets nothing', () => {
  const pipe = stream(false);
  const live = new LiveLine(pipe);
  live.update('one');
  live.clear();
  expect(pipe.text).toBe('');
});
