// SPDX-License-Identifier: MIT
import { COMPARED, type ComparedRow, type ComparedRun, type ComparedValue } from './comparison';
import { html, type Markup } from './html';
import { numberTable, page, remarkList, type Remark } from './html-page';
import { latencyText, spaced } from './html-report-axes';
import { formatBandwidth, formatCount } from './units';

/** The name of each value that is compared, and how it is written. */
const VALUES: Readonly<
  Record<(typeof COMPARED)[number], readonly [title: string, text: (value: number) => string]>
> = {
  iops: ['IOPS', (value) => formatCount(Math.round(value))],
  bandwidth: ['Bandwidth', (value) => spaced(formatBandwidth(Math.round(value)))],
  mean: ['Mean latency', latencyText],
  p50: ['p50 latency', latencyText],
  p99: ['p99 latency', latencyText],
  p999: ['p99.9 latency', latencyText],
};

/** A ratio with its spread: `1.23 ± 0.04`. */
export function ratioText({ ratio, spread }: ComparedValue): string {
  if (ratio === undefined) return '';
  return spread === undefined ? ratio.toFixed(2) : `${ratio.toFixed(2)} ± ${spread.toFixed(2)}`;
}

/** Runs side by side as a page of HTML, which needs nothing else. */
export function comparisonPage(
  program: string,
  runs: readonly ComparedRun[],
  rows: readonly ComparedRow[],
): string {
  const remarks = runs.flatMap(({ name, doubts, interrupted }): Remark[] => [
    ...doubts.map((text) => ({
      kind: 'warning' as const,
      heading: 'Do not trust these figures',
      text: `${name}: ${text}`,
    })),
    ...(interrupted
      ? [{ kind: 'warning' as const, heading: 'Interrupted', text: `${name} did not come to its end` }]
      : []),
  ]);
  const title = `${runs.length} runs compared`;
  return page(
    title,
    html`<header>
        <h1>${title}</h1>
        <p>
          ${runs.map(({ name }, index) => `${index === 0 ? '' : ' · '}${name}${index === 0 ? ' (the first)' : ''}`)}
        </p>
      </header>
      ${remarkList(remarks)}
      ${rows.map(
        (row) =>
          html`<h2>${row.name}</h2>
            ${table(runs, row)} ${ratios(runs, row)}`,
      )}
      <footer>
        ${program}. A ratio is that of a run to the first one. Behind ± is its standard deviation, from the
        samples of the IOPS of both runs: how much the ratio of single intervals varies.
      </footer>`,
  );
}

function table(runs: readonly ComparedRun[], row: ComparedRow): Markup {
  const [, ...others] = runs;
  return numberTable(
    'results',
    'Values, and their ratios to the first run',
    ['', ...runs.map(({ name }) => name), ...others.map(({ name }) => `${name} / first`)],
    COMPARED.filter((key) => row[key].some((value) => value !== undefined)).map((key) => {
      const [title, text] = VALUES[key];
      return [
        title,
        ...row[key].map((value) => (value === undefined ? '–' : text(value.value))),
        ...row[key].slice(1).map((value) => (value?.ratio === undefined ? '–' : ratioText(value))),
      ];
    }),
  );
}

const CHART = { width: 840, line: 22, label: 190, right: 120 } as const;

/** The ratios as bars around a line at 1, each with its number, and its spread as a whisker. */
function ratios(runs: readonly ComparedRun[], row: ComparedRow): Markup | '' {
  const bars = runs.slice(1).flatMap(({ name }, other) =>
    COMPARED.flatMap((key) => {
      const value = row[key][other + 1];
      return value?.ratio === undefined
        ? []
        : [{ name: `${name}: ${VALUES[key][0]}`, value, ratio: value.ratio, other }];
    }),
  );
  if (bars.length === 0) return '';
  // Beyond four times the number alone tells.
  const most = Math.min(4, Math.max(2, ...bars.map(({ ratio, value }) => ratio + (value.spread ?? 0))));
  const x = (ratio: number): number =>
    Math.round(
      (CHART.label +
        (Math.min(most, Math.max(0, ratio)) / most) * (CHART.width - CHART.label - CHART.right)) *
        10,
    ) / 10;
  const height = bars.length * CHART.line + 24;
  const y = (index: number): number => index * CHART.line + CHART.line / 2;
  return html`<figure class="chart">
    <svg class="ratios" viewBox="0 0 ${CHART.width} ${height}" role="img" aria-label="Ratios of ${row.name}">
      <path class="frame" d="M${x(1)} 0V${height - 20}" />
      ${bars.map(
        ({ ratio, value, other }, index) =>
          html`<g class="bars s${other % 6}">
              <rect x="${x(0)}" y="${y(index) - 7}" width="${x(ratio) - x(0)}" height="14" />
            </g>
            <path
              class="frame"
              d="M${x(ratio - (value.spread ?? 0))} ${y(index)}H${x(ratio + (value.spread ?? 0))}"
            />`,
      )}
      <g class="labels">
        ${bars.map(
          ({ name, value, ratio }, index) =>
            html`<text x="${CHART.label - 8}" y="${y(index) + 4}" text-anchor="end">${shortened(name)}</text>
              <text x="${x(ratio + (value.spread ?? 0)) + 8}" y="${y(index) + 4}">${ratioText(value)}</text>`,
        )}
        <text x="${x(1)}" y="${height - 4}" text-anchor="middle">1: as the first</text>
      </g>
    </svg>
  </figure>`;
}

function shortened(text: string): string {
  return text.length > 28 ? `…${text.slice(-27)}` : text;
}
