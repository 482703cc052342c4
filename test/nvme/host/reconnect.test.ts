// SPDX-License-Identifier: MIT
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, type VfioUserDevice } from '../../../lib/client';
import { NvmOpcode } from '../../../lib/nvme';
import {
  NvmeController,
  NvmeStatusError,
  type NvmeAttachOptions,
  type NvmeControllerEvents,
  type QueueLoss,
} from '../../../lib/nvme/host';
import { childServer, type ChildServer } from '../../client/child-server';
import { QUICK } from '../../client/reconnect-support';
import { atEnd, until } from '../../client/support';
import { failure, rejection } from '../../support/errors';

const BLOCK = 512;

/** A drive in a file, served by a process of its own that is killed and started again. */
class Drive {
  readonly socket: string;
  readonly file: string;
  /** Options of the controller, as source. */
  options = '';
  #server: ChildServer | null = null;

  constructor(blocks = 2048) {
    const directory = mkdtempSync(join(tmpdir(), 'vfio-user-drive-'));
    this.socket = join(directory, 'cntrl');
    this.file = join(directory, 'drive');
    writeFileSync(this.file, new Uint8Array(blocks * BLOCK));
    atEnd(async () => {
      await this.kill();
      rmSync(directory, { recursive: true });
    });
  }

  async start(): Promise<void> {
    this.#server = await childServer(
      `
        const backend = createBackend({ kind: 'file', path: ${JSON.stringify(this.file)} });
        return new NvmeControllerModel({ backend, ${this.options} });
      `,
      { TEST_SOCKET: this.socket },
    );
  }

  /** The process stops, and answers nothing. */
  stop(): void {
    this.#server?.process.kill('SIGSTOP');
  }

  async kill(): Promise<void> {
    await this.#server?.kill();
  }

  async restart(): Promise<void> {
    await this.kill();
    await this.start();
  }
}

interface World {
  readonly drive: Drive;
  readonly device: VfioUserDevice;
  readonly nvme: NvmeController;
}

async function world(attach: NvmeAttachOptions = {}, drive = new Drive()): Promise<World> {
  await drive.start();
  const device = await connect(drive.socket, { reconnect: QUICK });
  atEnd(() => device.close());
  const nvme = await NvmeController.attach(device, attach);
  atEnd(() => nvme.close());
  return { drive, device, nvme };
}

/** The next event of a name. */
function next<Name extends keyof NvmeControllerEvents>(
  nvme: NvmeController,
  name: Name,
): Promise<NvmeControllerEvents[Name]> {
  return new Promise((resolve) => {
    nvme.once(name, ((...args: NvmeControllerEvents[Name]) => {
      resolve(args);
    }) as never);
  });
}

/** Kills the server, starts another, and waits until the controller is up again. */
async function lose({ drive, nvme }: World): Promise<QueueLoss> {
  const lost = next(nvme, 'disconnect');
  const back = next(nvme, 'reconnect');
  await drive.restart();
  const [error, loss] = await lost;
  expect(error).toMatchObject({ code: 'ERR_VFIO_USER_DISCONNECTED' });
  const [{ gap }] = await back;
  expect(gap).toBeGreaterThan(0);
  return loss;
}

test('an idle drive comes back: queues, namespaces and memory go on, and admin commands too', async () => {
  const all = await world();
  const { device, nvme } = all;
  const [ns] = nvme.namespaces;
  const memory = await device.dma.allocate(4096);
  const bytes = new Uint8Array(memory.buffer);
  await ns!.write(memory, { lba: 0, blocks: 8 });
  bytes.fill(0x5a);
  await ns!.write(memory, { lba: 8, blocks: 8 });
  const queue = await nvme.createIoQueue(4);
  await lose(all);
  bytes.fill(0);
  await ns!.read(memory, { lba: 8, blocks: 8 });
  expect(bytes.every((byte) => byte === 0x5a)).toBe(true);
  await ns!.read(memory, { lba: 0, blocks: 8, queue });
  expect(bytes.every((byte) => byte === 0)).toBe(true);
  await expect(nvme.admin.identifyController()).resolves.toMatchObject({ sn: nvme.identify.sn });
});

test.each([
  ['none', { [NvmOpcode.read]: false, [NvmOpcode.write]: false }],
  ['reads', { [NvmOpcode.read]: true, [NvmOpcode.write]: false }],
  ['reads-and-writes', { [NvmOpcode.read]: true, [NvmOpcode.write]: true }],
] as const)('resubmit %s: commands in flight', async (resubmit, repeats) => {
  const { drive, device, nvme } = await world({ resubmit });
  const memory = await device.dma.allocate(4096);
  const queue = await nvme.createIoQueue(8);
  drive.stop();
  const opcodes = [NvmOpcode.read, NvmOpcode.write];
  const outcomes = opcodes.map((opcode) => queue.submit(opcode, 1, 0, 7, memory.iova, 4096));
  const flush = queue.submit(NvmOpcode.flush, 1, 0, 0, 0, 0);
  const settled = Promise.allSettled([...outcomes, flush]);
  expect(queue.outstanding).toBe(3);
  const lost = next(nvme, 'disconnect');
  await drive.restart();
  const [, loss] = await lost;
  const resubmitted = Object.values(repeats).filter(Boolean).length;
  expect(loss).toEqual({ failed: 3 - resubmitted, resubmitted });
  const results = await settled;
  opcodes.forEach((opcode, index) => {
    expect(results[index]!.status).toBe(repeats[opcode] ? 'fulfilled' : 'rejected');
  });
  expect(results[2]).toMatchObject({ status: 'rejected', reason: { code: 'ERR_VFIO_USER_DISCONNECTED' } });
});

