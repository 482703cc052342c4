// SPDX-License-Identifier: MIT
/** Faults on demand, as the driver of this package sees them over a socket. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, type VfioUserDevice } from '../../../lib/client';
import { createBackend } from '../../../lib/nvme/backends';
import { NvmeControllerModel } from '../../../lib/nvme/controller';
import { NvmeController, type NvmeNamespace } from '../../../lib/nvme/host';
import { serve, type Server } from '../../../lib/server';

const folder = mkdtempSync(join(tmpdir(), 'nvme-faults-'));
const path = join(folder, 'socket');
const BLOCK = 512;
let model: NvmeControllerModel;
let server: Server;
let device: VfioUserDevice;
let nvme: NvmeController;
let namespace: NvmeNamespace;
const errors: unknown[] = [];

beforeEach(async () => {
  model = new NvmeControllerModel({ backend: createBackend({ kind: 'memory', size: 1 << 20 }) });
  server = await serve(path, model, { onError: (error) => void errors.push(error) });
  device = await connect(path);
  nvme = await NvmeController.attach(device, { adminTimeout: 1000 });
  namespace = nvme.namespace(1);
});
afterEach(async () => {
  model.faults.clear();
  await nvme.close().catch(() => undefined);
  await device.close();
  await server.close();
  model.close();
  expect(errors.splice(0)).toEqual([]);
});
afterAll(() => {
  rmSync(folder, { recursive: true });
});

async function memoryOf(
  length: number,
  value = 0,
): Promise<[memory: Awaited<ReturnType<typeof device.dma.allocate>>, bytes: Uint8Array]> {
  const memory = await device.dma.allocate(4096);
  const bytes = new Uint8Array(memory.buffer).subarray(0, length);
  bytes.fill(value);
  return [memory, bytes];
}

test('the tenth write fails with Write Fault', async () => {
  model.faults.add('on=write,nth=10,status=write-fault');
  const [memory] = await memoryOf(BLOCK);
  const failed: number[] = [];
  for (let i = 1; i <= 12; i++) {
    await namespace.write(memory, { lba: i, blocks: 1 }).catch((error: unknown) => {
      expect(error).toMatchObject({ code: 'ERR_VFIO_USER_NVME_STATUS', sct: 2, sc: 0x80, doNotRetry: false });
      failed.push(i);
    });
  }
  expect(failed).toEqual([10]);
});

test('reads of the first blocks are late, and others are not held up', async () => {
  const [memory] = await memoryOf(BLOCK);
  model.faults.add('on=read,lba=0-7,delay=200ms');
  const order: string[] = [];
  const late = namespace.read(memory, { lba: 7, blocks: 1 }).then(() => order.push('late'));
  await namespace.read(memory, { lba: 8, blocks: 1 }).then(() => order.push('early'));
  await late;
  expect(order).toEqual(['early', 'late']);
});

test('bits flip on their way, writes are torn and lost, and nobody is told', async () => {
  const [memory, bytes] = await memoryOf(4 * BLOCK, 0xaa);
  const contents = async (): Promise<number[]> => {
    bytes.fill(0);
    await namespace.read(memory, { lba: 0, blocks: 4 });
    return [0, 1, 2, 3].map((block) => bytes[block * BLOCK]!);
  };
  await namespace.write(memory, { lba: 0, blocks: 4 });
  model.faults.add('on=write,nth=1,torn=1');
  model.faults.add('on=write,nth=2,lost');
  bytes.fill(0xbb);
  await namespace.write(memory, { lba: 0, blocks: 4 });
  expect(await contents()).toEqual([0xbb, 0xaa, 0xaa, 0xaa]);
  bytes.fill(0xcc);
  await namespace.write(memory, { lba: 0, blocks: 4 });
  expect(await contents()).toEqual([0xbb, 0xaa, 0xaa, 0xaa]);
  model.faults.add('on=read,count=1,flip');
  await namespace.read(memory, { lba: 1, blocks: 1 });
  expect(bytes.subarray(0, BLOCK).filter((byte) => byte !== 0xaa)).toHaveLength(1);
});

test('an admin command that never completes runs into its time-out', async () => {
  model.faults.add('on=identify,count=1,hang');
  await expect(nvme.admin.identifyController()).rejects.toMatchObject({ code: 'ERR_VFIO_USER_TIMEOUT' });
  expect(model.faults.list()[0]).toMatchObject({ struck: 1 });
});

test('a completion under a wrong id, and one that comes twice', async () => {
  const [memory] = await memoryOf(BLOCK);
  model.faults.add('on=write,nth=1,twice');
  await namespace.write(memory, { lba: 0, blocks: 1 });
  model.faults.add('on=flush,nth=1,cid');
  const ends: unknown[] = [];
  const flush = namespace.flush().then(
    () => ends.push('completed'),
    (error: unknown) => ends.push((error as { code?: string }).code),
  );
  // Its completion lies behind the wrong one, which the driver has seen before.
  await namespace.read(memory, { lba: 0, blocks: 1 });
  expect(model.faults.list().map(({ struck }) => struck)).toEqual([1, 1]);
  expect(ends).toEqual([]);
  await device.close();
  await flush;
  expect(ends).toEqual(['ERR_VFIO_USER_CLOSED']);
});

test('CSTS.CFS ends what is in flight, and all that comes', async () => {
  const [memory] = await memoryOf(BLOCK);
  model.faults.add('on=read,count=1,fatal');
  const closed = new Promise((resolve) => nvme.once('close', resolve));
  const failed = {
    code: 'ERR_VFIO_USER_NVME_CONTROLLER',
    message: expect.stringMatching(/has failed with a fatal error \(CFS, CSTS 0x3\); .*attach to it anew/),
  };
  await expect(namespace.read(memory, { lba: 0, blocks: 1 })).rejects.toMatchObject(failed);
  await expect(namespace.write(memory, { lba: 0, blocks: 1 })).rejects.toMatchObject(failed);
  await expect(nvme.admin.identifyController()).rejects.toMatchObject(failed);
  expect(await closed).toMatchObject(failed);
  expect(model.fault).toBe('a fault was asked for');
  // What it says is true: the device is there, and can be attached to.
  await nvme.close();
  nvme = await NvmeController.attach(device);
  await nvme.namespace(1).read(memory, { lba: 0, blocks: 1 });
});

test('the link is lost', async () => {
  const [memory] = await memoryOf(BLOCK);
  const closed = new Promise((resolve) => device.once('close', resolve));
  model.faults.add('on=read,count=1,disconnect');
  await expect(namespace.read(memory, { lba: 0, blocks: 1 })).rejects.toMatchObject({
    code: 'ERR_VFIO_USER_DISCONNECTED',
  });
  await closed;
});

test('the device is pulled out', async () => {
  model.faults.inject('remove');
  expect(await device.config.read32(0)).toBe(0xffff_ffff);
  const bar = await device.region('bar0');
  expect(await bar.read32(0x1c)).toBe(0xffff_ffff);
  await bar.write32(0x14, 0);
  const gone = { code: 'ERR_VFIO_USER_NVME_CONTROLLER', message: expect.stringContaining('is gone') };
  const [memory] = await memoryOf(BLOCK);
  const read = namespace.read(memory, { lba: 0, blocks: 1 });
  await expect(Promise.all([read, nvme.admin.identifyController()])).rejects.toMatchObject(gone);
  await expect(read).rejects.toMatchObject(gone);
});

test('registers are read late', async () => {
  model.faults.add('register=vs,access=read,delay=100ms');
  const bar = await device.region('bar0');
  const begin = performance.now();
  await bar.read32(8);
  expect(performance.now() - begin).toBeGreaterThanOrEqual(99);
});
