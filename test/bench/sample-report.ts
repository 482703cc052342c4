// SPDX-License-Identifier: MIT
import type { HtmlReportInput } from '../../lib/bench/html-report';
import { LatencyHistogram } from '../../lib/latency-histogram';
import type { DirectionResult, JobResult, ReportPart } from '../../lib/bench/job-result';
import { sampleJob, sampleSeries } from './sample-job';

/** A direction with a long tail: 100000 I/Os around a latency in ns, ten of them a thousand times slower; in 10 s. */
export function tailedDirection(ns: number): DirectionResult {
  const latency = new LatencyHistogram();
  for (let step = 0; step < 100; step++) latency.recordMany(ns * (1 + step / 100), 1000);
  latency.recordMany(ns * 1000, 10);
  const iopsSamples = Array.from({ length: 20 }, (_, index) => 10_000 + 100 * index);
  return {
    ios: latency.count,
    bytes: latency.count * 4096,
    runtimeMs: 10_000,
    latency: latency.data,
    samples: sampleSeries(iopsSamples),
  };
}

/** A part of a report. */
export function samplePart(
  fields: Partial<JobResult>,
  target = '/run/cntrl, namespace 1',
  name = 'bench',
): ReportPart {
  return {
    name,
    target,
    options: { rw: 'randrw', bs: '4096', iodepth: '32', numjobs: '1', filename: target },
    result: sampleJob({ runtimeMs: 10_000, ...fields }),
  };
}

/** A report of reads and writes of one endpoint, with some of its fields replaced. */
export function sampleReport(fields: Partial<HtmlReportInput> = {}): HtmlReportInput {
  return {
    program: 'vfio-user 1.2.3',
    started: new Date('2026-01-02T03:04:05.678Z'),
    parts: [samplePart({ read: tailedDirection(8000), write: tailedDirection(20_000) })],
    remarks: [{ kind: 'good', heading: 'Verify', text: '16384 blocks read back, all as written' }],
    ends: [
      {
        title: 'Controller',
        rows: [
          ['Model', 'x'.repeat(40)],
          ['Serial number', `<script>document.title = 'owned'</script>`],
        ],
      },
      { title: 'Host', rows: [['Kernel', 'Linux 6.12.0']] },
    ],
    ...fields,
  };
}
