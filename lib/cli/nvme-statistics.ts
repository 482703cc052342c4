// SPDX-License-Identifier: MIT
import { formatLatency, formatSize } from '../bench/units';
import type { NvmeControllerModel } from '../nvme/controller';
import type { NvmeServer } from './nvme-server';

/** What the controllers have done so far, for people: some lines for each. */
export function statisticsText(servers: readonly NvmeServer[]): string {
  return servers.map(controllerText).join('\n');
}

function controllerText({ socket, model }: NvmeServer): string {
  const { statistics, namespaces, fault } = model;
  const { adminCommands, errors, interrupts, slowCommands, badDoorbells, resets } = statistics;
  return [
    `${socket}: ${list([
      [adminCommands, 'admin commands'],
      [errors, 'errors'],
      [interrupts, 'interrupts'],
      [slowCommands, 'slow commands'],
      [badDoorbells, 'bad doorbells'],
      [resets, 'resets'],
    ])}${fault === null ? '' : `; stopped: ${fault}`}`,
    ...namespaces.map(({ nsid, kind, size, statistics: counts }) => {
      const { readCommands, writeCommands, otherCommands, bytesRead, bytesWritten, bytesZeroed } = counts;
      return (
        `  namespace ${nsid} (${kind}, ${formatSize(size)}): reads ${readCommands} (${formatSize(bytesRead)}), ` +
        `writes ${writeCommands} (${formatSize(bytesWritten)}), others ${otherCommands}, ` +
        `zeroed ${formatSize(bytesZeroed)}, errors ${counts.errors}`
      );
    }),
    ...latencyLines(model),
  ].join('\n');
}

/** A line for each group of commands that there were any of. */
function latencyLines({ latencies }: NvmeControllerModel): string[] {
  return Object.entries(latencies ?? {})
    .filter(([, { count }]) => count > 0)
    .map(
      ([group, { count, p50, p99, max }]) =>
        `  latency of ${group}: p50 ${formatLatency(p50)}, p99 ${formatLatency(p99)}, max ${formatLatency(max)} (${count} commands)`,
    );
}

function list(counts: readonly (readonly [count: number, what: string])[]): string {
  return counts.map(([count, what]) => `${what} ${count}`).join(', ');
}
