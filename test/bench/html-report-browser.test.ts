// SPDX-License-Identifier: MIT
import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { htmlReport } from '../../lib/bench/html-report';
import { samplePart, sampleReport, tailedDirection } from './sample-report';

const CHROMIUM = process.env['CHROMIUM'] ?? '/usr/bin/chromium';
const described = existsSync(CHROMIUM) ? describe : describe.skip;

/** What a browser made of the page in a window of a given width. */
interface Seen {
  readonly title: string;
  readonly width: number;
  /** Width of the content; above `width` when the page must be moved sideways. */
  readonly scrollWidth: number;
  readonly drawn: string[];
  readonly tables: number;
  readonly scripts: number;
  readonly requests: string[];
  /** Labels that stick out of their chart, or run into one another. */
  readonly clipped: string[];
  readonly smallestText: number;
  readonly background: string;
}

/** Runs in the browser, in a page around the report; JavaScript as text, since the DOM is no business of the compiler's here. */
const PROBE = `
const inner = frame.contentWindow, page = inner.document;
const shown = [...page.querySelectorAll('svg[role=img]')].filter((svg) => inner.getComputedStyle(svg).display !== 'none');
const box = (element) => element.getBoundingClientRect();
const clipped = shown.flatMap((svg) => {
  const labels = [...svg.querySelectorAll('text')];
  const out = labels.filter((label) => box(label).left < box(svg).left - 1 || box(label).right > box(svg).right + 1);
  const over = labels.filter((label, index) => labels.slice(index + 1).some((other) =>
    box(label).left < box(other).right && box(other).left < box(label).right &&
    box(label).top + 3 < box(other).bottom && box(other).top + 3 < box(label).bottom));
  return [...out, ...over].map((label) => label.textContent.trim());
});
result.textContent = encodeURIComponent(JSON.stringify({
  title: page.title,
  width: page.documentElement.clientWidth,
  scrollWidth: page.documentElement.scrollWidth,
  drawn: shown.map((svg) => svg.querySelector('title').textContent),
  tables: page.querySelectorAll('table').length,
  scripts: page.scripts.length,
  requests: inner.performance.getEntriesByType('resource').map(({ name }) => name),
  clipped,
  smallestText: Math.min(...shown.map((svg) => box(svg.querySelector('text')).height)),
  background: inner.getComputedStyle(page.body).backgroundColor,
}));`;

const CHARTS = [
  'Latency by percentile',
  'Latency distribution',
  'IOPS over time',
  'Bandwidth over time',
  'Mean latency over time',
];
const several = sampleReport({
  parts: Array.from({ length: 6 }, (_, index) =>
    samplePart(
      { read: tailedDirection(8000 * (index + 1)) },
      `/var/run/vfio-user/domain/muser${index}/cntrl, namespace 1`,
      `nvme${index}`,
    ),
  ),
});

described(`in ${CHROMIUM}; set CHROMIUM to use another, without one this is skipped`, () => {
  let directory: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'report-test-'));
  });
  afterEach(() => {
    rmSync(directory, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  });

  async function look(
    page: string,
    width: number,
    ...flags: string[]
  ): Promise<{ seen: Seen; console: string[] }> {
    writeFileSync(join(directory, 'report.html'), page);
    writeFileSync(
      join(directory, 'around.html'),
      `<!DOCTYPE html><iframe id="frame" width="${width}" height="800" frameborder="0" src="report.html"></iframe>
      <pre id="result"></pre><script>frame.onload = () => {${PROBE}};</script>`,
    );
    const { stdout, stderr } = await promisify(execFile)(
      CHROMIUM,
      [
        '--headless',
        '--no-sandbox',
        '--disable-gpu',
        '--hide-scrollbars',
        '--allow-file-access-from-files',
        '--host-resolver-rules=MAP * ~NOTFOUND',
        '--enable-logging=stderr',
        `--user-data-dir=${join(directory, 'profile')}`,
        ...flags,
        '--dump-dom',
        `file://${join(directory, 'around.html')}`,
      ],
      { timeout: 50_000, maxBuffer: 2 ** 26 },
    );
    const told = /<pre id="result">(.*)<\/pre>/.exec(stdout)?.[1] ?? '';
    return {
      seen: JSON.parse(decodeURIComponent(told)) as Seen,
      console: stderr.split('\n').filter((line) => line.includes(':CONSOLE')),
    };
  }

  test.each([
    ['a telephone', 390, htmlReport(sampleReport())],
    ['a small telephone', 320, htmlReport(sampleReport())],
    ['a screen', 1000, htmlReport(sampleReport())],
    ['a telephone, several endpoints', 390, htmlReport(several)],
    ['a screen, several endpoints', 1000, htmlReport(several)],
  ])(
    '%s',
    async (_, width, page) => {
      const { seen, console } = await look(page, width);
      expect(console).toEqual([]);
      expect(seen).toMatchObject({
        title: 'randrw, 4\u00a0KiB, 32 in flight',
        width,
        scrollWidth: width,
        drawn: CHARTS,
        tables: 6,
        scripts: 0,
        requests: [],
        clipped: [],
      });
      expect(seen.smallestText).toBeGreaterThanOrEqual(11);
    },
    60_000,
  );

  test('light or dark, as the reader has chosen', async () => {
    const page = htmlReport(sampleReport());
    const light = await look(page, 800, '--blink-settings=preferredColorScheme=1');
    const dark = await look(page, 800, '--blink-settings=preferredColorScheme=0');
    expect([light.seen.background, dark.seen.background]).toEqual(['rgb(255, 255, 255)', 'rgb(20, 23, 27)']);
  }, 60_000);

  test('the probe sees what is wrong', async () => {
    const bad = htmlReport(sampleReport())
      .replace(/<meta http-equiv[^>]*>/, '')
      .replace(
        '</main>',
        '<div style="width: 2000px">x</div><img src="http://127.0.0.1:9/x"><script>console.error(1)</script></main>',
      )
      .replace('</text>', ' and so on and so on and so on</text>');
    const { seen, console } = await look(bad, 1000);
    expect(console.length).toBeGreaterThan(0);
    expect(seen.scrollWidth).toBeGreaterThan(2000);
    expect(seen).toMatchObject({ scripts: 1, requests: ['http://127.0.0.1:9/x'] });
    expect(seen.clipped).toHaveLength(1);
  }, 60_000);
});
