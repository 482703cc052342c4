// SPDX-License-Identifier: MIT
/** Against a controller in another process, over dist/: what blocks, what dies. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { connect, type VfioUserDevice } from '../../../lib/client';
import { NvmeController } from '../../../lib/nvme/host';
import { childController, type ChildServer } from '../../client/child-server';
import { atEnd } from '../../client/support';
import { dist } from '../../dist';

async function open(
  server: ChildServer,
  vectors = 0,
): Promise<{ device: VfioUserDevice; nvme: NvmeController }> {
  const device = await connect(server.path);
  atEnd(() => device.close());
  return { device, nvme: await NvmeController.attach(device, { vectors }) };
}

/** CC.SHN, bits 15:14, of what CC was last set to other than 0 (NVMe base 2.0, 3.1.3.5). */
const NORMAL_SHUTDOWN = 0x0046_4001;

test.each([
  ['mapped doorbells', '', 0],
  ['doorbells by message', 'mappableDoorbells: false', 0],
  ['doorbells by message and a stride', 'mappableDoorbells: false, dstrd: 3', 0],
  ['mapped doorbells with a stride', 'dstrd: 4', 0],
  ['interrupts', '', 4],
])('%s', async (_what, options, vectors) => {
  const { device, nvme } = await open(await childController(options), vectors);
  expect(nvme.mappedDoorbells).toBe(!options.includes('mappableDoorbells'));
  const memory = await device.dma.allocate(1 << 20);
  const bytes = new Uint8Array(memory.buffer).fill(0x5c);
  const ns = nvme.namespace(1);
  await ns.write(memory, { lba: 8, blocks: 2048 });
  await ns.flush();
  bytes.fill(0);
  await Promise.all(
    Array.from({ length: 200 }, (_, index) =>
      ns.read(memory, { lba: 8 + index, blocks: 1, offset: index * 512 }),
    ),
  );
  expect(bytes.subarray(0, 200 * 512).every((byte) => byte === 0x5c)).toBe(true);
  await nvme.close();
});

test.each([
  ['mapped doorbells', '', 0],
  ['doorbells by message', 'mappableDoorbells: false', 0],
  ['interrupts', '', 2],
])('a server that is killed during I/O, with %s', async (_what, options, vectors) => {
  const server = await childController(options);
  const { device, nvme } = await open(server, vectors);
  const memory = await device.dma.allocate(4096);
  const ns = nvme.namespace(1);
  await ns.read(memory, { lba: 0, blocks: 1 });
  const event = expect(nvme.admin.command({ opcode: 0x0c })).rejects.toMatchObject({
    code: 'ERR_VFIO_USER_DISCONNECTED',
  });
  await new Promise((resolve) => setImmediate(resolve));
  // What is submitted now is not completed: the server does not run any more.
  if (options === '') server.process.kill('SIGSTOP');
  const gone = Promise.all(
    Array.from({ length: 100 }, (_, index) =>
      options === ''
        ? expect(ns.read(memory, { lba: index, blocks: 1 })).rejects.toMatchObject({
            code: 'ERR_VFIO_USER_DISCONNECTED',
          })
        : ns.read(memory, { lba: index, blocks: 1 }).catch((error: unknown) => {
            expect(error).toMatchObject({ code: 'ERR_VFIO_USER_DISCONNECTED' });
          }),
    ),
  );
  const closed = once(device, 'close');
  await server.kill();
  await Promise.all([gone, event, closed]);
  await expect(ns.read(memory, { lba: 0, blocks: 1 })).rejects.toMatchObject({
    code: 'ERR_VFIO_USER_DISCONNECTED',
  });
  await nvme.close();
  await device.close();
});

describe('a process that ends with the controller up shuts it down', () => {
  test.each([
    ['process.exit', 'process.exit(3);', 3],
    ['an exception', 'setImmediate(() => { throw new Error("on purpose"); });', 1],
    ['a rejection that nobody handles', 'void Promise.reject(new Error("on purpose"));', 1],
    ['an orderly close', '', 0],
  ])('%s', async (_what, end, status) => {
    const server = await childController();
    const script = `
      const { connect } = require(${JSON.stringify(dist)});
      const { NvmeController } = require(${JSON.stringify(join(dist, 'nvme'))});
      (async () => {
        const device = await connect(${JSON.stringify(server.path)});
        const nvme = await NvmeController.attach(device);
        const memory = await device.dma.allocate(4096);
        await nvme.namespace(1).read(memory, { lba: 0, blocks: 1 });
        console.log('up');
        ${end === '' ? 'await nvme.close(); await device.close();' : end}
      })();`;
    const client = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'ignore'] });
    const [code] = (await once(client, 'exit')) as [number | null];
    expect(code).toBe(status);
    expect(await server.ask('cc')).toBe(end === '' ? 0 : NORMAL_SHUTDOWN);
  });
});
