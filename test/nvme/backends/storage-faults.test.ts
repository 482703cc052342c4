// SPDX-License-Identifier: MIT
import {
  closeSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type VfioUserDevice, connect } from '../../../lib/client';
import { type IoQueue, NvmeController, type NvmeNamespace, NvmeStatusError } from '../../../lib/nvme/host';
import { type ChildServer, childServer } from '../../client/child-server';
import { testWithCompiler } from '../../lifetime/preloaded-library';
import { FailingStorage } from '../../support/failing-storage';
import { mount, testWithMount, unmount } from '../../support/mount';

const SIZE = 16 << 20;
const BLOCK = 512;
const CAPACITY_EXCEEDED = '00/81';
const WRITE_FAULT = '02/80';
const UNRECOVERED_READ_ERROR = '02/81';

let folder: string;
let disk: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'nvme-'));
  disk = join(folder, 'disk');
});
afterEach(() => {
  rmSync(folder, { recursive: true });
});

/** Serves a file, and drives it. */
class Drive {
  private constructor(
    readonly server: ChildServer,
    readonly device: VfioUserDevice,
    readonly nvme: NvmeController,
    readonly namespace: NvmeNamespace,
    readonly queue: IoQueue,
    readonly memory: Awaited<ReturnType<VfioUserDevice['dma']['allocate']>>,
  ) {}

  static async start(path: string, environment: Record<string, string> = {}): Promise<Drive> {
    const options = JSON.stringify({ kind: 'file', path, size: SIZE });
    const model = `return new NvmeControllerModel({ backend: createBackend(${options}), serial: 'FILE' });`;
    const server = await childServer(model, environment);
    const device = await connect(server.path);
    const nvme = await NvmeController.attach(device);
    const memory = await device.dma.allocate(SIZE);
    const queue = await nvme.createIoQueue(255);
    return new Drive(server, device, nvme, nvme.namespaces[0]!, queue, memory);
  }

  get bytes(): Uint8Array {
    return new Uint8Array(this.memory.buffer);
  }

  /** Writes blocks that are full of `value`, from their own place in the memory. Resolves with the status. */
  write(lba: number, blocks: number, value: number, forceUnitAccess = false): Promise<string> {
    const { memory, queue } = this;
    const offset = lba * BLOCK;
    this.bytes.fill(value, offset, offset + blocks * BLOCK);
    return statusOf(this.namespace.write(memory, { lba, blocks, offset, queue, forceUnitAccess }));
  }

  /** Reads a block. Resolves with the value that it is full of, or the status. */
  async read(lba: number): Promise<number | string> {
    const { memory, queue } = this;
    const status = await statusOf(this.namespace.read(memory, { lba, blocks: 1, queue }));
    const block = this.bytes.slice(0, BLOCK);
    if (status !== '00/00') return status;
    return block.every((byte) => byte === block[0]) ? block[0]! : 'torn';
  }

  flush(): Promise<string> {
    return statusOf(this.namespace.flush(this.queue));
  }

  /** Closes the connection and kills the server. */
  async stop(): Promise<void> {
    await this.nvme.close();
    await this.device.close();
    await this.server.kill();
  }
}

async function statusOf(command: Promise<void>): Promise<string> {
  try {
    await command;
    return '00/00';
  } catch (error) {
    if (!(error instanceof NvmeStatusError)) throw error;
    return [error.sct, error.sc].map((code) => code.toString(16).padStart(2, '0')).join('/');
  }
}

/** The value that each of `blocks` blocks of the file is full of. */
function inFile(lba: number, blocks: number): number | string {
  const data = new Uint8Array(blocks * BLOCK);
  const fd = openSync(disk, 'r');
  const count = readSync(fd, data, 0, data.length, lba * BLOCK);
  closeSync(fd);
  return count === data.length && data.every((byte) => byte === data[0]) ? data[0]! : 'torn';
}

testWithMount('on a full disk, what is acknowledged is in the file, and what fails fails alone', async () => {
  const COMMANDS = 200;
  const BLOCKS = 128; // 64 KiB a command, 12.5 MiB in all.
  expect(mount(folder, 'tmpfs', 8 << 20)).toBe(true);
  try {
    writeFileSync(join(folder, 'other'), new Uint8Array(5 << 20));
    const drive = await Drive.start(disk);
    const statuses = await Promise.all(
      Array.from({ length: COMMANDS }, (_, i) => drive.write(i * BLOCKS, BLOCKS, i + 1)),
    );
    const isWritten = statuses.map((status) => status === '00/00');
    isWritten.forEach((written, i) => {
      if (written) expect(inFile(i * BLOCKS, BLOCKS)).toBe(i + 1);
    });
    expect([...new Set(statuses)].sort()).toEqual(['00/00', CAPACITY_EXCEEDED]);
    // What has its place already is written on, and nothing that was acknowledged is missing.
    const first = isWritten.indexOf(true);
    const failed = isWritten.lastIndexOf(false);
    expect(await drive.write(first * BLOCKS, BLOCKS, 250)).toBe('00/00');
    expect(await drive.flush()).toBe('00/00');
    expect(await drive.write(failed * BLOCKS, BLOCKS, 251)).toBe(CAPACITY_EXCEEDED);
    const [entry] = await drive.nvme.admin.errorLog(1);
    expect(entry).toMatchObject({ lba: BigInt(failed * BLOCKS), nsid: 1 });
    // Room helps at once.
    rmSync(join(folder, 'other'));
    expect(await drive.write(failed * BLOCKS, BLOCKS, 252)).toBe('00/00');
    expect(inFile(failed * BLOCKS, BLOCKS)).toBe(252);
    await drive.stop();
  } finally {
    unmount(folder);
  }
});

