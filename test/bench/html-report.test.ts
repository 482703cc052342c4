// SPDX-License-Identifier: MIT
import { htmlReport, type HtmlReportInput } from '../../lib/bench/html-report';
import { emptyDirection } from '../../lib/bench/job-result';
import { sampleDirection, sampleSeries } from './sample-job';
import { samplePart, sampleReport, tailedDirection } from './sample-report';

/** The text that a reader sees, with a space for each element. */
function textOf(page: string): string {
  return page
    .replace(/<style>[\s\S]*<\/style>/, '')
    .replace(/<[^>]*>/g, ' ')
    .replace(/\s+/g, ' ');
}

function render(fields: Partial<HtmlReportInput> = {}): { page: string; text: string } {
  // Spaces that do not break are spaces here.
  const page = htmlReport(sampleReport(fields)).replaceAll('\u00a0', ' ');
  return { page, text: textOf(page) };
}

/** Attributes of elements whose tag begins so. */
function count(page: string, tag: string): number {
  return page.split(tag).length - 1;
}

test('the page stands alone: nothing is loaded, nothing runs', () => {
  const { page } = render();
  expect(page).toMatch(/^<!DOCTYPE html>\n<html lang="en">/);
  expect(page).toContain(`content="default-src 'none'; style-src 'unsafe-inline'"`);
  for (const loader of ['<script', '<link', '<img', '<iframe', '<image', '<use', '<foreignObject', '@import'])
    expect(page).not.toContain(loader);
  expect(page).not.toMatch(/\s(src|href|xlink:href|srcset|on\w+)=/);
  expect(page).not.toMatch(/url\(|https?:/);
});

test('numbers first: rates, percentiles, the slowest', () => {
  const { text } = render();
  // 2 * 100010 I/Os in 10 s. The median lies where the reads end and the writes begin; 20 I/Os of 200020 are in the tail.
  expect(text).toContain('randrw, 4 KiB, 32 in flight');
  expect(text).toContain('2026-01-02 03:04:05 UTC, measured for 10.0 s');
  expect(text).toMatch(/IOPS 20\.0k Bandwidth 78\.1 MiB\/s p50 latency \d\d\.\d µs p99 latency 39\.\d µs/);
  expect(text).toContain('Slowest I/O 20.0 ms');
});

test('reads, writes and their total stand side by side', () => {
  const { page, text } = render();
  expect(text).toMatch(/ read 100,010 10,001 39\.1 MiB\/s 8\.00 µs .* 8\.00 ms write 100,010 /);
  expect(text).toMatch(/ total 200,020 20,002 78\.1 MiB\/s 8\.00 µs .* 20\.0 ms /);
  expect(text).toContain('Percentile read write total');
  expect(page).toMatch(/class="line s1"/);
  const { page: single, text: reads } = render({ parts: [samplePart({ read: tailedDirection(8000) })] });
  expect(reads).toMatch(/ read 100,010 /);
  expect(reads).not.toMatch(/ (write|total) /);
  expect(single).not.toMatch(/class="line s1"|class="legend"/);
});

test('percentiles: those of fio, those on request, and as many nines as there are I/Os for', () => {
  const { text } = render({ percentiles: [97.5, 99] });
  const rows = Array.from(
    text.slice(text.indexOf('Percentile read write total')).matchAll(/ ([\d.]+) % (?=[\d.]+ µs|[\d.]+ ms)/g),
    (match) => Number(match[1]),
  );
  expect(rows).toEqual([
    1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 97.5, 99, 99.5, 99.9, 99.95, 99.99, 99.999,
  ]);
});

test('charts: five, drawn for a screen and for a telephone, told in words', () => {
  const { page } = render();
  const ids = Array.from(page.matchAll(/ id="([^"]+)"/g), (match) => match[1]);
  expect(new Set(ids).size).toBe(ids.length);
  expect(ids).toHaveLength(20);
  for (const name of ['percentiles', 'histogram', 'iops', 'bandwidth', 'latency-time']) {
    for (const variant of ['wide', 'narrow']) {
      const id = `${name}-${variant}`;
      expect(ids).toEqual(expect.arrayContaining([`${id}-title`, `${id}-desc`]));
      expect(page).toContain(`aria-labelledby="${id}-title ${id}-desc"`);
    }
  }
  expect(page).toMatch(
    /read: 50 % within 1[12]\.\d µs, 99 % within 1[56]\.\d µs, 99\.9 % within 1[56]\.\d µs, the slowest 8\.00 ms\. write: /,
  );
  expect(page).toContain('read: 10.0k on average, from 10.0k to 11.9k in intervals of 500 ms.');
});

test('no coordinate is out of the picture, none is NaN', () => {
  const one = sampleDirection([1234], 1);
  const pages = [
    render(),
    render({ parts: [samplePart({ read: one })] }),
    render({
      parts: [samplePart({ read: sampleDirection([0], 1, [5]), write: sampleDirection([20e9], 1, [0]) })],
    }),
    render({ parts: [samplePart({ read: sampleDirection([1e9, 1e9], 1, [0, 0]) })] }),
  ];
  for (const { page } of pages) {
    expect(page).not.toMatch(/NaN|Infinity|undefined/);
    const charts = [...page.matchAll(/viewBox="0 0 (\d+) (\d+)"([\s\S]*?)<\/svg>/g)];
    expect(charts.length).toBeGreaterThanOrEqual(4);
    for (const [, width = '', height = '', body = ''] of charts) {
      const [xs, ys]: [number[], number[]] = [[], []];
      for (const [, d = ''] of body.matchAll(/ d="([^"]+)"/g)) {
        for (const [, letter, a, b] of d.matchAll(/([MVH])(-?[\d.]+)(?: (-?[\d.]+))?/g)) {
          if (letter !== 'V') xs.push(Number(a));
          if (letter === 'V') ys.push(Number(a));
          if (letter === 'M') ys.push(Number(b));
        }
      }
      for (const [, name = '', value] of body.matchAll(/ (x|y|cx|cy)="(-?[\d.]+)"/g))
        (name.endsWith('x') ? xs : ys).push(Number(value));
      expect(xs.length * ys.length).toBeGreaterThan(0);
      expect(xs.filter((x) => !(x >= 0 && x <= Number(width)))).toEqual([]);
      expect(ys.filter((y) => !(y >= 0 && y <= Number(height)))).toEqual([]);
    }
  }
});

