// SPDX-License-Identifier: MIT
import { gapTime } from './gap';
import { html, type Markup } from './html';
import { numberTable, page, remarkList, type Remark } from './html-page';
import { jobTimes, processorShare } from './trust';
import { SERIES_COLOURS, chartFigure } from './html-report-chart';
import {
  bandwidthChart,
  histogramChart,
  iopsChart,
  latencyChart,
  percentileChart,
  type NamedResult,
} from './html-report-charts';
import { latencyText, spaced } from './html-report-axes';
import { DIRECTIONS } from './job';
import {
  allDirections,
  bandwidth,
  iops,
  latencyOf,
  mergeResults,
  type DirectionResult,
  type ReportPart,
} from './job-result';
import { FIO_PERCENTILES, formatBandwidth, formatCount, formatSize } from './units';

/** A table of names and values, such as who a controller is. Any text; it is escaped. */
export interface Facts {
  readonly title: string;
  readonly rows: readonly (readonly [name: string, value: string])[];
}

/** What {@link htmlReport} is made of. Any text may come from a peer; it is escaped. */
export interface HtmlReportInput {
  /** Name and version of the program. */
  readonly program: string;
  readonly started: Date;
  /** At least one. */
  readonly parts: readonly ReportPart[];
  /** Percentiles to list in addition to fio's. */
  readonly percentiles?: readonly number[] | undefined;
  readonly remarks: readonly Remark[];
  /** What is known of both ends of the measurement: controllers and host. */
  readonly ends: readonly Facts[];
}

const NOTHING = '–';

/** Listed in addition to fio's, as far as there are enough I/Os for them to differ from the maximum. */
const DEEP_PERCENTILES = [99.999, 99.9999, 99.99999] as const;

/**
 * A run as a page of HTML that needs nothing else: no script, no font, no picture, no network. It can be opened from a file or
 * attached to a mail. It follows the reader's choice of a light or dark screen, and is readable on a telephone.
 */
export function htmlReport(input: HtmlReportInput): string {
  const { parts, program, started } = input;
  const all = mergeResults(parts.map(({ result }) => result));
  const total = allDirections(all);
  const results = comparedResults(parts, total);
  const title = headline(input);
  return page(
    title,
    html`<header>
        <h1>${title}</h1>
        <p>${parts.map(({ target }) => target).join(' · ')}</p>
        <p class="quiet">${timeText(started)}, measured for ${(all.runtimeMs / 1000).toFixed(1)} s</p>
      </header>
      ${remarkList(input.remarks)} ${tiles(total)} ${resultTable(parts, total)} ${gapTable(parts)}
      ${costTable(parts)} ${charts(results, all.sampleMs)}
      ${percentileTable(results, total, input.percentiles ?? [])}
      <h2>Configuration</h2>
      ${factTable({ title: 'Options', rows: configuration(parts) })}
      <h2>Both ends</h2>
      ${input.ends.map(factTable)}
      <footer>
        ${program}. Latency is from submission to the moment at which the completion is seen, in buckets 1.6 %
        wide; minimum, average and maximum are exact.
      </footer>`,
  );
}

/** What ran, in a line. Options are in fio's spelling, sizes in bytes or as they were given. */
function headline({ parts }: HtmlReportInput): string {
  const words = parts.map(({ options: { rw, bs, iodepth, numjobs } }) => {
    const size = /^\d+$/.test(bs) ? spaced(formatSize(Number(bs)).replace(/\.0+(?=\D)/, '')) : bs;
    return `${rw}, ${size}, ${iodepth} in flight${numjobs === '1' ? '' : ` in each of ${numjobs} jobs`}`;
  });
  return [...new Set(words)].join('; ');
}

