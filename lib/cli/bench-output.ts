// SPDX-License-Identifier: MIT
import { arch, cpus, release, type } from 'node:os';
import type { BenchmarkResult, BenchmarkTarget } from '../bench/benchmark';
import { fioReport } from '../bench/fio-json';
import { formatHgrm } from '../bench/hgrm';
import { htmlReport, type Facts, type Remark } from '../bench/html-report';
import { bothDirections, iops, latencyOf, mergeResults, type ReportPart } from '../bench/job-result';
import { formatReport } from '../bench/report-text';
import { formatCount, formatSize, parsePercentiles } from '../bench/units';
import { ExitCode } from './failure';
import { UsageError, type CommandSpec, type OptionValues } from './option-spec';
import { complain, print, printable } from './output';
import { OutputFile } from './output-file';
import { packageVersion } from './version';

/** The options of `bench` that say what to make of the results. */
export const OUTPUT_OPTIONS = {
  'output-format': {
    type: 'choice',
    choices: ['normal', 'json', 'json+'],
    default: 'normal',
    help: "Report; json is fio's, json+ too, with the buckets of the latency.",
  },
  percentile_list: {
    type: 'form',
    aliases: ['percentiles'],
    placeholder: 'list',
    expected: 'numbers from 0 to 100 with at most 6 decimals, such as 50,99,99.9',
    parse: percentiles,
    help: 'Percentiles of the latency to report, such as 50,99,99.9.',
  },
  histogram: { type: 'boolean', help: 'Add a histogram of the latency to the report.' },
  hgrm: {
    type: 'string',
    placeholder: 'path',
    help: "Write the latency by percentile, of reads and writes together, in HdrHistogram's text format.",
  },
  report: { type: 'string', placeholder: 'path', help: 'Write a report as a page of HTML, with charts.' },
} as const satisfies CommandSpec['options'];

type OutputOptions = OptionValues<{
  readonly options: typeof OUTPUT_OPTIONS;
}>;

function percentiles(text: string): number[] | undefined {
  try {
    return parsePercentiles(text);
  } catch {
    return undefined;
  }
}

/** An endpoint that was measured: its results, and who it is. */
export interface MeasuredPart extends ReportPart {
  readonly device: BenchmarkTarget;
}

/** A run that is over. */
export interface FinishedRun extends Pick<BenchmarkResult, 'interrupted' | 'failure'> {
  readonly started: Date;
  readonly ended: Date;
  readonly parts: readonly MeasuredPart[];
  /** I/Os per second that were asked for at each endpoint; undefined without a limit. */
  readonly wantedIops: number | undefined;
}

/** Part of a wanted rate that counts as reached: a run ends with I/Os in flight. */
const RATE_TOLERANCE = 0.98;

/** Where the results of a run go: standard output, and files. */
export class BenchOutput {
  readonly #options: OutputOptions;
  /** In fio's names, for the report of the job's options. */
  readonly fioOptions: { readonly percentile_list?: string };
  readonly #percentiles: readonly number[] | undefined;
  readonly #files: { readonly file: OutputFile; readonly text: (run: FinishedRun) => string }[] = [];

  /**
   * Checks the options and whether the files can be written, so that nothing is measured in vain.
   *
   * @throws UsageError
   */
  constructor(options: OutputOptions) {
    const { percentile_list, histogram, hgrm, report } = options;
    this.#options = options;
    this.#percentiles = percentile_list;
    this.fioOptions = this.#percentiles === undefined ? {} : { percentile_list: this.#percentiles.join(':') };
    if (histogram && options['output-format'] !== 'normal') {
      throw new UsageError(
        `--histogram goes with --output-format normal; --output-format json+ has the buckets of the latency`,
      );
    }
    if (hgrm !== undefined) this.#files.push({ file: new OutputFile('hgrm', hgrm), text: hgrmText });
    if (report !== undefined) {
      const file = new OutputFile('report', report);
      if (this.#files.some((other) => other.file.path === file.path)) {
        throw new UsageError('--hgrm and --report name the same file');
      }
      this.#files.push({ file, text: (run) => pageText(run, this.#percentiles) });
    }
  }

