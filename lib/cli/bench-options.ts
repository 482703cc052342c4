// SPDX-License-Identifier: MIT
import { COMPLETION_MODES, WORKLOADS } from '../bench/job';
import {
  parseAddresses,
  parseBlockSizes,
  parseDistribution,
  parsePercentileList,
  parseProcessorList,
  parseSplit,
  parseSteadyState,
} from './bench-option-forms';
import type { OptionTable, TableValues } from './option-spec';
import { VF_TOKEN_OPTION } from './vf-token';

/** Seconds of a run that nothing else ends. */
export const DEFAULT_RUNTIME = 10;
export const DEFAULT_READ_PERCENT = 50;
const DAY = 86_400;

const WORKLOAD = 'What is done';
const LOAD = 'How much at a time, and how fast';
const REGION = 'Where';
const END = 'How long';
const COMPLETION = 'How completions are waited for';
const RUN = 'The run as a whole';
const RESULTS = 'Results';
const LOGS = "Logs in fio's format";

/**
 * The options that say what a job does, by fio's names. This table and the next are the only place where they are declared: the
 * parsers of command line and job file, help, completion, the man page and docs/cli.md are made from them.
 */
export const WORKLOAD_OPTIONS = {
  rw: {
    type: 'choice',
    group: WORKLOAD,
    aliases: ['readwrite'],
    choices: [...WORKLOADS, 'readwrite'] as const,
    default: 'randread',
    help: 'Workload. Those that write or trim destroy data. Those with trimwrite trim a block, and write it when that is complete.',
  },
  rwmixread: {
    type: 'integer',
    group: WORKLOAD,
    min: 0,
    max: 100,
    help: `Percentage of reads of rw and randrw. Default: ${DEFAULT_READ_PERCENT}.`,
  },
  bs: {
    type: 'form',
    group: WORKLOAD,
    aliases: ['blocksize'],
    placeholder: 'size',
    default: '4k',
    expected: 'a size of at least 512 bytes, such as 4k, or sizes for reads, writes and trims: 4k,64k',
    parse: parseBlockSizes,
    help: 'Bytes of an I/O; or of reads, writes and trims, separated by commas.',
  },
  bssplit: {
    type: 'form',
    group: WORKLOAD,
    placeholder: 'split',
    expected:
      'sizes with percentages that add up to 100, such as 4k/60:64k/40, and after a comma those of writes and of trims',
    parse: parseSplit,
    help: 'Mix of block sizes, such as 4k/60:64k/40; those without a percentage share what is left. After commas those of writes and of trims.',
  },
  fua: {
    type: 'boolean',
    group: WORKLOAD,
    help: 'Force Unit Access for reads and writes: they go to and from the medium.',
  },
  readfua: { type: 'boolean', group: WORKLOAD, help: 'Force Unit Access for reads.' },
  writefua: { type: 'boolean', group: WORKLOAD, help: 'Force Unit Access for writes.' },
  verify: {
    type: 'boolean',
    group: WORKLOAD,
    help: 'Write a pattern, read back what was written, and compare.',
  },
  random_distribution: {
    type: 'form',
    group: WORKLOAD,
    placeholder: 'law',
    default: 'random',
    expected: 'random, zipf, or zipf:<skew> with a skew above 0 and up to 10',
    parse: parseDistribution,
    help: 'How random workloads choose blocks: random, or zipf with its skew, such as zipf:1.2.',
  },
  randseed: {
    type: 'integer',
    group: WORKLOAD,
    min: 0,
    max: 0xffff_ffff,
    help: 'Seed of order and pattern. Default: 1, or with --verify a new one, so that old data is not taken for new.',
  },
  iodepth: {
    type: 'count',
    group: LOAD,
    default: '32',
    min: 1,
    max: 65_535,
    help: 'I/Os in flight of each job.',
  },
  numjobs: {
    type: 'count',
    group: LOAD,
    default: '1',
    min: 1,
    max: 1024,
    help: 'Jobs at each endpoint, each with a thread and queues of its own.',
  },
  rate: {
    type: 'size',
    group: LOAD,
    min: 1,
    help: 'Most bytes per second of each job, in all directions together. Default: no limit.',
  },
  rate_iops: {
    type: 'count',
    group: LOAD,
    min: 1,
    help: 'Most I/Os per second of each job, in all directions together. Default: no limit.',
  },
  thinktime: {
    type: 'duration',
    unit: 'us',
    group: LOAD,
    min: 0,
    max: DAY,
    help: 'Pause after I/Os, when all in flight are complete; without a unit in microseconds. Default: 0.',
  },
  thinktime_blocks: {
    type: 'count',
    group: LOAD,
    min: 1,
    max: 2 ** 31,
    help: 'I/Os between two pauses. Default: 1.',
  },
  latency_target: {
    type: 'duration',
    unit: 'us',
    group: LOAD,
    min: 1e-9,
    max: DAY,
    help: 'Look for the most I/Os in flight, up to --iodepth, that keep this latency, and measure with them; without a unit in microseconds.',
  },
  latency_window: {
    type: 'duration',
    unit: 'us',
    group: LOAD,
    min: 0.001,
    max: DAY,
    help: 'How long each number in flight is tried; without a unit in microseconds. Default: 500ms.',
  },
  latency_percentile: {
    type: 'number',
    group: LOAD,
    min: 0.000001,
    max: 100,
    help: 'Percentage of the I/Os that must keep the latency. Default: 100.',
  },
  offset: { type: 'size', group: REGION, min: 0, help: 'Where in the namespace to begin. Default: 0.' },
  size: {
    type: 'size',
    group: REGION,
    min: 512,
    help: 'Bytes to use, from the offset on. Default: to the end of the namespace.',
  },
  nsid: {
    type: 'integer',
    group: REGION,
    min: 1,
    max: 0xffff_fffe,
    help: 'Namespace id. Default: the first.',
  },
  runtime: {
    type: 'duration',
    group: END,
    min: 0.001,
    help: `How long to run. Default: ${DEFAULT_RUNTIME}, or with --io_size, --verify or --time_based=0 until that is done.`,
  },
  time_based: {
    type: 'boolean',
    group: END,
    default: '1',
    help: 'Run to the end of the time. With =0 the run ends when the region was covered, each block once.',
  },
  ramp_time: {
    type: 'duration',
    group: END,
    min: 0,
    max: DAY,
    help: 'How long to run before the measurement begins. Default: 0.',
  },
  io_size: {
    type: 'size',
    group: END,
    aliases: ['io_limit'],
    min: 512,
    help: 'Bytes that each job transfers; the run ends with them.',
  },
  completion: {
    type: 'choice',
    group: COMPLETION,
    choices: COMPLETION_MODES,
    default: 'poll',
    help: 'How jobs learn of completions; adaptive looks for them for a while before it sleeps.',
  },
  spin: {
    type: 'duration',
    group: COMPLETION,
    min: 0,
    max: 1,
    help: 'How long adaptive looks for completions. Default: 50us.',
  },
  cpus_allowed: {
    type: 'form',
    group: COMPLETION,
    placeholder: 'list',
    expected: 'a list of processors such as 0-2,5',
    parse: parseProcessorList,
    help: 'Processors that the threads of the jobs may use, such as 0-2,5.',
  },
} as const satisfies OptionTable;

