// SPDX-License-Identifier: MIT
import { statSync } from 'node:fs';
import { trims, writes } from '../bench/job';
import type { RunOptions, WorkloadOptions } from '../bench/options';
import { deviceName, isDeviceName } from '../kernel/device-name';
import {
  OUTPUT_OPTIONS,
  RUN_OPTIONS,
  WORKLOAD_OPTIONS,
  type OutputValues,
  type RunValues,
  type WorkloadValues,
} from './bench-options';
import { runOptions, workloadOptions, type GivenOptions } from './bench-workload';
import { readJobFile, type JobSection, type FileOption } from './job-file';
import { UsageError, type OptionTable } from './option-spec';
import { readTable } from './options';
import { complain, printable } from './output';
import { checkVfToken } from './vf-token';

/** Jobs that do the same, as they were asked for. */
export interface BenchJob {
  readonly name: string;
  readonly options: WorkloadOptions;
  readonly values: WorkloadValues;
  readonly given: GivenOptions;
}

/** A run as it was asked for. */
export interface BenchPlan {
  /** Paths; none for a controller that is to be started. */
  readonly endpoints: readonly string[];
  readonly jobs: readonly BenchJob[];
  readonly run: RunOptions;
  /** Milliseconds. */
  readonly connectTimeout: number;
  readonly timeout: number;
  /** How long a server that has gone is waited for; undefined when it is not. */
  readonly reconnectTimeout: number | undefined;
  /** What PCI devices are opened with. */
  readonly vfToken: string | undefined;
  readonly output: OutputValues;
  /** The options of run and output that were given, on the command line or for all jobs of a file. */
  readonly given: GivenOptions;
}

const JOB_NAME = 'bench';

/**
 * Puts a run together from the arguments of the command line and, if one of them is a regular file, from that job file. What the
 * command line says takes the place of what the file says.
 *
 * @throws UsageError
 */
export function planBench(positionals: readonly string[], given: GivenOptions): BenchPlan {
  const files = positionals.filter((path) => statSync(path, { throwIfNoEntry: false })?.isFile() === true);
  const named = positionals.filter((path) => !files.includes(path));
  const [file] = files;
  if (files.length > 1)
    throw new UsageError(`There are two job files, ${files.join(' and ')}; one is run at a time`);
  const content = file === undefined ? undefined : readJobFile(file);
  if (content !== undefined && content.ignored.length > 0)
    complain(`${file ?? ''}: without meaning here: ${content.ignored.join(', ')}`);
  const sections: readonly JobSection[] = content?.sections ?? [{ name: JOB_NAME, options: new Map() }];
  const common = content?.global ?? new Map<string, FileOption>();

  const read = (table: OptionTable, ...layers: Layer[]): Layered => readLayers(table, given, layers);
  const defaults = content?.defaults ?? new Map<string, FileOption>();
  const endpoints = sectionEndpoints(named, sections, common);
  const jobs = sections.map(({ name, options }): BenchJob => {
    const job = read(WORKLOAD_OPTIONS, options, common, defaults);
    const values = job.values as WorkloadValues;
    const at = endpoints.bySection.get(name);
    const workload = inFile(file, name, () => workloadOptions(values, job.given));
    return {
      name,
      options: at === undefined ? workload : { ...workload, endpoints: at },
      values,
      given: job.given,
    };
  });
  const run = read(RUN_OPTIONS, common);
  const output = read(OUTPUT_OPTIONS, common);
  const runValues = run.values as RunValues;
  checkRun(jobs, runValues);
  checkRealDevices(endpoints.all, jobs, runValues['i-know-this-destroys-data-on'] ?? []);
  checkReconnect(jobs, runValues, run.given, endpoints.all);
  checkVfToken(runValues['vf-token'], endpoints.all);
  return {
    endpoints: endpoints.all,
    jobs,
    run: runOptions(runValues, run.given),
    connectTimeout: runValues['connect-timeout'] * 1000,
    timeout: runValues.timeout * 1000,
    reconnectTimeout: runValues.reconnect ? runValues['reconnect-timeout'] * 1000 : undefined,
    vfToken: runValues['vf-token'],
    output: output.values as OutputValues,
    given: new Map([...run.given, ...output.given]),
  };
}

type Layer = ReadonlyMap<string, FileOption>;

interface Layered {
  readonly values: Record<string, unknown>;
  readonly given: GivenOptions;
}

/** The values of a table: of the command line, else of the first layer that has the option. */
function readLayers(table: OptionTable, line: GivenOptions, layers: readonly Layer[]): Layered {
  const found = new Map<string, string | true>();
  const values = readTable(table, (name) => {
    const onLine = line.get(name);
    const inFile = layers.map((layer) => layer.get(name)).find((option) => option !== undefined);
    const text = onLine ?? inFile?.text;
    if (text !== undefined) found.set(name, text);
    return [onLine === undefined && inFile !== undefined ? inFile.subject : `Option --${name}`, text];
  });
  return { values, given: found };
}

