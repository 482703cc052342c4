// SPDX-License-Identifier: MIT
import { arch, cpus, release, type } from 'node:os';
import type { Remark } from '../bench/html-page';
import { htmlReport, type Facts } from '../bench/html-report';
import { formatSize } from '../bench/units';
import type { FinishedRun, MeasuredPart } from './finished-run';
import { remarks } from './bench-remarks';
import { packageVersion } from './version';

/** A run as a page of HTML. */
export function pageText(run: FinishedRun, percentiles: readonly number[] | undefined): string {
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
