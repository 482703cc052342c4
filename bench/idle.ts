// SPDX-License-Identifier: MIT
/**
 * Measures what idle controllers cost: many emulated ones in one process, each with a client that has enabled it and does
 * nothing. `npm run bench:idle -- [--controllers N,…] [--seconds N] [--json FILE]`.
 */
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { connect, type VfioUserDevice } from 'vfio-user';
import { NvmeController } from 'vfio-user/nvme';
import type { Usage } from './idle-server';

/** Most of a processor that all of them may take together. */
const MOST_PROCESSOR = 0.05;
/** Memory that each client shares with its controller: enough for an admin queue and an I/O queue. */
const ARENA = 64 << 10;
/** Milliseconds in which all controllers fall asleep: they look the more rarely the longer nothing was to do. */
const SETTLE = 2000;

interface Row {
  readonly controllers: number;
  /** Share of one processor, 0 to 1. */
  readonly processor: number;
  /** Bytes of resident memory for each controller. */
  readonly memory: number;
}

async function usageOf(server: ChildProcess): Promise<Usage> {
  const answer = once(server, 'message');
  server.send('usage');
  const [usage] = (await answer) as [Usage];
  return usage;
}

async function attached(path: string): Promise<VfioUserDevice> {
  const device = await connect(path, { dma: { hugePages: 'never' } });
  const controller = await NvmeController.attach(device, { arenaSize: ARENA });
  await controller.createIoQueue(32);
  return device;
}

async function measure(controllers: number, seconds: number): Promise<Row> {
  const prefix = `@vfio-user-idle-${process.pid}-${controllers}`;
  const server = fork(join(__dirname, 'idle-server.js'), [String(controllers), prefix]);
  const ended = once(server, 'exit');
  const devices: VfioUserDevice[] = [];
  try {
    await once(server, 'message');
    const { memory } = await usageOf(server);
    for (let index = 0; index < controllers; index++) devices.push(await attached(`${prefix}-${index}`));
    await sleep(SETTLE);
    const before = await usageOf(server);
    const start = performance.now();
    await sleep(seconds * 1000);
    const after = await usageOf(server);
    const processor = (after.processor - before.processor) / (performance.now() - start);
    return { controllers, processor, memory: (after.memory - memory) / controllers };
  } finally {
    for (const device of devices) await device.close();
    server.disconnect();
    await ended;
  }
}

function numberOf(name: string, text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1)
    throw new Error(`--${name} takes numbers from 1 on, got ${text}`);
  return value;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      controllers: { type: 'string', default: '1,100,300,1000' },
      seconds: { type: 'string', default: '10' },
      json: { type: 'string' },
    },
  });
  const counts = values.controllers.split(',').map((text) => numberOf('controllers', text));
  const seconds = numberOf('seconds', values.seconds);
  const rows: Row[] = [];
  console.log('controllers | processor | memory each');
  for (const count of counts) {
    const row = await measure(count, seconds);
    rows.push(row);
    const cells = [
      String(count).padStart(11),
      `${(row.processor * 100).toFixed(1)} %`.padStart(9),
      `${(row.memory / 1024).toFixed(0)} KiB`.padStart(11),
    ];
    console.log(cells.join(' | '));
  }
  if (values.json !== undefined) writeFileSync(values.json, JSON.stringify(rows, null, 2));
  if (rows.some(({ processor }) => processor > MOST_PROCESSOR)) {
    console.log(`too much: more than ${MOST_PROCESSOR * 100} % of a processor`);
    process.exitCode = 1;
  }
}

main().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  process.exit(1);
});
