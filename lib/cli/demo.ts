// SPDX-License-Identifier: MIT
import { benchmark } from '../bench/benchmark';
import type { PartResult } from '../bench/part-result';
import { allDirections, bandwidth, iops, latencyOf, mergeResults, type JobResult } from '../bench/job-result';
import { LiveLine } from '../bench/live-line';
import type { WorkloadOptions } from '../bench/options';
import { formatBandwidth, formatCount, formatLatency, formatSize } from '../bench/units';
import { connect, type VfioUserDevice } from '../client';
import { NvmeController } from '../nvme/host';
import { inspectDevice, type DeviceReport } from './device-report';
import { startEmbeddedEndpoint } from './embedded-endpoint';
import { print, printable } from './output';

/** Small enough that a machine with little memory can hold it. */
const NAMESPACE_BYTES = 256 * 2 ** 20;
const VERIFIED_BYTES = 64 * 2 ** 20;
/** Seconds of each measurement. */
const RUNTIME = 2;

/** `vfio-user bench --demo`: the package's main job in short sections, on an endpoint of its own. Within half a minute. */
export async function runDemo(signal: AbortSignal): Promise<void> {
  section('1. A device in another process');
  await using embedded = await startEmbeddedEndpoint(NAMESPACE_BYTES, signal);
  print(
    `An emulated NVMe controller with ${formatSize(NAMESPACE_BYTES)} of memory runs in process ${embedded.pid}.`,
  );
  print(`Its socket is ${embedded.path}`);

  await using device = await connect(embedded.path, { signal });
  section('2. What the device says of itself');
  summarize(await inspectDevice(device));

  section('3. An NVMe driver in this process');
  await identify(device);

  section('4. Reading');
  const reading = { workload: 'randread', blockSize: 4096, runtime: RUNTIME, verify: false } as const;
  for (const depth of [1, 32]) {
    const result = await measure(device, { ...reading, depth, jobs: 1, seed: 1 }, signal);
    print(`4 KiB random reads, ${depth === 1 ? 'one at a time' : `${depth} in flight`}: ${rates(result)}`);
    doubt(result);
  }

  section('5. Writing, and checking what was written');
  const result = await measure(
    device,
    {
      workload: 'write',
      blockSize: 4096,
      size: VERIFIED_BYTES,
      depth: 32,
      jobs: 1,
      verify: true,
      seed: 1,
    },
    signal,
  );
  print(`${formatSize(VERIFIED_BYTES)} in random order, 32 in flight: ${rates(result)}`);
  doubt(result);
  print(`Read back and compared: ${result.verified} blocks, ${result.mismatches} differ.`);

  section('6. The same with a controller of SPDK');
  print(
    [
      '  rpc.py nvmf_create_transport -t VFIOUSER',
      '  rpc.py bdev_malloc_create -b Malloc0 256 4096',
      '  rpc.py nvmf_create_subsystem nqn.2019-07.io.spdk:cnode0 -a',
      '  rpc.py nvmf_subsystem_add_ns nqn.2019-07.io.spdk:cnode0 Malloc0',
      '  mkdir -p /var/run/vfio-user/0',
      '  rpc.py nvmf_subsystem_add_listener nqn.2019-07.io.spdk:cnode0 -t VFIOUSER -a /var/run/vfio-user/0 -s 0',
      '  vfio-user bench /var/run/vfio-user/0 --iodepth 32 --runtime 10',
    ].join('\n'),
  );

  section('7. What next');
  print(
    [
      '  npx vfio-user bench --help       all that can be measured',
      "  npx vfio-user serve nvme --help  the controller above, for SPDK's tools, QEMU and guests",
      '  README.md                        the library: a client, a driver, and a device of your own',
    ].join('\n'),
  );
}

/** What was measured, and why it is not to be trusted. */
type Measured = JobResult & Pick<PartResult, 'doubts'>;

/** Tells of figures that are not those of the device, just below them. */
function doubt({ doubts }: Measured): void {
  for (const text of doubts) print(`Do not trust these figures: ${text}.`);
}

function section(title: string): void {
  print(`\n${title}`);
}

function summarize({ protocol, regions, pci, nvme, roundTrip }: DeviceReport): void {
  print(
    `It speaks vfio-user ${protocol?.version ?? '?'} and answers a message in ${'problem' in roundTrip ? '?' : String(roundTrip.sync.median)} us.`,
  );
  if (!('problem' in pci)) print(`PCI class: ${pci.class}`);
  const sizes = regions.flatMap((region) =>
    'problem' in region || region.size === 0 ? [] : [`${region.name} ${formatSize(region.size)}`],
  );
  print(`Regions: ${sizes.join(', ')}`);
  if (nvme !== null && !('problem' in nvme)) {
    print(
      `Its registers say: NVMe ${nvme.version}, queues of up to ${nvme.capabilities.maxQueueEntries} entries.`,
    );
    print(
      nvme.doorbellsMappable
        ? 'Its doorbells can be mapped: a command is submitted by a plain store to shared memory, without any message.'
        : 'Its doorbells are written by message.',
    );
  }
}

async function identify(device: VfioUserDevice): Promise<void> {
  await using controller = await NvmeController.attach(device);
  const { memory } = controller.arena;
  print(`${formatSize(memory.size)} of memory for queues and data are shared with the device.`);
  const { mn, sn } = controller.identify;
  print(printable(`Enabled and identified: ${mn}, serial number ${sn}`));
  for (const { id, size, blockSize } of controller.namespaces) {
    print(`Namespace ${id}: ${formatSize(size)} in blocks of ${blockSize} bytes`);
  }
}

async function measure(
  device: VfioUserDevice,
  options: WorkloadOptions,
  signal: AbortSignal,
): Promise<Measured> {
  signal.throwIfAborted();
  const line = new LiveLine(process.stderr, { groups: [options] });
  try {
    const result = await benchmark([device], [options], {
      targetPids: [device.serverPid],
      signal,
      onProgress: (progress) => {
        line.update(progress);
      },
    });
    if (result.failure !== undefined) throw result.failure;
    const [part] = result.parts;
    return { ...mergeResults(part?.jobs ?? []), doubts: part?.doubts ?? [] };
  } finally {
    line.clear();
  }
}

function rates(result: JobResult): string {
  const all = allDirections(result);
  const latency = latencyOf(all);
  const percentiles = `p50 ${formatLatency(latency.percentile(50))}, p99 ${formatLatency(latency.percentile(99))}`;
  return `${formatCount(Math.round(iops(all)))} IOPS, ${formatBandwidth(bandwidth(all))}, ${percentiles}`;
}
