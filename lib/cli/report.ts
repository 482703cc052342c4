// SPDX-License-Identifier: MIT
import { readFileSync } from 'node:fs';
import { COMPARED, compareRuns, readRun, type ComparedRow, type ComparedRun } from '../bench/comparison';
import { comparisonPage, ratioText } from '../bench/comparison-page';
import { formatBandwidth, formatCount, formatLatency } from '../bench/units';
import { defineCommand } from './command';
import { UsageError, type CommandSpec } from './option-spec';
import { complain, print, printable } from './output';
import { OutputFile } from './output-file';
import { packageVersion } from './version';

const SPEC = {
  name: 'report',
  summary: "Compare runs: reports in fio's JSON, of this tool or of fio, side by side with the first.",
  positionals: [
    { name: 'file', help: 'A report that was written with --output-format json; at least two.', many: true },
  ],
  options: {
    html: { type: 'string', placeholder: 'path', help: 'Write the comparison as a page of HTML.' },
  },
  examples: [['report before.json after.json --html compared.html', 'Compares two runs.']],
} as const satisfies CommandSpec;

const TEXT: Readonly<Record<(typeof COMPARED)[number], readonly [string, (value: number) => string]>> = {
  iops: ['IOPS', (value) => formatCount(Math.round(value))],
  bandwidth: ['bandwidth', (value) => formatBandwidth(Math.round(value))],
  mean: ['mean', formatLatency],
  p50: ['p50', formatLatency],
  p99: ['p99', formatLatency],
  p999: ['p99.9', formatLatency],
};

/** `vfio-user report` */
export const report = defineCommand(SPEC, ({ html }, files) => {
  if (files.length < 2)
    throw new UsageError('There is one report alone; a comparison needs two, the first of which is the base');
  const page = html === undefined ? undefined : new OutputFile('html', html);
  const runs = files.map((file) => readRun(printable(file), textOf(file)));
  const rows = compareRuns(runs);
  if (rows.length === 0) throw new UsageError('None of the reports has an I/O; there is nothing to compare');
  for (const { name, doubts, interrupted } of runs) {
    for (const doubt of doubts) complain(`do not trust the figures of ${name}: ${doubt}`);
    if (interrupted) complain(`${name} was interrupted; its figures are those up to then`);
  }
  print(rows.map((row) => rowText(runs, row)).join('\n'));
  page?.write(comparisonPage(`vfio-user ${packageVersion()}`, runs, rows));
});

function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw new UsageError(`${file} cannot be read: ${String((error as NodeJS.ErrnoException).code)}`);
  }
}

/** A line for each run: its values, and behind each the ratio to the first. */
function rowText(runs: readonly ComparedRun[], row: ComparedRow): string {
  const lines = COMPARED.filter((key) => row[key].some((value) => value !== undefined)).flatMap((key) => {
    const [title, text] = TEXT[key];
    return row[key].map((value, index) => [
      index === 0 ? title : '',
      runs[index]?.name ?? '',
      value === undefined ? '-' : text(value.value),
      value?.ratio === undefined ? '' : ratioText(value),
    ]);
  });
  const widths = [0, 1, 2].map((column) => Math.max(...lines.map((line) => (line[column] ?? '').length)));
  const [title = 0, name = 0, value = 0] = widths;
  return [
    row.name,
    ...lines.map(([head = '', run = '', number = '', ratio = '']) =>
      `  ${head.padEnd(title)}  ${run.padEnd(name)}  ${number.padStart(value)}  ${ratio}`.trimEnd(),
    ),
    '',
  ].join('\n');
}
