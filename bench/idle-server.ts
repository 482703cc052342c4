// SPDX-License-Identifier: MIT
// idle-server COUNT PREFIX: the process that bench/idle.ts measures: COUNT emulated controllers, each at a socket of its own.
import { NvmeControllerModel, createBackend } from 'vfio-user/nvme';
import { serve, type Server } from 'vfio-user/server';

/** What a process has used so far. */
export interface Usage {
  /** Milliseconds of processor time, of all threads. */
  readonly processor: number;
  /** Bytes of resident memory. */
  readonly memory: number;
}

async function main([count = '0', prefix = '']: readonly string[]): Promise<void> {
  const servers: Server[] = [];
  for (let index = 0; index < Number(count); index++) {
    const model = new NvmeControllerModel({ backend: createBackend({ kind: 'null', size: 2 ** 30 }) });
    servers.push(await serve(`${prefix}-${index}`, model));
  }
  process.on('message', () => {
    const { user, system } = process.cpuUsage();
    const usage: Usage = { processor: (user + system) / 1000, memory: process.memoryUsage.rss() };
    process.send?.(usage);
  });
  process.once('disconnect', () => {
    process.exit();
  });
  process.send?.(servers.length);
}

void main(process.argv.slice(2));
