// SPDX-License-Identifier: MIT
import type { BenchmarkProgress } from '../bench/benchmark';
import { LiveLine, formatLiveLine, statusLetter, type LiveStream } from '../bench/live-line';
import { writes, type Workload } from '../bench/plan';

/** What the status line needs to know of a run. */
export interface DisplayedRun {
  readonly rw: Workload;
  /** Bytes of an I/O. */
  readonly bs: number;
  readonly numjobs: number;
  readonly verify: boolean;
}

/** The status line of a benchmark, on a terminal only. */
export class BenchDisplay {
  readonly #line: LiveLine;
  readonly #run: DisplayedRun;

  constructor(stream: LiveStream, run: DisplayedRun) {
    this.#line = new LiveLine(stream);
    this.#run = run;
  }

  update({ readIops, writeIops, part, secondsLeft, phase }: BenchmarkProgress): void {
    const verifying = phase === 'verify';
    const { rw, bs, numjobs } = this.#run;
    const rate = (iops: number): { iops: number; bytesPerSecond: number } => ({
      iops,
      bytesPerSecond: iops * bs,
    });
    const reads = verifying || rw.endsWith('read') || rw === 'randrw';
    this.#line.update(
      formatLiveLine({
        jobs: numjobs,
        letter: verifying ? 'V' : statusLetter(rw),
        progress: part,
        read: reads ? rate(readIops) : undefined,
        write: writes(rw) && !verifying ? rate(writeIops) : undefined,
        etaSeconds: secondsLeft,
      }),
    );
  }

  /** Takes the line away. Idempotent. */
  clear(): void {
    this.#line.clear();
  }
}
