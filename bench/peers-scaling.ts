// SPDX-License-Identifier: MIT
import { median } from './statistics';
import { runOurs, type Endpoints, type Measured, type Workload } from './peers-clients';

/** One measurement of `vfio-user bench`. */
export interface ScalingRow {
  readonly what: string;
  readonly workload: Workload;
  readonly endpoints: number;
  /** Medians. */
  readonly measured: Measured;
}

/** How rate, latency and processor time grow with queue depth, block size, queue pairs and endpoints. */
export function measureScaling(endpoints: Endpoints, rounds: number, seconds: number): ScalingRow[] {
  const { malloc, null: nothing } = endpoints;
  const base: Workload = { rw: 'randread', blockSize: 4096, depth: 32 };
  const rows: ScalingRow[] = [];
  const measure = (what: string, paths: readonly string[], changes: Partial<Workload>): void => {
    const workload = { ...base, ...changes };
    const all = Array.from({ length: rounds }, () => runOurs(paths, workload, seconds));
    const of = (pick: (each: Measured) => number): number => median(all.map(pick));
    const measured = { iops: of((m) => m.iops), p999: of((m) => m.p999), cpu: of((m) => m.cpu) };
    rows.push({ what, workload, endpoints: paths.length, measured });
    const rate = `${measured.iops.toFixed(0).padStart(10)} IOPS`;
    const bandwidth = `${((measured.iops * workload.blockSize) / 2 ** 20).toFixed(0).padStart(7)} MiB/s`;
    const latency = `p99.9 ${measured.p999.toFixed(1).padStart(8)} us`;
    console.log(
      `${what.padEnd(34)}${rate}${bandwidth}  ${latency}  ${measured.cpu.toFixed(2).padStart(7)} us of CPU per I/O`,
    );
  };
  for (const [name, { path }] of [
    ['null', nothing],
    ['malloc', malloc],
  ] as const) {
    for (const depth of [1, 2, 4, 8, 16, 32, 64, 128, 255])
      measure(`${name}, depth ${depth}`, [path], { depth });
    for (const blockSize of [512, 4096, 16384, 65536, 131072])
      measure(`${name}, block size ${blockSize}`, [path], { blockSize });
    for (const jobs of [1, 2, 4]) measure(`${name}, queue pairs ${jobs}`, [path], { jobs });
  }
  measure('null and malloc together', [nothing.path, malloc.path], {});
  return rows;
}
