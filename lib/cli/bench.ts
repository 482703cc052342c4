// SPDX-License-Identifier: MIT
import { benchmark, type BenchmarkResult } from '../bench/benchmark';
import { trims, writes } from '../bench/job';
import { LiveLine } from '../bench/live-line';
import type { RunOptions } from '../bench/options';
import { formatSize, parseSize } from '../bench/units';
import { BenchOutput } from './bench-output';
import { OUTPUT_OPTIONS, RUN_OPTIONS, WORKLOAD_OPTIONS } from './bench-options';
import { planBench, type BenchJob, type BenchPlan } from './bench-plan';
import { defineCommand } from './command';
import { runDemo } from './demo';
import { startEmbeddedEndpoint } from './embedded-endpoint';
import { finishedRun } from './finished-run';
import { interruptible } from './interrupt';
import { openEndpoint, type EndpointDevice } from './open-endpoint';
import { UsageError, type CommandSpec } from './option-spec';
import { complain } from './output';

const EMBEDDED_SIZE = parseSize('1g');
/** The embedded endpoint's memory comes in pages. */
const EMBEDDED_UNIT = 4096;
/** What to call it in reports, instead of its path. */
const EMBEDDED_NAME = 'embedded endpoint';

const SPEC = {
  name: 'bench',
  summary: 'Measure NVMe controllers: IOPS, bandwidth, latency; or verify what they store.',
  positionals: [
    {
      name: 'endpoint',
      help: "Path of a controller's socket, or SPDK's directory; or the PCI address of a controller bound to vfio-pci. Several are measured together. Without one, a controller of this package is started and measured. A regular file is a job file of fio.",
      optional: true,
      many: true,
    },
  ],
  options: { ...WORKLOAD_OPTIONS, ...RUN_OPTIONS, ...OUTPUT_OPTIONS },
  examples: [
    ['bench', 'Measures a controller of this package, which it starts in another process.'],
    [
      'bench /var/run/vfio-user/1 --rw randread --bs 4k --iodepth 128 --runtime 30',
      "Measures SPDK's target for half a minute.",
    ],
    [
      'bench /var/run/vfio-user/1 --rw write --size 1g --verify',
      'Writes a gigabyte and compares what it reads back. Destroys the data.',
    ],
    [
      'bench /var/run/vfio-user/1 --latency_target 200us --latency_percentile 99 --iodepth 256',
      'Looks for the load at which 99 % of the I/Os take 200 microseconds at most.',
    ],
    [
      'bench 0000:01:00.0 --rw randread --iodepth 64',
      'Reads from an SSD of this machine that was given to vfio-pci by vfio-user bind.',
    ],
    ['bench job.fio --output-format json --output result.json', 'Runs a job file of fio.'],
  ],
  foreign: { q: 'iodepth', o: 'bs', w: 'rw', t: 'runtime', M: 'rwmixread' },
} as const satisfies CommandSpec;

/** `vfio-user bench` */
export const bench = defineCommand(SPEC, async (options, positionals, given) => {
  if (options.demo) {
    const ignored = [...given.keys()].filter((name) => name !== 'demo').map((name) => `--${name}`);
    if (ignored.length > 0)
      throw new UsageError(
        `--demo shows runs of its own and takes no other options; leave out ${ignored.join(', ')}`,
      );
    if (positionals.length > 0)
      throw new UsageError(
        '--demo writes data, so it runs on an endpoint of its own only; leave out the endpoint',
      );
    return interruptible(runDemo);
  }
  const plan = planBench(positionals, given);
  const output = new BenchOutput(plan.output, plan.given);
  return interruptible(async (signal, again) => {
    const signals = { signal, giveUp: again };
    if (plan.endpoints.length > 0) {
      await run(plan, plan.endpoints, signals, output);
      return;
    }
    const wanted = Math.max(0, ...plan.jobs.map(({ options: { offset = 0, size } }) => (size ?? 0) + offset));
    const size = Math.ceil((wanted || EMBEDDED_SIZE) / EMBEDDED_UNIT) * EMBEDDED_UNIT;
    await using embedded = await startEmbeddedEndpoint(size, signal);
    // Awaited here: the endpoint ends where its scope does.
    await run(plan, [embedded.path], signals, output, EMBEDDED_NAME);
  });
});