/** The options that hold for a run as a whole. */
export const RUN_OPTIONS = {
  steadystate: {
    type: 'form',
    group: RUN,
    aliases: ['ss'],
    placeholder: 'criterion',
    expected: 'iops, iops_slope, bw or bw_slope with a limit, such as iops:0.5% or bw_slope:1m',
    parse: parseSteadyState,
    help: 'End the run when its rate is steady: all rates (iops, bw) within a limit of their mean, or their slope (iops_slope, bw_slope) below it, such as iops:0.5%.',
  },
  steadystate_duration: {
    type: 'duration',
    group: RUN,
    aliases: ['ss_dur'],
    min: 2,
    max: DAY,
    help: 'How long the rate must be steady; it is taken each second. Default: 5.',
  },
  steadystate_ramp_time: {
    type: 'duration',
    group: RUN,
    aliases: ['ss_ramp'],
    min: 0,
    max: DAY,
    help: 'How long the run goes on before its rate is looked at. Default: 0.',
  },
  'connect-timeout': {
    type: 'duration',
    group: RUN,
    default: '5',
    min: 0.001,
    max: DAY,
    help: 'Time to connect.',
  },
  timeout: {
    type: 'duration',
    group: RUN,
    default: '4',
    min: 0.001,
    max: DAY,
    help: 'Time for the controller to end what is in flight after the run, and to shut down.',
  },
  reconnect: {
    type: 'boolean',
    group: RUN,
    help: 'When the server of an endpoint goes away, wait until it is started again, and go on. The report lists the gaps; time in them counts.',
  },
  'reconnect-timeout': {
    type: 'duration',
    group: RUN,
    default: '60',
    min: 0.001,
    max: DAY,
    help: 'How long to wait for a server that has gone.',
  },
  'i-know-this-destroys-data-on': {
    type: 'form',
    group: RUN,
    placeholder: 'address',
    expected: 'PCI addresses, or UUIDs of mediated devices, separated by commas, such as 0000:01:00.0',
    parse: parseAddresses,
    help: 'Lets a workload write or trim real hardware, whose PCI address or UUID is repeated here. For the command line alone.',
  },
  'vf-token': { ...VF_TOKEN_OPTION, group: RUN },
  demo: {
    type: 'boolean',
    group: RUN,
    help: 'Show what the tool does, step by step, in less than half a minute.',
  },
} as const satisfies OptionTable;

