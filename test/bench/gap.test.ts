// SPDX-License-Identifier: MIT
import { fioReport } from '../../lib/bench/fio-json';
import { gapTexts, type Gap } from '../../lib/bench/gap';
import { htmlReport } from '../../lib/bench/html-report';
import { samplePart, sampleReport, tailedDirection } from './sample-report';

const gap: Gap = { atMs: 3210, back: true, awayMs: 512, firstIoMs: 34.1, resubmitted: 32 };

test.each<[string, Partial<Gap>, string]>([
  [
    'one that ended',
    {},
    'at 3.21s the server was away for 512ms; first I/O 34.1ms after it was back; 32 I/Os sent again',
  ],
  [
    'in the ramp, with one I/O in flight',
    { atMs: -250, resubmitted: 1 },
    '250ms before the measured run the server was away for 512ms; first I/O 34.1ms after it was back; 1 I/O sent again',
  ],
  [
    'without an I/O before the next',
    { firstIoMs: null },
    'at 3.21s the server was away for 512ms; no I/O was completed when it was back; 32 I/Os sent again',
  ],
  [
    'at the end of the run',
    { back: false, firstIoMs: null },
    'at 3.21s the server went away, and was not back 512ms later, with 32 I/Os in flight',
  ],
])('the text of a gap: %s', (_, fields, text) => {
  expect(gapTexts([{ ...gap, ...fields }])).toEqual([text]);
});

test('several gaps are summed up, and many are not listed', () => {
  const gaps = [200, 100, 900].map((awayMs, index) => ({
    ...gap,
    awayMs,
    firstIoMs: index === 0 ? null : awayMs / 10,
  }));
  const texts = gapTexts(gaps);
  expect(texts).toHaveLength(4);
  expect(texts[3]).toBe(
    'the server was away 3 times, for 1.20s in all, 900ms at most; first I/O 90.0ms after its return (median), 90.0ms at most; 96 I/Os sent again',
  );
  expect(gapTexts([...gaps, ...gaps])).toEqual([
    'the server was away 6 times, for 2.40s in all, 900ms at most; first I/O 90.0ms after its return (median), 90.0ms at most; 192 I/Os sent again',
  ]);
  expect(gapTexts([gap, gap].map((each) => ({ ...each, firstIoMs: null })))[2]).toBe(
    'the server was away 2 times, for 1.02s in all, 512ms at most; 64 I/Os sent again',
  );
  expect(gapTexts([])).toEqual([]);
});

test('JSON has them in milliseconds', () => {
  const [started, ended] = [new Date(0), new Date(1000)];
  const report = (gaps: readonly Gap[]) =>
    fioReport({ version: '1', started, ended, parts: [{ ...samplePart({}), gaps }] }).jobs[0]?.['vfio-user']
      .gaps;
  expect(report([gap])).toEqual([{ at: 3210, back: true, away: 512, first_io: 34.1, resubmitted: 32 }]);
  expect(report([])).toEqual([]);
});

test('the page has a table of them, and none without', () => {
  const render = (gaps: readonly Gap[]): string =>
    htmlReport(sampleReport({ parts: [{ ...samplePart({ read: tailedDirection(8000) }), gaps }] }))
      .replace(/<[^>]*>/g, ' ')
      .replace(/\s+/g, ' ');
  expect(render([gap, { ...gap, back: false, firstIoMs: null }])).toMatch(
    /Gaps: the server was away .* at 3.21s 512.ms 34.1.ms 32 at 3.21s 512.ms, not back – 32 /,
  );
  expect(render([])).not.toContain('Gaps');
});
