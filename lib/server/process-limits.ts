// SPDX-License-Identifier: MIT
import { readFileSync } from 'node:fs';

/**
 * What clients may take of the limits of this process. They are shared by the clients of all its servers, and leave room for
 * the process to go on: V8 ends it when it gets no mapping, and without a descriptor no client can be accepted.
 */
export interface ProcessLimits {
  /** So many mappings may be there, or more, and none is made for a client any more. */
  readonly mappings: number;
  /**
   * A descriptor of a client with this number, or a greater one, is not kept. The kernel gives the lowest number that is
   * free, so that the number tells how many are open.
   */
  readonly descriptors: number;
}

/** vm.max_map_count of a stock kernel. */
const DEFAULT_MAP_COUNT = 65530;
/** Half of the slots of the SIGBUS guard (native/bus-error-guard.cc); the others are for mappings of our own. */
const GUARDED = 32768;

/** Reads the limits of the system. */
export function readProcessLimits(): ProcessLimits {
  const mapCount = Number(read('/proc/sys/vm/max_map_count')) || DEFAULT_MAP_COUNT;
  const openFiles = Number(/^Max open files +(\d+)/m.exec(read('/proc/self/limits'))?.[1] ?? Infinity);
  return {
    // A quarter is left to the process. A mapping whose file is truncated becomes two.
    mappings: Math.min(Math.floor((mapCount * 3) / 4 / 2), GUARDED),
    descriptors: Math.floor((openFiles * 3) / 4),
  };
}

function read(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return ''; // No /proc.
  }
}