/** The options that say what to make of the results. */
export const OUTPUT_OPTIONS = {
  'output-format': {
    type: 'choice',
    group: RESULTS,
    choices: ['normal', 'json', 'json+'],
    default: 'normal',
    help: "Report; json is fio's, json+ too, with the buckets of the latency.",
  },
  output: {
    type: 'string',
    group: RESULTS,
    placeholder: 'path',
    help: 'Write the report into this file, instead of printing it.',
  },
  'status-interval': {
    type: 'duration',
    group: RESULTS,
    min: 0.1,
    max: DAY,
    help: 'Print a report of the run so far each time that this is over.',
  },
  percentile_list: {
    type: 'form',
    group: RESULTS,
    aliases: ['percentiles'],
    placeholder: 'list',
    expected: 'numbers from 0 to 100 with at most 6 decimals, such as 50,99,99.9',
    parse: parsePercentileList,
    help: 'Percentiles of the latency to report, such as 50,99,99.9.',
  },
  histogram: { type: 'boolean', group: RESULTS, help: 'Add a histogram of the latency to the report.' },
  hgrm: {
    type: 'string',
    group: RESULTS,
    placeholder: 'path',
    help: "Write the latency by percentile, of all directions together, in HdrHistogram's text format.",
  },
  report: {
    type: 'string',
    group: RESULTS,
    placeholder: 'path',
    help: 'Write a report as a page of HTML, with charts.',
  },
  write_bw_log: {
    type: 'string',
    group: LOGS,
    placeholder: 'prefix',
    help: 'Write the bandwidth over time of each job into <prefix>_bw.<job>.log.',
  },
  write_iops_log: {
    type: 'string',
    group: LOGS,
    placeholder: 'prefix',
    help: 'Write the IOPS over time of each job into <prefix>_iops.<job>.log.',
  },
  write_lat_log: {
    type: 'string',
    group: LOGS,
    placeholder: 'prefix',
    help: 'Write the latency over time of each job into <prefix>_lat.<job>.log, and _clat and _slat beside it.',
  },
  log_avg_msec: {
    type: 'count',
    group: LOGS,
    min: 10,
    max: DAY * 1000,
    help: 'Milliseconds over which an entry of a log is the average. Default: 500.',
  },
  log_max_value: {
    type: 'boolean',
    group: LOGS,
    help: 'Log the largest latency of each such interval instead of the average.',
  },
} as const satisfies OptionTable;

/** Their values. */
export type WorkloadValues = TableValues<typeof WORKLOAD_OPTIONS>;
export type RunValues = TableValues<typeof RUN_OPTIONS>;
export type OutputValues = TableValues<typeof OUTPUT_OPTIONS>;
