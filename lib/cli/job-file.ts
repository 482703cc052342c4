// SPDX-License-Identifier: MIT
import { readFileSync } from 'node:fs';
import { OUTPUT_OPTIONS, RUN_OPTIONS, WORKLOAD_OPTIONS } from './bench-options';
import { closest } from '../closest';
import { UsageError, canonical, optionNames } from './option-spec';

/** An option of a job file: its text, and where it stands. */
export interface FileOption {
  readonly text: string | true;
  /** `job.fio:3: bs` */
  readonly subject: string;
}

/** A section of a job file: jobs that do the same. */
export interface JobSection {
  readonly name: string;
  readonly options: ReadonlyMap<string, FileOption>;
}

/** What a job file says. */
export interface JobFile {
  /** The options of `[global]`, for all jobs. */
  readonly global: ReadonlyMap<string, FileOption>;
  /** At least one. They run at the same time. */
  readonly sections: readonly JobSection[];
  /** What fio takes where a file says nothing, and this tool would take something else. */
  readonly defaults: ReadonlyMap<string, FileOption>;
  /** Options of fio that have no meaning here, each once. */
  readonly ignored: readonly string[];
}

const GLOBAL = 'global';
const FILENAME = 'filename';

/**
 * Options that fio's job files have as a matter of course, and that change nothing here: I/O is always direct, random order
 * has no map, jobs are threads, and each job is reported with those that do the same.
 */
const WITHOUT_MEANING = [
  'buffered',
  'clocksource',
  'description',
  'direct',
  'disable_clat',
  'disable_lat',
  'disable_slat',
  'exitall',
  'group_reporting',
  'gtod_reduce',
  'hipri',
  'invalidate',
  'ioengine',
  'iodepth_batch',
  'iodepth_batch_complete',
  'iodepth_batch_submit',
  'name',
  'norandommap',
  'per_job_logs',
  'randrepeat',
  'refill_buffers',
  'registerfiles',
  'fixedbufs',
  'sqthread_poll',
  'thread',
  'unified_rw_reporting',
  'userspace_reap',
] as const;

/** fio's defaults where they differ: without them the same file would measure something else. */
const FIO_DEFAULTS: readonly (readonly [name: string, text: string])[] = [
  ['rw', 'read'],
  ['iodepth', '1'],
  ['time_based', '0'],
];

/** Options of fio that mean something else here, and what to write. */
const OTHERWISE: Readonly<Record<string, string>> = {
  timeout: 'in fio it is another name of runtime; write runtime',
  stonewall: 'jobs run at the same time; put what comes after into a file of its own',
  wait_for_previous: 'jobs run at the same time; put what comes after into a file of its own',
  do_verify: 'what was written is always read back; leave it out',
  loops: 'limit the run by runtime or io_size',
  filesize: 'write size',
  bsrange: 'write bssplit',
  blocksize_range: 'write bssplit',
  startdelay: 'jobs begin together; leave it out',
};

/** Options that a section may have, and those that hold for the whole run. */
const SECTION_NAMES = new Map([...optionNames(WORKLOAD_OPTIONS), [FILENAME, FILENAME] as const]);
/** What a file must not ask for: another could have written it. */
const LINE_ALONE: ReadonlySet<string> = new Set(['demo', 'i-know-this-destroys-data-on']);
const RUN_NAMES = new Map([...optionNames(RUN_OPTIONS), ...optionNames(OUTPUT_OPTIONS)]);

/**
 * Reads a job file in fio's format: sections in brackets, `name=value` or `name` in lines, comments after `#` or `;`.
 *
 * @throws UsageError that names the line, for what cannot be read or is not known
 */
export function readJobFile(path: string): JobFile {
  const global = new Map<string, FileOption>();
  const sections: { name: string; options: Map<string, FileOption> }[] = [];
  const ignored = new Set<string>();
  let current: Map<string, FileOption> | undefined;
  textOf(path).forEach((line, index) => {
    const where = `${path}:${index + 1}`;
    if (line === '') return;
    const heading = /^\[(.+)\]$/.exec(line)?.[1];
    if (heading !== undefined) {
      current = global;
      if (heading === GLOBAL && sections.length > 0)
        throw new UsageError(`${where}: [global] comes before the jobs, for all of which it holds`);
      if (sections.some(({ name }) => name === heading))
        throw new UsageError(`${where}: there is a section [${heading}] already`);
      if (heading !== GLOBAL) {
        const options = new Map<string, FileOption>();
        sections.push({ name: heading, options });
        current = options;
      }
      return;
    }
    if (current === undefined)
      throw new UsageError(`${where}: '${line}' stands before the first section, such as [global]`);
    takeOption(where, line, current, current === global, ignored);
  });
  if (sections.length === 0)
    throw new UsageError(
      `${path} is neither a socket nor a job file with a job, which is a section, such as [reads]`,
    );
  const defaults = new Map(FIO_DEFAULTS.map(([name, text]) => [name, { text, subject: `${path}: ${name}` }]));
  return { global, sections, defaults, ignored: [...ignored] };
}

function takeOption(
  where: string,
  line: string,
  section: Map<string, FileOption>,
  isGlobal: boolean,
  ignored: Set<string>,
): void {
  const [, key = '', value] = /^([^=]+?)\s*(?:=\s*(.*))?$/.exec(line) ?? [];
  const wanted = canonical(key);
  const name = SECTION_NAMES.get(wanted) ?? (isGlobal ? RUN_NAMES.get(wanted) : undefined);
  const instead = Object.hasOwn(OTHERWISE, wanted) ? OTHERWISE[wanted] : undefined;
  if (instead !== undefined) throw new UsageError(`${where}: '${key}' is not known here: ${instead}`);
  if (name === undefined) {
    if ((WITHOUT_MEANING as readonly string[]).includes(wanted)) {
      ignored.add(key);
      return;
    }
    if (RUN_NAMES.has(wanted))
      throw new UsageError(`${where}: '${key}' holds for the whole run; move it to [global]`);
    const guess = closest(wanted, [...SECTION_NAMES.keys(), ...RUN_NAMES.keys()]);
    throw new UsageError(
      `${where}: unknown option '${key}'; ${guess === undefined ? '"vfio-user help bench" lists the options' : `did you mean ${guess}?`}`,
    );
  }
  if (LINE_ALONE.has(name)) throw new UsageError(`${where}: '${name}' is for the command line alone`);
  if (section.has(name)) throw new UsageError(`${where}: '${key}' is given twice in this section`);
  section.set(name, { text: value ?? true, subject: `${where}: ${key}` });
}

/** The lines without comments and white space around them. */
function textOf(path: string): string[] {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new UsageError(`${path} cannot be read: ${String((error as NodeJS.ErrnoException).code)}`);
  }
  if (text.includes('\0')) throw new UsageError(`${path} is neither a socket nor a job file`);
  return text.split('\n').map((line) => line.replace(/(^|\s)[#;].*$/, '').trim());
}