/** The directions of a single part; several parts, each as a whole; or all in one sum, where there are more than colours. */
function comparedResults(parts: readonly ReportPart[], total: DirectionResult): NamedResult[] {
  const names = partNames(parts);
  let compared: NamedResult[];
  if (parts.length === 1)
    compared = parts.flatMap(({ result }) =>
      DIRECTIONS.map((direction) => ({ name: direction, result: result[direction] })),
    );
  else if (parts.length > SERIES_COLOURS) compared = [{ name: 'all', result: total }];
  else
    compared = parts.map(({ result }, index) => ({
      name: names[index] ?? '',
      result: allDirections(result),
    }));
  return compared.filter(({ result }) => result.ios > 0);
}

/** What the parts are called: the endpoint, where they differ in nothing else; or the job; or both. */
function partNames(parts: readonly ReportPart[]): string[] {
  const distinct = (names: readonly string[]): boolean => new Set(names).size === parts.length;
  const targets = parts.map(({ target }) => target);
  if (distinct(targets)) return targets;
  const names = parts.map(({ name }) => name);
  return distinct(names) ? names : parts.map(({ name, target }) => `${name}, ${target}`);
}

function tiles(total: DirectionResult): Markup {
  const latency = latencyOf(total);
  const tile = (name: string, value: string): Markup =>
    html`<div>
      <dt>${name}</dt>
      <dd>${value}</dd>
    </div>`;
  const at = (percent: number): string =>
    latency.count > 0 ? latencyText(latency.percentile(percent)) : NOTHING;
  return html`<dl class="tiles">
    ${tile('IOPS', formatCount(Math.round(iops(total))))} ${tile('Bandwidth', bandwidthText(total))}
    ${[50, 99, 99.9].map((percent) => tile(`p${percent} latency`, at(percent)))}
    ${tile('Slowest I/O', latency.count > 0 ? latencyText(latency.max) : NOTHING)}
  </dl>`;
}

function resultTable(parts: readonly ReportPart[], total: DirectionResult): Markup {
  const names = partNames(parts);
  const rows = parts.flatMap(({ result }, index) =>
    DIRECTIONS.flatMap((direction) =>
      result[direction].ios > 0
        ? [
            {
              name: parts.length > 1 ? `${names[index] ?? ''}, ${direction}` : direction,
              result: result[direction],
            },
          ]
        : [],
    ),
  );
  if (rows.length !== 1) rows.push({ name: 'total', result: total });
  const cells = (result: DirectionResult): string[] => {
    const latency = latencyOf(result);
    const values = [
      latency.min,
      latency.mean,
      ...[50, 99, 99.9].map((at) => latency.percentile(at)),
      latency.max,
    ];
    return [
      grouped(result.ios),
      grouped(iops(result)),
      bandwidthText(result),
      ...values.map((ns) => (latency.count > 0 ? latencyText(ns) : NOTHING)),
    ];
  };
  const columns = ['I/Os', 'IOPS', 'Bandwidth', 'min', 'average', 'p50', 'p99', 'p99.9', 'max'];
  return numberTable(
    'results',
    'Results',
    ['', ...columns],
    rows.map(({ name, result }) => [name, ...cells(result)]),
  );
}

/** When the servers were away. */
function gapTable(parts: readonly ReportPart[]): Markup | '' {
  const names = partNames(parts);
  const rows = parts.flatMap(({ gaps = [] }, index) =>
    gaps.map((gap) => [
      parts.length > 1 ? `${names[index] ?? ''}, ${gapTime(gap)}` : gapTime(gap),
      gap.back ? latencyText(gap.awayMs * 1e6) : `${latencyText(gap.awayMs * 1e6)}, not back`,
      gap.firstIoMs === null ? NOTHING : latencyText(gap.firstIoMs * 1e6),
      grouped(gap.resubmitted),
    ]),
  );
  if (rows.length === 0) return '';
  return numberTable(
    'results',
    'Gaps: the server was away',
    ['', 'away for', 'first I/O after its return', 'I/Os sent again'],
    rows,
  );
}

