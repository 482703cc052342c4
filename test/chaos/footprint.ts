// SPDX-License-Identifier: MIT
import { readFileSync, readdirSync, readlinkSync } from 'node:fs';

/** What a process holds. Memory is in bytes. */
export interface Footprint {
  readonly rss: number;
  readonly heap: number;
  /** Memory of ArrayBuffers, mapped ones included. */
  readonly external: number;
  readonly fds: number;
  readonly eventfds: number;
  /** Lines of /proc/PID/maps, and those of shared memory among them. */
  readonly mappings: number;
  readonly shared: number;
}

/** Descriptors and mappings of a process, as the kernel tells. */
export function resourcesOf(pid: number): Pick<Footprint, 'fds' | 'eventfds' | 'mappings' | 'shared'> {
  const folder = `/proc/${pid}/fd`;
  const fds = readdirSync(folder).map((fd) => {
    try {
      return readlinkSync(`${folder}/${fd}`);
    } catch {
      return undefined; // It was closed meanwhile, as that of readdir itself.
    }
  });
  const open = fds.filter((target) => target !== undefined);
  const maps = readFileSync(`/proc/${pid}/maps`, 'utf8').trimEnd().split('\n');
  return {
    fds: open.length,
    eventfds: open.filter((target) => target === 'anon_inode:[eventfd]').length,
    mappings: maps.length,
    shared: maps.filter((line) => line.includes('memfd:') || /^\S+ ...s/.test(line)).length,
  };
}

const MIB = 2 ** 20;

export const FOOTPRINT_HEADER = 'RSS MiB  heap MiB  ext MiB   fds  eventfds  maps  shared';

/** As a line under {@link FOOTPRINT_HEADER}. */
export function footprintText({ rss, heap, external, fds, eventfds, mappings, shared }: Footprint): string {
  const mib = (bytes: number): string => (bytes / MIB).toFixed(1);
  const cells: [string, number][] = [
    [mib(rss), 7],
    [mib(heap), 10],
    [mib(external), 9],
    [String(fds), 6],
    [String(eventfds), 10],
    [String(mappings), 6],
    [String(shared), 8],
  ];
  return cells.map(([text, width]) => text.padStart(width)).join('');
}

/** Collections after which nothing is left that only finalizers hold. */
const COLLECTIONS = 3;

/** What this process holds, after a collection of garbage (`node --expose-gc`). */
export async function ownFootprint(): Promise<Footprint> {
  for (let i = 0; i < COLLECTIONS; i++) {
    gc?.();
    await new Promise(setImmediate);
  }
  const { rss, heapUsed, external } = process.memoryUsage();
  return { rss, heap: heapUsed, external, ...resourcesOf(process.pid) };
}
