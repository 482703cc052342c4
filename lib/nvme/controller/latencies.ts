// SPDX-License-Identifier: MIT
import { performance } from 'node:perf_hooks';
import { LatencyHistogram } from '../../latency-histogram';
import { NvmOpcode } from '../spec/opcodes';

/** The commands that latencies are told for: Read, Write, Flush, and all other I/O commands. */
export type CommandGroup = 'read' | 'write' | 'flush' | 'other';

/** How long I/O commands took from their fetch to their completion, in nanoseconds. Percentiles are within 1 %. */
export interface LatencySummary {
  /** Commands that were completed, those included that ended with an error. */
  readonly count: number;
  /** Sum of their latencies. */
  readonly sum: number;
  /** Latency that half of them did not exceed; 0 without commands. */
  readonly p50: number;
  /** Latency that 99 % of them did not exceed. */
  readonly p99: number;
  /** The longest latency. */
  readonly max: number;
}

/** Kept here: an imported name is looked up in the exports of its module at each use. */
const clock = performance;

/**
 * How long I/O commands take. Of commands that complete one behind the other, the end of one is the fetch of the next: a reading of
 * the clock for each, which is most of what it costs.
 */
export class Latencies {
  /** By group, in nanoseconds. */
  readonly histograms: Readonly<Record<CommandGroup, LatencyHistogram>> = {
    read: new LatencyHistogram(),
    write: new LatencyHistogram(),
    flush: new LatencyHistogram(),
    other: new LatencyHistogram(),
  };
  /** When the next command is fetched, by `performance.now()`. A field, since numbers that cross a call are boxed. */
  since = 0;
  readonly #byOpcode: readonly LatencyHistogram[];

  constructor() {
    const { read, write, flush, other } = this.histograms;
    const own = new Map<number, LatencyHistogram>([
      [NvmOpcode.read, read],
      [NvmOpcode.write, write],
      [NvmOpcode.flush, flush],
    ]);
    this.#byOpcode = Array.from({ length: 256 }, (_, opcode) => own.get(opcode) ?? other);
  }

  /** Commands are fetched from now on. */
  begin(): void {
    this.since = clock.now();
  }

  /** The command that was fetched last is completed, and the next is fetched. */
  completed(opcode: number): void {
    const now = clock.now();
    (this.#byOpcode[opcode] as LatencyHistogram).record((now - this.since) * 1e6);
    this.since = now;
  }

  /** A command is completed that was fetched at some time. */
  record(opcode: number, since: number): void {
    (this.#byOpcode[opcode] as LatencyHistogram).record((clock.now() - since) * 1e6);
  }

  /** The latencies so far. */
  get summaries(): Readonly<Record<CommandGroup, LatencySummary>> {
    const { read, write, flush, other } = this.histograms;
    return { read: summary(read), write: summary(write), flush: summary(flush), other: summary(other) };
  }
}

function summary(histogram: LatencyHistogram): LatencySummary {
  const { count, sum, max } = histogram;
  return { count, sum, p50: histogram.percentile(50), p99: histogram.percentile(99), max };
}
