// SPDX-License-Identifier: MIT
/**
 * Reads 4 KiB at random with `await namespace.read()`, in so many loops at once, and prints the I/Os per second:
 * `node promise-reads.js ENDPOINT LOOPS WARM_UP_SECONDS SECONDS`.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { connect } from 'vfio-user';
import { NvmeController } from 'vfio-user/nvme';

const BYTES = 4096;

async function main([endpoint = '', loops, warmUp, seconds]: readonly string[]): Promise<void> {
  await using device = await connect(endpoint);
  await using controller = await NvmeController.attach(device);
  const [namespace] = controller.namespaces;
  if (namespace === undefined) throw new Error('there is no namespace');
  const queue = await controller.createIoQueue(Number(loops));
  const blocks = BYTES / namespace.blockSize;
  const places = Math.floor(namespace.blocks / blocks);
  let done = 0;
  let stopped = false;
  const loop = async (): Promise<void> => {
    const buffer = controller.arena.allocate(BYTES);
    while (!stopped) {
      await namespace.read(buffer, { lba: Math.floor(Math.random() * places) * blocks, blocks, queue });
      done++;
    }
  };
  const running = Array.from({ length: Number(loops) }, loop);
  await sleep(Number(warmUp) * 1000);
  const [before, started] = [done, performance.now()];
  await sleep(Number(seconds) * 1000);
  const iops = ((done - before) * 1000) / (performance.now() - started);
  stopped = true;
  await Promise.all(running);
  console.log(iops.toFixed(0));
}

void main(process.argv.slice(2));
