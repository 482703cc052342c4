// SPDX-License-Identifier: MIT
import type { LatencyHistogram } from '../latency-histogram';
import type { ControllerStatistics, NamespaceStatistics } from '../nvme/controller';
import type { NvmeServer } from './nvme-server';

type Labels = Readonly<Record<string, string | number>>;
type Sample = readonly [labels: Labels, value: number];

const PREFIX = 'vfio_user_nvme';

/** Counters of a controller, with what they count. */
const CONTROLLER: readonly (readonly [name: string, key: keyof ControllerStatistics, help: string])[] = [
  ['admin_commands_total', 'adminCommands', 'Commands of the admin queue.'],
  ['errors_total', 'errors', 'Commands that ended with an error, those of the admin queue included.'],
  ['interrupts_total', 'interrupts', 'Interrupts that reached the host.'],
  ['slow_commands_total', 'slowCommands', 'I/O commands whose data went by message, or that waited.'],
  ['bad_doorbells_total', 'badDoorbells', 'Doorbells that were written with values that make no sense.'],
  ['resets_total', 'resets', 'Controller resets of all kinds.'],
];

const COMMANDS: readonly (readonly [command: string, key: keyof NamespaceStatistics])[] = [
  ['read', 'readCommands'],
  ['write', 'writeCommands'],
  ['other', 'otherCommands'],
];

const BYTES: readonly (readonly [direction: string, key: keyof NamespaceStatistics])[] = [
  ['read', 'bytesRead'],
  ['written', 'bytesWritten'],
  ['zeroed', 'bytesZeroed'],
];

/** Upper limits of the buckets of latencies, in nanoseconds: 1, 2 and 5 of each power of ten, from 1 us to 10 s. */
const BUCKETS: readonly number[] = [3, 4, 5, 6, 7, 8, 9]
  .flatMap((power) => [1, 2, 5].map((digit) => digit * 10 ** power))
  .concat(10 ** 10);

/**
 * What the controllers have done so far, in the text exposition format of Prometheus, version 0.0.4. Everything that ends in `_total`
 * grows from the start of the process on.
 */
export function metricsText(servers: readonly NvmeServer[]): string {
  const all = servers.map(({ socket, model }) => ({
    model,
    labels: { socket, serial: model.serial },
    statistics: model.statistics,
    namespaces: model.namespaces,
  }));
  const ofNamespaces = (
    sample: (namespace: (typeof all)[number]['namespaces'][number]) => readonly Sample[],
  ): Sample[] =>
    all.flatMap(({ labels, namespaces }) =>
      namespaces.flatMap((namespace) =>
        sample(namespace).map(([own, value]): Sample => [
          { ...labels, namespace: namespace.nsid, ...own },
          value,
        ]),
      ),
    );
  return [
    metric(
      'commands_total',
      'counter',
      'I/O commands that were executed.',
      ofNamespaces(({ statistics }) => COMMANDS.map(([command, key]) => [{ command }, statistics[key]])),
    ),
    metric(
      'bytes_total',
      'counter',
      'Bytes that commands have moved.',
      ofNamespaces(({ statistics }) => BYTES.map(([direction, key]) => [{ direction }, statistics[key]])),
    ),
    metric(
      'command_errors_total',
      'counter',
      'I/O commands for the namespace that ended with an error.',
      ofNamespaces(({ statistics }) => [[{}, statistics.errors]]),
    ),
    metric(
      'namespace_size_bytes',
      'gauge',
      'Size of the namespace.',
      ofNamespaces(({ size }) => [[{}, size]]),
    ),
    ...CONTROLLER.map(([name, key, help]) =>
      metric(
        name,
        'counter',
        help,
        all.map(({ labels, statistics }) => [labels, statistics[key]]),
      ),
    ),
    metric(
      'stopped',
      'gauge',
      '1 while the controller cannot go on until it is reset (CSTS.CFS), else 0.',
      all.map(({ labels, model }) => [labels, model.fault === null ? 0 : 1]),
    ),
    latencyMetric(
      all.flatMap(({ labels, model }) =>
        Object.entries(model.latencyHistograms ?? {}).map(
          ([command, histogram]) => [{ ...labels, command }, histogram] as const,
        ),
      ),
    ),
  ].join('');
}

/** Histograms in seconds. They are left out when nothing measures. */
function latencyMetric(
  histograms: readonly (readonly [labels: Labels, histogram: LatencyHistogram])[],
): string {
  if (histograms.length === 0) return '';
  const name = `${PREFIX}_latency_seconds`;
  const lines = histograms.flatMap(([labels, histogram]) => {
    const counts = histogram.countsWithin(BUCKETS);
    return [
      ...BUCKETS.map((limit, index) =>
        line(`${name}_bucket`, { ...labels, le: limit / 1e9 }, counts[index] ?? 0),
      ),
      line(`${name}_bucket`, { ...labels, le: '+Inf' }, histogram.count),
      line(`${name}_sum`, labels, histogram.sum / 1e9),
      line(`${name}_count`, labels, histogram.count),
    ];
  });
  return `# HELP ${name} Time of I/O commands from their fetch to their completion.\n# TYPE ${name} histogram\n${lines.join('')}`;
}

function metric(name: string, type: 'counter' | 'gauge', help: string, samples: readonly Sample[]): string {
  const full = `${PREFIX}_${name}`;
  const lines = samples.map(([labels, value]) => line(full, labels, value));
  return `# HELP ${full} ${help}\n# TYPE ${full} ${type}\n${lines.join('')}`;
}

function line(name: string, labels: Labels, value: number): string {
  return `${name}{${labelText(labels)}} ${value}\n`;
}

function labelText(labels: Labels): string {
  return Object.entries(labels)
    .map(([name, value]) => `${name}="${String(value).replace(/["\\]/g, '\\$&').replaceAll('\n', '\\n')}"`)
    .join(',');
}