test('a policy that there is not is refused, and leaves nothing behind', async () => {
  const drive = new Drive();
  await drive.start();
  const device = await connect(drive.socket, { reconnect: QUICK });
  atEnd(() => device.close());
  await expect(NvmeController.attach(device, { resubmit: 'all' as never })).rejects.toThrow(
    'There is no resubmit all: none, reads or reads-and-writes',
  );
  expect(device.listenerCount('disconnect')).toBe(0);
  await (await NvmeController.attach(device)).close();
  expect(device.listenerCount('disconnect')).toBe(0);
});

test('commands that are submitted while the drive is away wait for it, more than the queue holds', async () => {
  const { drive, device, nvme } = await world();
  const memory = await device.dma.allocate(4096);
  const queue = await nvme.createIoQueue(2);
  const lost = next(nvme, 'disconnect');
  await drive.kill();
  await lost;
  const reads = Array.from({ length: 7 }, () => queue.submit(NvmOpcode.read, 1, 0, 7, memory.iova, 4096));
  expect(queue.outstanding).toBe(0);
  await expect(nvme.admin.identifyController()).rejects.toMatchObject({ code: 'ERR_VFIO_USER_DISCONNECTED' });
  await drive.start();
  await Promise.all(reads);
});

test('a flush fails once when acknowledged writes may be lost, and not when they were flushed', async () => {
  const all = await world();
  const { device, nvme } = all;
  const [ns] = nvme.namespaces;
  const memory = await device.dma.allocate(4096);
  await ns!.write(memory, { lba: 0, blocks: 8 });
  await ns!.flush();
  await lose(all);
  await ns!.flush();
  await ns!.write(memory, { lba: 0, blocks: 8 });
  await lose(all);
  await expect(ns!.flush()).rejects.toMatchObject(
    failure('ERR_VFIO_USER_DISCONNECTED', 'after writes that no Flush had covered'),
  );
  await ns!.write(memory, { lba: 0, blocks: 8 });
  await ns!.flush();
});

test('a drive with other data is refused, with what differs', async () => {
  const drive = new Drive();
  drive.options = "serial: 'FIRST'";
  const { nvme } = await world({}, drive);
  const queue = await nvme.createIoQueue(2);
  const closed = next(nvme, 'close');
  drive.options = "serial: 'SECOND'";
  await drive.restart();
  const [error] = await closed;
  expect(error).toMatchObject({ code: 'ERR_VFIO_USER_IDENTITY' });
  expect(error?.message).toContain('sn is SECOND, and was FIRST');
  await expect(queue.submit(NvmOpcode.flush, 1, 0, 0, 0, 0)).rejects.toBe(error);
});

test('a namespace of another size is another drive', async () => {
  const { drive, nvme } = await world();
  const closed = next(nvme, 'close');
  await drive.kill();
  writeFileSync(drive.file, new Uint8Array(64 * BLOCK));
  await drive.start();
  const [error] = await closed;
  expect(error?.message).toMatch(/namespace 1 is 64 blocks of 512 bytes.*, and was 2048 blocks/);
});

test('queue pairs are gone with their controller: they are deleted without a command, and others created', async () => {
  const all = await world();
  const { nvme } = all;
  const before = await nvme.createQueuePair(16);
  await lose(all);
  const after = await nvme.createQueuePair(16);
  // The same id, other memory: a thread may still write to that of the pair before.
  expect(after.placement.id).toBe(before.placement.id);
  expect(after.placement.submissionOffset).not.toBe(before.placement.submissionOffset);
  await before.delete();
  await after.delete();
  const again = await nvme.createQueuePair(16);
  expect([before, after].map(({ placement }) => placement.submissionOffset)).toContain(
    again.placement.submissionOffset,
  );
});

test('interrupts are set up again', async () => {
  const all = await world({ vectors: 2 });
  const { device, nvme } = all;
  const memory = await device.dma.allocate(4096);
  const queue = await nvme.createIoQueue(4);
  await queue.submit(NvmOpcode.read, 1, 0, 7, memory.iova, 4096);
  await lose(all);
  await queue.submit(NvmOpcode.read, 1, 0, 7, memory.iova, 4096);
  await queue.close();
});

test('a drive whose doorbells are messages comes back, also when a doorbell finds that it has gone', async () => {
  const drive = new Drive();
  drive.options = 'mappableDoorbells: false';
  const { device, nvme } = await world({}, drive);
  const memory = await device.dma.allocate(4096);
  const queue = await nvme.createIoQueue(4);
  const back = next(nvme, 'reconnect');
  await drive.kill();
  // The event loop has not had a turn to learn of the end: the blocking doorbell does.
  const read = queue.submit(NvmOpcode.read, 1, 0, 7, memory.iova, 4096);
  await drive.start();
  await read;
  await back;
});