  /** Prints the report and writes the files; a run that was interrupted has an exit status of its own. Of a failed run and a file that cannot be written, the run is the one to throw. */
  write(run: FinishedRun): void {
    print(this.#report(run));
    for (const { file, text } of this.#files) {
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

  #report({ parts, started, ended, interrupted, ...rest }: FinishedRun): string {
    const { 'output-format': format, histogram } = this.#options;
    const percentiles = this.#percentiles;
    if (format !== 'normal') {
      const report = fioReport({
        version: packageVersion(),
        started,
        ended,
        parts,
        interrupted,
        bins: format === 'json+',
        ...(percentiles === undefined ? {} : { percentiles }),
      });
      return JSON.stringify(report, null, 2);
    }
    const devices = parts.map(({ device, target }) =>
      parts.length === 1 ? deviceText(device) : `${target}: ${deviceText(device)}`,
    );
    const notes = remarks({ parts, started, ended, interrupted, ...rest }).map(
      ({ heading, text }) => `${heading.toLowerCase()}: ${text}\n`,
    );
    return `${devices.join('\n')}\n\n${formatReport(parts, { percentiles, histogram })}${notes.join('')}`;
  }
}

function deviceText({ model, version, lbaSize, capacity, mappedDoorbells }: BenchmarkTarget): string {
  return printable(
    `${model.trim()}, NVMe ${version}, ${formatSize(capacity)} in blocks of ${lbaSize} bytes, ${doorbells(mappedDoorbells)}`,
  );
}

function doorbells(mapped: boolean): string {
  return mapped ? 'mapped doorbells' : 'doorbells by message';
}

/** What a run with verification, or one that was cut short, has to say beyond the table. */
function remarks({ interrupted, failure, parts, wantedIops }: FinishedRun): Remark[] {
  const { verified, mismatches } = mergeResults(parts.map(({ result }) => result));
  const missed = parts.flatMap(({ result, target }): Remark[] => {
    const reached = iops(bothDirections(result));
    if (wantedIops === undefined || reached >= wantedIops * RATE_TOLERANCE) return [];
    const text = `${formatCount(reached)} IOPS of the wanted ${formatCount(wantedIops)}; the latency is that of full load`;
    return [
      {
        kind: 'warning',
        heading: 'Rate not reached',
        text: parts.length === 1 ? text : `${target}: ${text}`,
      },
    ];
  });
  const differ = mismatches === 0 ? 'all as written' : `${mismatches} differ`;
  const cutShort = interrupted || failure !== undefined;
  const verifies = parts.some(({ options }) => options['verify'] !== undefined);
  const verification: Remark | undefined = !verifies
    ? undefined
    : verified === 0
      ? { kind: 'warning', heading: 'Verify', text: 'nothing was verified: the run ended before' }
      : {
          kind: mismatches === 0 ? 'good' : 'bad',
          heading: 'Verify',
          text: `${verified} blocks read back, ${differ}${cutShort ? '; others were written and not read back' : ''}`,
        };
  return [
    ...(failure === undefined
      ? []
      : [{ kind: 'bad', heading: 'Failed', text: printable(failure.message) } as const]),
    ...(verification === undefined ? [] : [verification]),
    ...doubtful(parts),
    ...missed,
    ...(interrupted
      ? [
          {
            kind: 'warning',
            heading: 'Interrupted',
            text: 'the run did not come to its end; these are the results up to then',
          } as const,
        ]
      : []),
  ];
}

/** The figures that cannot be trusted, and why. */
function doubtful(parts: readonly MeasuredPart[]): Remark[] {
  return parts.flatMap(({ target, doubts = [] }) =>
    doubts.map((text) => ({
      kind: 'warning',
      heading: 'Do not trust these figures',
      text: parts.length === 1 ? text : `${target}: ${text}`,
    })),
  );
}

function hgrmText({ parts }: FinishedRun): string {
  return formatHgrm(latencyOf(bothDirections(mergeResults(parts.map(({ result }) => result)))));
}

function pageText(run: FinishedRun, percentiles: readonly number[] | undefined): string {
  const { parts, started, failure } = run;
  const errors = parts.flatMap(({ result: { errors, firstError } }): Remark[] =>
    // What failed the run tells the first error, too.
    errors === 0 || failure !== undefined
      ? []
      : [{ kind: 'bad', heading: 'Errors', text: `${errors}, the first: ${firstError ?? ''}` }],
  );
  return htmlReport({
    program: `vfio-user ${packageVersion()}`,
    started,
    parts,
    percentiles,
    remarks: [...errors, ...remarks(run)],
    ends: [...parts.map((part) => deviceFacts(part, parts.length)), hostFacts()],
  });
}

function deviceFacts({ device, target }: MeasuredPart, of: number): Facts {
  return {
    title: of === 1 ? 'Controller' : `Controller at ${target}`,
    rows: [
      ['Endpoint', target],
      ['Model', device.model.trim()],
      ['Serial number', device.serial.trim()],
      ['Firmware', device.firmware.trim()],
      ['NVMe version', device.version],
      ['Namespace', String(device.nsid)],
      ['Capacity', `${formatSize(device.capacity)} (${device.capacity} bytes)`],
      ['LBA size', `${device.lbaSize} bytes`],
      ['Doorbells', device.mappedDoorbells ? 'mapped: plain stores to shared memory' : 'a message each'],
    ],
  };
}

function hostFacts(): Facts {
  const processors = cpus();
  return {
    title: 'Host',
    rows: [
      ['Program', `vfio-user ${packageVersion()}`],
      ['Node.js', process.version],
      ['Kernel', `${type()} ${release()}, ${arch()}`],
      ['Processors', `${processors.length} × ${processors[0]?.model.trim() ?? 'unknown'}`],
    ],
  };
}