test('without any I/O there is nothing to draw, and the page says so', () => {
  const { page, text } = render({
    parts: [samplePart({ runtimeMs: 0 })],
    remarks: [{ kind: 'bad', heading: 'Failed', text: 'x stopped completing commands' }],
  });
  expect(text).toContain('No I/O was completed');
  expect(text).toContain('Failed : x stopped completing commands');
  expect(text).toContain('p99 latency – ');
  expect(text).toMatch(/ total 0 0 0 B\/s – – – – – – /);
  expect(page).not.toContain('<svg');
});

test('a single I/O, too short a run for a course over time', () => {
  const { page, text } = render({ parts: [samplePart({ read: sampleDirection([1234], 1) })] });
  expect(text).toContain('The run was shorter than an interval of 500 ms.');
  expect(text).toMatch(/ read 1 1,000 3\.91 MiB\/s( 1\.23 µs){6} /);
  expect(page).toContain('viewBox');
});

test('several endpoints are compared; more than can be told apart are summed up', () => {
  const parts = (length: number): HtmlReportInput['parts'] =>
    Array.from({ length }, (_, index) =>
      samplePart({ read: tailedDirection(8000 * (index + 1)) }, `/run/${index}`, `nvme${index}`),
    );
  const two = render({ parts: parts(2) });
  expect(two.text).toContain('/run/0 · /run/1');
  expect(two.text).toMatch(/ \/run\/0, read 100,010 .* \/run\/1, read 100,010 .* total 200,020 20,002 /);
  expect(two.text).toContain('Percentile /run/0 /run/1 total');
  expect(two.text).toContain('filename /run/0, /run/1');
  expect(two.text).toContain('iodepth 32 ');
  expect(count(two.page, 'class="line s1"')).toBeGreaterThan(0);
  const seven = render({ parts: parts(7) });
  expect(seven.text).toContain('Percentile all');
  expect(seven.text).toContain(' /run/6, read ');
  expect(count(seven.page, 'class="line s1"')).toBe(0);
});

test('endpoints with the same name are told apart by what they are', () => {
  const parts = ['/run/a', '/run/b'].map((target) => samplePart({ read: tailedDirection(8000) }, target));
  const { text } = render({ parts });
  expect(text).toContain('Percentile /run/a /run/b total');
  expect(text).toContain(' /run/a, read 100,010 ');
});

test('an endpoint that did nothing is listed, but not drawn', () => {
  const { text } = render({
    parts: [
      samplePart({ read: tailedDirection(8000) }, '/run/a', 'a'),
      samplePart({ read: emptyDirection() }, '/run/b', 'b'),
    ],
  });
  expect(text).toContain('/run/a · /run/b');
  expect(text).toContain('Percentile /run/a ');
});

test('a day of samples makes no larger page than a minute', () => {
  const day = {
    ...tailedDirection(8000),
    samples: sampleSeries(Array.from({ length: 172_800 }, (_, index) => index % 7)),
  };
  const page = htmlReport(sampleReport({ parts: [samplePart({ read: day })] }));
  expect(page.length).toBeLessThan(200_000);
});

test('text of the peer is text', () => {
  const hostile = `<script>alert(1)</script>"'><img src=x onerror=alert(1)>`;
  const page = htmlReport(
    sampleReport({
      parts: [samplePart({ read: tailedDirection(1) }, hostile, hostile), samplePart({}, undefined, hostile)],
      remarks: [{ kind: 'bad', heading: 'Failed', text: hostile }],
      ends: [{ title: hostile, rows: [[hostile, hostile]] }],
    }),
  );
  expect(page).not.toMatch(/<script|<img|"'>/);
  expect(count(page, '&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&gt;&lt;img')).toBeGreaterThan(6);
});

test('tables have captions and headers', () => {
  const { page } = render();
  expect(count(page, '<table')).toBe(6);
  expect(count(page, '<caption')).toBe(6);
  expect(page).toMatch(/<th scope="col">p99\.9<\/th>/);
  expect(page).toMatch(/<th scope="row">iodepth<\/th>/);
});
