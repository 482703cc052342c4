// SPDX-License-Identifier: MIT
/** Many connections of one process, one after the other, over dist/. The environment variable CYCLES says how many. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { childController } from '../client/child-server';
import { dist } from '../dist';

const CYCLES = Number(process.env['CYCLES'] ?? 200);
const WARM_UP = 50;
/** Of resident memory after the warm-up, in MiB. The young generation of the heap, which grows with time, is kept small. */
const GROWTH = 16;

jest.setTimeout(20_000 + CYCLES * 200);

interface Figures {
  readonly fds: number;
  readonly mappings: number;
  readonly listeners: number;
  /** MiB */
  readonly rss: number;
}

test(`${CYCLES} cycles of connecting, driving and closing leave nothing behind`, async () => {
  const server = await childController();
  const script = `
    const fs = require('node:fs');
    const { connect } = require(${JSON.stringify(dist)});
    const { NvmeController } = require(${JSON.stringify(join(dist, 'nvme'))});
    const cycle = async () => {
      const device = await connect(${JSON.stringify(server.path)});
      const area = (await device.region('bar0')).map(0x1000, 0x1000);
      const memory = await device.dma.allocate(1 << 16);
      const nvme = await NvmeController.attach(device, { vectors: 2 });
      await nvme.namespace(1).read(memory, { lba: 0, blocks: 128 });
      if (area.buffer.byteLength !== 0x1000) throw new Error('the doorbells are not mapped');
      await nvme.close();
      await device.close();
    };
    const figures = async () => {
      // What was closed in this turn of the event loop is closed by libuv at its end.
      for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
      gc();
      return {
        fds: fs.readdirSync('/proc/self/fd').length,
        mappings: fs.readFileSync('/proc/self/maps', 'utf8').split('\\n').filter((line) => line.includes('memfd:')).length,
        listeners: process.listenerCount('exit'),
        rss: process.memoryUsage.rss() / 2 ** 20,
      };
    };
    (async () => {
      for (let index = 0; index < ${WARM_UP}; index++) await cycle();
      const before = await figures();
      for (let index = 0; index < ${CYCLES}; index++) await cycle();
      const after = await figures();
      // The first use of stdout takes a descriptor.
      process.stdout.write(JSON.stringify([before, after]));
    })();`;
  const client = spawn(process.execPath, ['--expose-gc', '--max-semi-space-size=1', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let text = '';
  client.stdout.setEncoding('utf8').on('data', (part: string) => (text += part));
  const [code] = (await once(client, 'close')) as [number | null];
  expect(code).toBe(0);
  const [before, after] = JSON.parse(text) as [Figures, Figures];
  expect({ ...after, rss: 0 }).toEqual({ ...before, rss: 0 });
  expect(after.rss - before.rss).toBeLessThan(GROWTH);
});