test('a controller that is closed while its drive is away fails what waits, and is not brought up again', async () => {
  const { drive, device, nvme } = await world();
  const memory = await device.dma.allocate(4096);
  const queue = await nvme.createIoQueue(2);
  const lost = next(nvme, 'disconnect');
  await drive.kill();
  await lost;
  const read = rejection(queue.submit(NvmOpcode.read, 1, 0, 7, memory.iova, 4096));
  const closed = next(nvme, 'close');
  await nvme.close();
  expect(await closed).toEqual([null]);
  expect(await read).toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
  await drive.start();
  await until(() => device.state === 'connected');
  await expect(device.region('bar0').then((bar) => bar.read32(0x14))).resolves.toBe(0);
});

test('a queue that is closed while the drive is away is not created again', async () => {
  const { drive, nvme } = await world();
  const queue = await nvme.createIoQueue(2);
  const kept = await nvme.createIoQueue(2);
  const [lost, back] = [next(nvme, 'disconnect'), next(nvme, 'reconnect')];
  await drive.kill();
  await lost;
  await queue.close();
  await drive.start();
  await back;
  await kept.submit(NvmOpcode.flush, 1, 0, 0, 0, 0);
  await expect(queue.submit(NvmOpcode.flush, 1, 0, 0, 0, 0)).rejects.toMatchObject({
    code: 'ERR_VFIO_USER_CLOSED',
  });
});

test('a drive that does not come back in time closes its controller', async () => {
  const drive = new Drive();
  await drive.start();
  const device = await connect(drive.socket, { reconnect: { ...QUICK, deadline: 50 } });
  atEnd(() => device.close());
  const nvme = await NvmeController.attach(device);
  const memory = await device.dma.allocate(4096);
  const queue = await nvme.createIoQueue(2);
  drive.stop();
  const read = rejection(queue.submit(NvmOpcode.read, 1, 0, 7, memory.iova, 4096));
  const closed = next(nvme, 'close');
  await drive.kill();
  const [error] = await closed;
  expect(error?.message).toContain('did not come back within 50 ms');
  expect(await read).toBe(error);
});

test('a copy of a namespace, interrupted ten times on either side, is right', async () => {
  const blocks = 4096;
  const [source, target] = [new Drive(blocks), new Drive(blocks)];
  const content = Uint8Array.from({ length: blocks * BLOCK }, (_, at) => (at * 2654435761) >>> 13);
  writeFileSync(source.file, content);
  const from = await world({ resubmit: 'reads' }, source);
  const to = await world({ resubmit: 'reads-and-writes' }, target);
  const PART = 64;
  let [done, kills] = [0, 0];
  let [sourceLosses, targetLosses] = [0, 0];
  from.nvme.on('disconnect', () => sourceLosses++);
  to.nvme.on('disconnect', () => targetLosses++);
  const copy = async (lane: number, lanes: number): Promise<void> => {
    const [read, write] = await Promise.all(
      [from, to].map(({ device }) => device.dma.allocate(PART * BLOCK)),
    );
    for (let lba = lane * PART; lba < blocks; lba += lanes * PART) {
      await from.nvme.namespace(1).read(read!, { lba, blocks: PART });
      new Uint8Array(write!.buffer).set(new Uint8Array(read!.buffer));
      await to.nvme.namespace(1).write(write!, { lba, blocks: PART });
      done++;
      // The copy goes on when the kill that is due has been made.
      await until(() => kills >= Math.min(10, Math.floor(done / 6)));
    }
  };
  const interrupt = async (): Promise<void> => {
    for (let kill = 0; kill < 10; kill++) {
      await until(() => done >= (kill + 1) * 6);
      await (kill % 2 === 0 ? source : target).restart();
      kills++;
    }
  };
  await Promise.all([interrupt(), ...[0, 1, 2, 3].map((lane) => copy(lane, 4))]);
  expect([sourceLosses, targetLosses]).toEqual([5, 5]);
  const check = await to.device.dma.allocate(PART * BLOCK);
  for (let lba = 0; lba < blocks; lba += PART) {
    await to.nvme.namespace(1).read(check, { lba, blocks: PART });
    expect(Buffer.from(check.buffer).equals(content.subarray(lba * BLOCK, (lba + PART) * BLOCK))).toBe(true);
  }
}, 60_000);

test("an error status is the command's own, before and after", async () => {
  const all = await world();
  const { device, nvme } = all;
  const memory = await device.dma.allocate(4096);
  const queue = await nvme.createIoQueue(2);
  const beyond = () => rejection(queue.submit(NvmOpcode.read, 1, 1 << 20, 7, memory.iova, 4096));
  expect(await beyond()).toBeInstanceOf(NvmeStatusError);
  await lose(all);
  expect(await beyond()).toBeInstanceOf(NvmeStatusError);
});
