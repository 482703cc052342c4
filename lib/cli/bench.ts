// SPDX-License-Identifier: MIT
import { benchmark, type BenchmarkResult } from '../bench/benchmark';
import { writes } from '../bench/job';
import { mergeResults } from '../bench/job-result';
import { LiveLine } from '../bench/live-line';
import type { BenchmarkOptions } from '../bench/options';
import { formatSize, parseSize } from '../bench/units';
import { connect, type VfioUserDevice } from '../client';
import { BenchOutput, OUTPUT_OPTIONS } from './bench-output';
import { WORKLOAD_OPTIONS, benchmarkOptions, fioOptions } from './bench-workload';
import { defineCommand } from './command';
import { runDemo } from './demo';
import { startEmbeddedEndpoint } from './embedded-endpoint';
import { interruptible } from './interrupt';
import { UsageError, type CommandSpec, type OptionValues } from './option-spec';
import { complain, printable } from './output';

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
      help: "Path of a controller's socket, or SPDK's directory; several are measured together. Without one, a controller of this package is started and measured.",
      optional: true,
      many: true,
    },
  ],
  options: {
    ...WORKLOAD_OPTIONS,
    ...OUTPUT_OPTIONS,
    'connect-timeout': { type: 'duration', default: '5', min: 0.001, max: 86_400, help: 'Time to connect.' },
    timeout: {
      type: 'duration',
      default: '4',
      min: 0.001,
      max: 86_400,
      help: 'Time for the controller to end what is in flight after the run, and to shut down.',
    },
    demo: { type: 'boolean', help: 'Show what the tool does, step by step, in less than half a minute.' },
  },
  foreign: { q: 'iodepth', o: 'bs', w: 'rw', t: 'runtime', M: 'rwmixread' },
} as const satisfies CommandSpec;

type Options = OptionValues<typeof SPEC>;

/** `vfio-user bench` */
export const bench = defineCommand(SPEC, async (options, endpoints, given) => {
  if (options.demo) {
    const ignored = [...given].filter((name) => name !== 'demo').map((name) => `--${name}`);
    if (ignored.length > 0)
      throw new UsageError(
        `--demo shows runs of its own and takes no other options; leave out ${ignored.join(', ')}`,
      );
    if (endpoints.length > 0) {
      throw new UsageError(
        '--demo writes data, so it runs on an endpoint of its own only; leave out the endpoint',
      );
    }
    return interruptible(runDemo);
  }
  const settings = { ...benchmarkOptions(options), timeout: options.timeout };
  const repeated = endpoints.find((endpoint, index) => endpoints.indexOf(endpoint) !== index);
  if (repeated !== undefined)
    throw new UsageError(
      `The endpoint '${printable(repeated)}' is given twice; --numjobs runs several jobs at one`,
    );
  const output = new BenchOutput(options);
  return interruptible(async (signal, again) => {
    if (endpoints.length > 0) {
      await run(endpoints, options, { ...settings, signal, giveUp: again }, output);
      return;
    }
    const wanted = options.size ?? EMBEDDED_SIZE;
    const size = Math.ceil(wanted / EMBEDDED_UNIT) * EMBEDDED_UNIT;
    await using embedded = await startEmbeddedEndpoint(size, signal);
    // Awaited here: the endpoint ends where its scope does.
    await run([embedded.path], options, { ...settings, signal, giveUp: again }, output, EMBEDDED_NAME);
  });
});

/** @param alias what to call the endpoint in the report, instead of its path */
async function run(
  endpoints: readonly string[],
  options: Options,
  settings: BenchmarkOptions,
  output: BenchOutput,
  alias?: string,
): Promise<void> {
  const devices: VfioUserDevice[] = [];
  try {
    const { signal } = settings;
    const connectTimeout = options['connect-timeout'] * 1000;
    const messageTimeout = options.timeout * 1000;
    const timeouts = { connectTimeout, messageTimeout, quiesceTimeout: messageTimeout };
    for (const endpoint of endpoints)
      devices.push(await connect(endpoint, { ...timeouts, ...(signal === undefined ? {} : { signal }) }));
    const line = new LiveLine(process.stderr, { ...settings, jobs: settings.jobs * endpoints.length });
    const started = new Date();
    let result: BenchmarkResult;
    try {
      result = await benchmark(devices, {
        ...settings,
        targetPids: devices.map((device) => device.serverPid),
        onStart: () => {
          if (alias !== undefined || !writes(settings.workload)) return;
          for (const endpoint of endpoints) complain(destruction(endpoint, options));
        },
        onProgress: (progress) => {
          line.update(progress);
        },
      });
    } finally {
      line.clear();
    }
    output.write({
      ...result,
      started,
      ended: new Date(),
      wantedIops: settings.rate === undefined ? undefined : settings.rate * settings.jobs,
      parts: result.endpoints.map(({ target, jobs, doubts }, index) => {
        const name = alias ?? endpoints[index] ?? '';
        return {
          name: endpoints.length === 1 ? 'bench' : `bench${index}`,
          target: printable(`${name}, namespace ${target.nsid}`),
          options: { ...fioOptions(options, settings, name), ...output.fioOptions },
          result: mergeResults(jobs),
          doubts,
          device: target,
        };
      }),
    });
  } finally {
    await Promise.all(devices.map((device) => device.close()));
  }
}

function destruction(endpoint: string, { rw, size, nsid }: Options): string {
  const namespace = nsid === undefined ? 'the first namespace' : `namespace ${nsid}`;
  const part = size === undefined ? 'all' : `the first ${formatSize(size)}`;
  return `--rw ${rw} overwrites ${part} of ${namespace} of ${endpoint}`;
}