/** Names the section of a job file in what is wrong with its options together. */
function inFile<T>(file: string | undefined, section: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    if (file === undefined || !(error instanceof UsageError)) throw error;
    throw new UsageError(`${file}: [${section}]: ${error.message}`);
  }
}

/** The endpoints of the run, and for the sections that do not use all of them, which they use. */
function sectionEndpoints(
  named: readonly string[],
  sections: readonly JobSection[],
  common: Layer,
): { all: readonly string[]; bySection: ReadonlyMap<string, readonly number[]> } {
  const repeated = named.find((endpoint, index) => named.indexOf(endpoint) !== index);
  if (repeated !== undefined)
    throw new UsageError(
      `The endpoint '${printable(repeated)}' is given twice; --numjobs runs several jobs at one`,
    );
  const bySection = new Map<string, readonly number[]>();
  if (named.length > 0) return { all: named, bySection };
  const all: string[] = [];
  const without: string[] = [];
  for (const { name, options } of sections) {
    const { text = '' } = options.get('filename') ?? common.get('filename') ?? {};
    const paths = text === true ? [] : splitNames(text);
    for (const path of paths) if (!all.includes(path)) all.push(path);
    if (paths.length === 0) without.push(name);
    else
      bySection.set(
        name,
        paths.map((path) => all.indexOf(path)),
      );
  }
  if (all.length > 0 && without.length > 0)
    throw new UsageError(
      `[${without[0] ?? ''}] of the job file names no endpoint, as other sections do; give it a filename`,
    );
  return { all, bySection };
}

/** fio separates names by colons, and writes a colon in a name with a backslash before it. */
function splitNames(text: string): string[] {
  return text
    .split(/(?<!\\):/)
    .map((name) => name.replaceAll('\\:', ':'))
    .filter((name) => name !== '');
}

/**
 * What is behind a socket may be lost or not; a PCI device of this machine has somebody's data.
 *
 * @param confirmed addresses whose data may be destroyed
 */
function checkRealDevices(
  endpoints: readonly string[],
  jobs: readonly BenchJob[],
  confirmed: readonly string[],
): void {
  const isDestroyed = (index: number): boolean =>
    jobs.some(
      ({ options: { workload, endpoints: at } }) =>
        (writes(workload) || trims(workload)) && at?.includes(index) !== false,
    );
  const destroyed = endpoints
    .filter((endpoint, index) => isDeviceName(endpoint) && isDestroyed(index))
    .map(deviceName);
  const unconfirmed = destroyed.filter((address) => !confirmed.includes(address));
  if (unconfirmed.length > 0)
    throw new UsageError(
      `This would destroy data on real hardware, ${unconfirmed.join(', ')}; if that is what you want, add --i-know-this-destroys-data-on ${destroyed.join(',')}`,
    );
  const idle = confirmed.find((address) => !destroyed.includes(address));
  if (idle !== undefined)
    throw new UsageError(
      `--i-know-this-destroys-data-on names ${idle}, on which nothing is written or trimmed; leave it out`,
    );
}

/** What jobs and run cannot do together. */
function checkRun(jobs: readonly BenchJob[], { steadystate }: RunValues): void {
  const verifying = jobs.find(({ options }) => options.verify);
  if (verifying === undefined) return;
  if (steadystate !== undefined)
    throw new UsageError(
      '--steadystate goes with measuring, not with --verify: it ends a run before it is verified',
    );
  if (jobs.length > 1)
    throw new UsageError(
      `[${verifying.name}] verifies what it writes, which other jobs would overwrite; put it into a file of its own`,
    );
}

/** What cannot be together with waiting for servers. */
function checkReconnect(
  jobs: readonly BenchJob[],
  { reconnect }: RunValues,
  given: GivenOptions,
  endpoints: readonly string[],
): void {
  if (!reconnect) {
    if (given.has('reconnect-timeout')) throw new UsageError('--reconnect-timeout goes with --reconnect');
    return;
  }
  if (endpoints.length === 0)
    throw new UsageError(
      '--reconnect waits for a server that somebody starts again; name its endpoint, as the controller that bench starts by itself ends with it',
    );
  const real = endpoints.find(isDeviceName);
  if (real !== undefined)
    throw new UsageError(
      `--reconnect waits for a server, and ${real} is a device of this machine; leave it out`,
    );
  if (jobs.some(({ options }) => options.latencyTarget !== undefined))
    throw new UsageError(
      '--reconnect and --latency_target contradict each other: the search would take a gap for latency; leave one out',
    );
}