/** What the run has cost the processors, and how much of them it got. */
function costTable(parts: readonly ReportPart[]): Markup {
  const names = partNames(parts);
  return numberTable(
    'results',
    'Processor time of the jobs',
    ['', 'user', 'system', 'per I/O', 'share of a processor', 'context switches'],
    parts.map(({ result }, index) => {
      const { userMs, systemMs, contextSwitches } = result.cpu;
      const { ios } = allDirections(result);
      return [
        parts.length > 1 ? (names[index] ?? '') : 'all',
        `${(userMs / 1000).toFixed(2)}\u00a0s`,
        `${(systemMs / 1000).toFixed(2)}\u00a0s`,
        ios > 0 ? latencyText(((userMs + systemMs) * 1e6) / ios) : NOTHING,
        `${Math.round(processorShare(jobTimes(result)) * 100)}\u00a0%`,
        grouped(contextSwitches),
      ];
    }),
  );
}

function charts(results: readonly NamedResult[], sampleMs: number): Markup {
  if (results.length === 0)
    return html`<h2>Latency</h2>
      <p>No I/O was completed, so that there is nothing to draw.</p>`;
  const sampled = results.some(({ result }) => result.samples.iops.length > 0);
  return html`<h2>Latency</h2>
    ${chartFigure(percentileChart(results))} ${chartFigure(histogramChart(results))}
    <h2>Over time</h2>
    ${
      sampled
        ? html`<div class="charts">
              ${chartFigure(iopsChart(results, sampleMs), true)}${chartFigure(bandwidthChart(results, sampleMs), true)}
            </div>
            ${chartFigure(latencyChart(results, sampleMs))}
            <p class="quiet">
              Each step is the average of ${sampleMs} ms or, in long runs, of several such intervals.
            </p>`
        : html`<p>The run was shorter than an interval of ${sampleMs} ms.</p>`
    }`;
}

function percentileTable(
  results: readonly NamedResult[],
  total: DirectionResult,
  wanted: readonly number[],
): Markup | '' {
  if (results.length === 0) return '';
  const deep = DEEP_PERCENTILES.filter((percent) => total.ios * (1 - percent / 100) >= 1);
  const percentiles = [...new Set([...FIO_PERCENTILES, ...deep, ...wanted])].sort((a, b) => a - b);
  const columns = results.length > 1 ? [...results, { name: 'total', result: total }] : results;
  return html`<h2>Percentiles</h2>
    ${numberTable(
      'percentiles',
      'Latency by percentile',
      ['Percentile', ...columns.map(({ name }) => name)],
      percentiles.map((percent) => [
        `${percent}\u00a0%`,
        ...columns.map(({ result }) => latencyText(latencyOf(result).percentile(percent))),
      ]),
    )}`;
}

/** The options of all parts. Where parts differ, the values of all are listed. */
function configuration(parts: readonly ReportPart[]): Facts['rows'] {
  const names = new Set(parts.flatMap(({ options }) => Object.keys(options)));
  return [...names].map((name) => {
    const values = parts.map(({ options }) => options[name] ?? NOTHING);
    return [name, new Set(values).size === 1 ? (values[0] ?? '') : values.join(', ')] as const;
  });
}

function factTable({ title, rows }: Facts): Markup {
  return html`<table class="facts">
    <caption>
      ${title}
    </caption>
    <tbody>
      ${rows.map(
        ([name, value]) =>
          html`<tr>
            <th scope="row">${name}</th>
            <td>${value}</td>
          </tr> `,
      )}
    </tbody>
  </table> `;
}

function bandwidthText(result: DirectionResult): string {
  return spaced(formatBandwidth(Math.round(bandwidth(result))));
}

/** `1,234,567` */
function grouped(value: number): string {
  return Math.round(value).toLocaleString('en-US');
}

function timeText(time: Date): string {
  return `${time.toISOString().slice(0, 19).replace('T', ' ')} UTC`;
}