/** @param alias what to call the endpoint in the report, instead of its path */
async function run(
  plan: BenchPlan,
  endpoints: readonly string[],
  signals: Required<Pick<RunOptions, 'signal' | 'giveUp'>>,
  output: BenchOutput,
  alias?: string,
): Promise<void> {
  const devices: EndpointDevice[] = [];
  try {
    const { jobs } = plan;
    for (const endpoint of endpoints) devices.push(await open(endpoint, plan, signals.signal));
    const workloads = jobs.map(({ options }) => options);
    const line = new LiveLine(process.stderr, {
      groups: workloads.map(({ workload, completion, jobs: count, endpoints: at }) => ({
        workload,
        completion,
        jobs: count * (at ?? endpoints).length,
      })),
    });
    const measured = { jobs, endpoints, alias, fioOptions: output.fioOptions, started: new Date() };
    let result: BenchmarkResult;
    try {
      result = await benchmark(devices, workloads, {
        ...plan.run,
        ...output.runOptions,
        ...signals,
        targetPids: devices.map((device) => ('serverPid' in device ? device.serverPid : undefined)),
        onStart: () => {
          if (alias !== undefined) return;
          for (const job of jobs) for (const endpoint of endpointsOf(job, endpoints)) warn(job, endpoint);
        },
        onProgress: (progress) => {
          line.update(progress);
        },
        onStatus: (parts) => {
          line.clear();
          output.status(finishedRun(measured, { parts, interrupted: false }));
        },
      });
    } finally {
      line.clear();
    }
    output.write(finishedRun(measured, result));
  } finally {
    await Promise.all(devices.map((device) => device.close()));
  }
}

/** Delays between attempts to come back, in milliseconds: short, so that a gap is measured, and not the wait for the next attempt. */
const RECONNECT_DELAYS = { firstDelay: 10, longestDelay: 100 };

/** Connects to an endpoint. Once connected, the signal does nothing: what was measured is to be told first. */
async function open(endpoint: string, plan: BenchPlan, signal: AbortSignal): Promise<EndpointDevice> {
  const { connectTimeout, timeout, reconnectTimeout: deadline } = plan;
  const timeouts = { connectTimeout, messageTimeout: timeout, quiesceTimeout: timeout };
  const reconnect = deadline === undefined ? false : { ...RECONNECT_DELAYS, deadline };
  const connecting = new AbortController();
  const onAbort = (): void => {
    connecting.abort(signal.reason);
  };
  signal.addEventListener('abort', onAbort);
  try {
    signal.throwIfAborted();
    return await openEndpoint(endpoint, { ...timeouts, reconnect, signal: connecting.signal }, plan.vfToken);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

function endpointsOf({ options }: BenchJob, endpoints: readonly string[]): readonly string[] {
  return options.endpoints === undefined
    ? endpoints
    : endpoints.filter((_, index) => options.endpoints?.includes(index));
}

/** Says what is destroyed at an endpoint that the user has named. */
function warn({ options, values }: BenchJob, endpoint: string): void {
  const { workload, offset = 0, size, nsid } = options;
  if (!writes(workload) && !trims(workload)) return;
  const namespace = nsid === undefined ? 'the first namespace' : `namespace ${nsid}`;
  const bytes = size === undefined ? 'all' : formatSize(size);
  const part =
    offset === 0
      ? size === undefined
        ? 'all'
        : `the first ${bytes}`
      : `${bytes} from offset ${formatSize(offset)} on`;
  const verb = writes(workload) ? 'overwrites' : 'deallocates';
  complain(`--rw ${values.rw} ${verb} ${part} of ${namespace} of ${endpoint}`);
}
