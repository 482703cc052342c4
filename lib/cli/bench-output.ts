// SPDX-License-Identifier: MIT
import { fioReport } from '../bench/fio-json';
import { fioLogs, type LogKind } from '../bench/fio-log';
import { formatHgrm } from '../bench/hgrm';
import { allDirections, latencyOf, mergeResults } from '../bench/job-result';
import type { RunOptions } from '../bench/options';
import type { BenchmarkTarget } from '../bench/part-result';
import { formatReport } from '../bench/report-text';
import { formatSize } from '../bench/units';
import type { OutputValues } from './bench-options';
import { pageText } from './bench-page';
import { remarks } from './bench-remarks';
import type { FinishedRun } from './finished-run';
import type { GivenOptions } from './bench-workload';
import { ExitCode } from './failure';
import { wrapText } from './help';
import { UsageError } from './option-spec';
import { complain, print, printable } from './output';
import { OutputFile } from './output-file';
import { columnsOf, red, styleOf, yellow, type Style } from './style';
import { packageVersion } from './version';

/** Columns of a report that goes into a file or a pipe. */
const FILE_COLUMNS = 110;

interface Output {
  readonly file: OutputFile;
  readonly text: (run: FinishedRun) => string;
}

/** Where the results of a run go: standard output, and files. */
export class BenchOutput {
  readonly #options: OutputValues;
  /** In fio's names, for the report of the job's options. */
  readonly fioOptions: { readonly percentile_list?: string };
  /** Takes the report instead of standard output. */
  readonly #file: OutputFile | undefined;
  readonly #files: readonly Output[];
  /** The logs that are wanted, and how their names begin. */
  readonly #logs: readonly (readonly [kind: LogKind, prefix: string])[];

  /**
   * Checks the options and whether the files can be written, so that nothing is measured in vain.
   *
   * @throws UsageError
   */
  constructor(options: OutputValues, given: GivenOptions) {
    const { percentile_list: percentiles, histogram, hgrm, report, output } = options;
    this.#options = options;
    this.fioOptions = percentiles === undefined ? {} : { percentile_list: percentiles.join(':') };
    if (histogram && options['output-format'] !== 'normal') {
      throw new UsageError(
        `--histogram goes with --output-format normal; --output-format json+ has the buckets of the latency`,
      );
    }
    this.#logs = [
      ['bw', options.write_bw_log] as const,
      ['iops', options.write_iops_log] as const,
      ['lat', options.write_lat_log] as const,
    ].flatMap(([kind, prefix]) => (prefix === undefined ? [] : [[kind, prefix] as const]));
    if (given.has('log_avg_msec') && this.#logs.length === 0)
      throw new UsageError('--log_avg_msec goes with --write_bw_log, --write_iops_log or --write_lat_log');
    if (options.log_max_value && options.write_lat_log === undefined)
      throw new UsageError('--log_max_value goes with --write_lat_log');
    this.#file = output === undefined ? undefined : new OutputFile('output', output);
    this.#files = [
      ...(hgrm === undefined ? [] : [{ file: new OutputFile('hgrm', hgrm), text: hgrmText }]),
      ...(report === undefined
        ? []
        : [
            {
              file: new OutputFile('report', report),
              text: (run: FinishedRun) => pageText(run, percentiles),
            },
          ]),
    ];
    // How many jobs there are is known later; the log of the first tells whether the others can be written.
    const logs = this.#logs.map(([kind, prefix]) => logFile(kind, `${prefix}_${kind}.1.log`));
    const paths = [this.#file, ...this.#files.map(({ file }) => file), ...logs].flatMap(
      (file) => file?.path ?? [],
    );
    if (new Set(paths).size < paths.length)
      throw new UsageError('Two of the files to write, of --output, --hgrm and --report, are the same');
  }

  /** What the run has to know of what is made of it. */
  get runOptions(): Pick<RunOptions, 'sampleMs' | 'statusInterval'> {
    const { log_avg_msec: sampleMs, 'status-interval': statusInterval } = this.#options;
    return { ...(sampleMs === undefined ? {} : { sampleMs }), statusInterval };
  }

  /** Prints what a run has measured so far. */
  status(run: FinishedRun): void {
    print(this.#report(run, columnsOf(process.stdout), styleOf(process.stdout)));
  }

  /**
   * Prints the report and writes the files; a run that was interrupted has an exit status of its own. Of a failed run and a file
   * that cannot be written, the run is the one to throw.
   */
  write(run: FinishedRun): void {
    if (this.#file === undefined)
      print(this.#report(run, columnsOf(process.stdout), styleOf(process.stdout)));
    for (const { file, text } of this.#outputs(run)) {
      try {
        file.write(text(run));
      } catch (error) {
        if (run.failure === undefined) throw error;
        complain((error as Error).message);
      }
    }
    if (run.failure !== undefined) throw run.failure;
    if (run.interrupted) process.exitCode = ExitCode.interrupted;
  }

  #outputs({ parts }: FinishedRun): Output[] {
    const own = (file: OutputFile): Output => ({
      file,
      text: (run) => this.#report(run, FILE_COLUMNS, undefined),
    });
    const logs = this.#logs.flatMap(([kind, prefix]) =>
      fioLogs(
        kind,
        parts.flatMap(({ jobs }) => jobs),
        this.#options.log_max_value,
      ).map(({ suffix, text }) => ({ file: logFile(kind, `${prefix}_${suffix}`), text: () => text })),
    );
    return [...(this.#file === undefined ? [] : [own(this.#file)]), ...this.#files, ...logs];
  }

  #report(run: FinishedRun, columns: number | undefined, style: Style): string {
    const { parts, started, ended, interrupted, steady } = run;
    const { 'output-format': format, histogram, percentile_list: percentiles } = this.#options;
    if (format !== 'normal') {
      const report = fioReport({
        version: packageVersion(),
        started,
        ended,
        parts,
        interrupted,
        steady,
        bins: format === 'json+',
        ...(percentiles === undefined ? {} : { percentiles }),
      });
      return `${JSON.stringify(report, null, 2)}\n`;
    }
    const width = columns ?? FILE_COLUMNS;
    const devices = parts.map(({ device, target }) =>
      parts.length === 1 ? deviceText(device) : `${target}: ${deviceText(device)}`,
    );
    const paint = { good: (text: string) => text, warning: yellow, bad: red };
    const notes = remarks(run).flatMap(({ kind, heading, text }) =>
      // A pipe gets a remark in one line, which programs look for.
      (columns === undefined
        ? [`${heading.toLowerCase()}: ${text}`]
        : wrapText(`${heading.toLowerCase()}: ${text}`, width)
      ).map((line) => `${paint[kind](line, style)}\n`),
    );
    const head = [...new Set(devices)].flatMap((text) => wrapText(text, width)).join('\n');
    return `${head}\n\n${formatReport(parts, { percentiles, histogram, columns: width })}${notes.join('')}`;
  }
}

function logFile(kind: LogKind, path: string): OutputFile {
  return new OutputFile(`write_${kind}_log`, path);
}

function deviceText({ model, version, lbaSize, capacity, mappedDoorbells }: BenchmarkTarget): string {
  return printable(
    `${model.trim()}, NVMe ${version}, ${formatSize(capacity)} in blocks of ${lbaSize} bytes, ${doorbells(mappedDoorbells)}`,
  );
}

function doorbells(mapped: boolean): string {
  return mapped ? 'mapped doorbells' : 'doorbells by message';
}

function hgrmText({ parts }: FinishedRun): string {
  return formatHgrm(latencyOf(allDirections(mergeResults(parts.map(({ result }) => result)))));
}
