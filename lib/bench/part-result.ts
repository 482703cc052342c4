// SPDX-License-Identifier: MIT
import type { Gap } from './gap';
import type { JobResult } from './job-result';

/** Who was measured. */
export interface BenchmarkTarget {
  /** Name of the device. */
  readonly endpoint: string;
  readonly model: string;
  readonly serial: string;
  readonly firmware: string;
  /** NVMe version. */
  readonly version: string;
  readonly nsid: number;
  readonly lbaSize: number;
  /** Bytes. */
  readonly capacity: number;
  /** True when doorbells are plain stores, false when each is a message. */
  readonly mappedDoorbells: boolean;
}

/** What a workload has measured at one endpoint. */
export interface PartResult {
  /** The endpoint and the workload, by their index in what was asked for. */
  readonly endpoint: number;
  readonly workload: number;
  readonly target: BenchmarkTarget;
  readonly jobs: readonly JobResult[];
  /** When the server of the endpoint was away, and came back or was waited for; in the order of their beginning. */
  readonly gaps: readonly Gap[];
  /** Why the figures are not those of the device, and what to do; empty when there is no doubt. */
  readonly doubts: readonly string[];
}