test('a file that is truncated fails what is beyond its end, and the flush, and nothing else', async () => {
  const drive = await Drive.start(disk);
  const middle = SIZE / 2 / BLOCK;
  expect(await drive.write(0, 1, 1)).toBe('00/00');
  expect(await drive.write(middle + 8, 1, 2)).toBe('00/00');
  truncateSync(disk, SIZE / 2);
  expect(await drive.read(middle + 8)).toBe(UNRECOVERED_READ_ERROR);
  expect(await drive.write(middle + 16, 1, 3)).toBe(WRITE_FAULT);
  expect(statSync(disk).size).toBe(SIZE / 2);
  expect(await drive.read(0)).toBe(1);
  expect(await drive.write(middle - 1, 1, 4)).toBe('00/00');
  expect(inFile(middle - 1, 1)).toBe(4);
  expect(await drive.flush()).toBe(WRITE_FAULT);
  const log = await drive.nvme.admin.errorLog(3);
  expect(log.map(({ lba }) => lba)).toEqual([0n, BigInt(middle + 16), BigInt(middle + 8)]);
  await drive.stop();
});

/** Starts a drive whose storage fails by plan. */
async function startFailing(storage: FailingStorage): Promise<Drive> {
  return Drive.start(disk, storage.environment);
}

testWithCompiler(
  'a bad sector fails the commands that touch it, and the error log names their blocks',
  async () => {
    using storage = new FailingStorage({ size: SIZE });
    const drive = await startFailing(storage);
    storage.fail('pwrite', 100 * BLOCK);
    storage.fail('pread', 100 * BLOCK);
    expect(await drive.write(96, 8, 1)).toBe(WRITE_FAULT);
    expect(await drive.write(101, 8, 2)).toBe('00/00');
    expect(await drive.read(100)).toBe(UNRECOVERED_READ_ERROR);
    expect(await drive.read(101)).toBe(2);
    expect(await statusOf(drive.namespace.writeZeroes({ lba: 64, blocks: 64, queue: drive.queue }))).toBe(
      WRITE_FAULT,
    );
    expect(await drive.flush()).toBe('00/00');
    const log = await drive.nvme.admin.errorLog(3);
    expect(log.map(({ lba }) => lba)).toEqual([64n, 100n, 96n]);
    storage.heal('pwrite');
    storage.heal('pread');
    expect(await drive.write(96, 8, 3)).toBe('00/00');
    expect(inFile(96, 8)).toBe(3);
    await drive.stop();
  },
);

testWithCompiler(
  'after a failed flush, flush and FUA fail until all that it may have lost is written again',
  async () => {
    using storage = new FailingStorage({ size: SIZE });
    const drive = await startFailing(storage);
    expect(await drive.write(0, 8, 1)).toBe('00/00');
    expect(await drive.flush()).toBe('00/00');
    expect(await drive.write(8, 8, 2)).toBe('00/00');
    expect(await drive.write(100, 1, 3)).toBe('00/00');
    storage.fail('fdatasync');
    expect(await drive.flush()).toBe(WRITE_FAULT);
    storage.heal('fdatasync');
    // The system call succeeds from here on, which proves nothing.
    expect(await drive.flush()).toBe(WRITE_FAULT);
    expect(await drive.write(0, 8, 4)).toBe('00/00');
    expect(await drive.write(200, 1, 5, true)).toBe(WRITE_FAULT);
    expect(await drive.write(8, 8, 6)).toBe('00/00');
    expect(await drive.flush()).toBe(WRITE_FAULT);
    expect(await drive.write(100, 1, 7)).toBe('00/00');
    expect(await drive.flush()).toBe('00/00');
    expect(await drive.write(200, 1, 8, true)).toBe('00/00');
    // What a reset of the controller, and another client, must not forget.
    storage.fail('fdatasync');
    expect(await drive.write(300, 1, 9, true)).toBe(WRITE_FAULT);
    storage.heal('fdatasync');
    await drive.nvme.close();
    await drive.device.close();
    await using device = await connect(drive.server.path);
    const nvme = await NvmeController.attach(device);
    expect(await statusOf(nvme.namespaces[0]!.flush())).toBe(WRITE_FAULT);
    await nvme.close();
  },
);

test('what was acknowledged is there after the server was killed', async () => {
  const ROUNDS = 4;
  const COMMANDS = 100;
  const BLOCKS = 64;
  const expected = new Map<number, number>();
  for (let round = 0; round < ROUNDS; round++) {
    const drive = await Drive.start(disk);
    for (const [lba, value] of expected) expect([lba, await drive.read(lba)]).toEqual([lba, value]);
    let acknowledged = 0;
    let killed: Promise<void> | undefined;
    const one = async (i: number): Promise<void> => {
      const lba = ((i * 37 + round * 11) % COMMANDS) * BLOCKS;
      const value = ((i + round * 50) % 250) + 1;
      // Until it is acknowledged, the old value and the new one are right.
      expected.delete(lba);
      try {
        expect(await drive.write(lba, BLOCKS, value)).toBe('00/00');
        if (i % 8 === 0) expect(await drive.flush()).toBe('00/00');
      } catch (error) {
        if (killed === undefined) throw error;
        return; // The server is gone.
      }
      expected.set(lba, value);
      if (++acknowledged === COMMANDS / 2) killed = drive.server.kill();
    };
    await Promise.all(Array.from({ length: COMMANDS }, (_, i) => one(i)));
    await killed;
    await drive.nvme.close().catch(() => undefined);
    await drive.device.close();
    expect(acknowledged).toBeGreaterThanOrEqual(COMMANDS / 2);
  }
  for (const [lba, value] of expected) expect([lba, inFile(lba, BLOCKS)]).toEqual([lba, value]);
  expect(readFileSync(disk)).toHaveLength(SIZE);
});
