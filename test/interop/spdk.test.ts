// SPDX-License-Identifier: MIT
/** Against a real SPDK target, and SPDK's clients against our controller. Set SPDK_DIR to a built SPDK. */
import { execFile, spawn } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { once } from 'node:events';
import { checkBlock } from '../../lib/bench/verify-pattern';
import { connect } from '../../lib/client';
import { NvmeController, NvmeStatusError } from '../../lib/nvme/host';
import { AdminOpcode, GenericStatus, LogPage, NvmOpcode } from '../../lib/nvme/spec';
import { Scratch, startCli } from '../cli/run-cli';
import { SpdkTarget, whyNoSpdk } from '../../bench/spdk-target';
import { dist } from '../dist';
import { testCommands } from './spdk-commands';

const MAIN = join(dist, 'cli/main.js');
const SPDK_DIR = process.env['SPDK_DIR'];
const reason = whyNoSpdk(SPDK_DIR);
const describeSpdk = reason === undefined ? describe : describe.skip;
if (reason !== undefined) console.warn(`tests against SPDK are skipped: ${reason}`);

interface Ended {
  code: number;
  stdout: string;
  stderr: string;
}

function run(file: string, args: readonly string[]): Promise<Ended> {
  return new Promise((resolve) => {
    execFile(file, args, { maxBuffer: 16 << 20 }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr });
    });
  });
}

const cli = (...args: string[]): Promise<Ended> => run(process.execPath, [MAIN, ...args]);

interface FioJson {
  jobs: {
    error: number;
    read: { total_ios: number };
    write: { total_ios: number };
    trim: { total_ios: number };
  }[];
}

describeSpdk('our client against SPDK', () => {
  let target: SpdkTarget;

  beforeAll(async () => {
    target = await SpdkTarget.start(SPDK_DIR ?? '');
  }, 60_000);

  afterAll(async () => {
    await target.stop();
  });

  test('info tells what the controller is', async () => {
    const { code, stdout } = await cli('info', target.malloc, '--json');
    expect(code).toBe(0);
    const report = JSON.parse(stdout) as { pci: { header: object } };
    expect(report.pci.header).toMatchObject({ vendorId: 0x4e58, classCode: 0x010802 });
  });

  test.each(['read', 'write', 'randread', 'randwrite', 'randrw'])(
    'bench --rw %s on malloc, null and aio',
    async (rw) => {
      for (const endpoint of [target.malloc, target.null, target.aio]) {
        const { code, stdout, stderr } = await cli(
          'bench',
          endpoint,
          '--rw',
          rw,
          '--runtime',
          '300ms',
          '--output-format',
          'json',
        );
        expect({ code, stderr: stderr.replace(/.* overwrites .*\n/, '') }).toEqual({ code: 0, stderr: '' });
        const [job] = (JSON.parse(stdout) as FioJson).jobs;
        expect(job?.error).toBe(0);
        expect((job?.read.total_ios ?? 0) > 0).toBe(rw !== 'write' && rw !== 'randwrite');
        expect((job?.write.total_ios ?? 0) > 0).toBe(rw !== 'read' && rw !== 'randread');
      }
    },
    60_000,
  );

  test.each([
    ['trim', false],
    ['randtrim', false],
    ['trimwrite', true],
  ])('bench --rw %s on malloc', async (rw, writes) => {
    const args = ['--rw', rw, '--runtime', '300ms', '--output-format', 'json'];
    const { code, stdout } = await cli('bench', target.malloc, ...args);
    expect(code).toBe(0);
    const [job] = (JSON.parse(stdout) as FioJson).jobs;
    expect(job).toMatchObject({ error: 0, read: { total_ios: 0 } });
    expect(job?.trim.total_ios).toBeGreaterThan(0);
    expect((job?.write.total_ios ?? 0) > 0).toBe(writes);
  });

  test('what bench trims reads as zeros', async () => {
    const whole = ['--bs', '64k', '--io_size', '4m', '--size', '4m'];
    for (const rw of ['write', 'trim'])
      expect((await cli('bench', target.malloc, '--rw', rw, ...whole)).code).toBe(0);
    await using device = await connect(target.malloc);
    await using controller = await NvmeController.attach(device);
    const memory = await device.dma.allocate(5 << 20);
    const bytes = new Uint8Array(memory.buffer).fill(1);
    await controller.namespace(1).read(memory, { lba: 0, blocks: (5 << 20) / 512 });
    const first = bytes.subarray(0, 4 << 20).findIndex((byte) => byte !== 0);
    expect(first).toBe(-1);
  });

  test('what bench --verify writes is in the file behind the aio bdev', async () => {
    const size = 16 << 20;
    const seed = 4711;
    const { code } = await cli(
      ...[
        'bench',
        target.aio,
        '--rw',
        'write',
        '--bs',
        '64k',
        '--verify',
        '--size',
        String(size),
        '--randseed',
        String(seed),
      ],
    );
    expect(code).toBe(0);
    const words = new Uint32Array(size / 4);
    const file = openSync(target.file, 'r');
    readSync(file, words, 0, size, 0);
    closeSync(file);
    const bad: number[] = [];
    for (let lba = 0; lba < size / 512; lba++) {
      if (checkBlock(words, lba * 128, 128, { lba, generation: 1, seed }) !== 'ok') bad.push(lba);
    }
    expect(bad).toEqual([]);
  }, 60_000);

  test.each([0, 3])('the driver reads and writes with %i interrupt vectors', async (vectors) => {
    await using device = await connect(target.malloc);
    await using nvme = await NvmeController.attach(device, { vectors });
    const namespace = nvme.namespace(1);
    const memory = await device.dma.allocate(2 << 20);
    const bytes = new Uint8Array(memory.buffer);
    for (let index = 0; index < 1 << 20; index++) bytes[index] = index * 31;
    await namespace.write(memory, { lba: 5, blocks: 2048 });
    await namespace.flush();
    await namespace.read(memory, { lba: 5, blocks: 2048, offset: 1 << 20 });
    expect(Buffer.compare(bytes.subarray(0, 1 << 20), bytes.subarray(1 << 20))).toBe(0);

    const queue = await nvme.defaultQueue();
    const beyond = queue.submit(2, 1, namespace.blocks, 8 - 1, memory.iova, 4096);
    await expect(beyond).rejects.toThrow(NvmeStatusError);
    await expect(beyond).rejects.toMatchObject({ sct: 0, sc: 0x80 });
  });

  test('admin commands by name, and data by a PRP list', async () => {
    await using device = await connect(target.malloc);
    await using controller = await NvmeController.attach(device);
    const { admin } = controller;
    expect(await admin.identifyController()).toMatchObject({ mn: 'SPDK bdev Controller', ver: 0x2_0000 });
    expect(await admin.activeNamespaces()).toEqual([1]);
    expect((await admin.namespaceDescriptors(1)).uuid).toMatch(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
    expect(await admin.supportedLogPages()).toEqual(expect.arrayContaining([0, 1, 2, 3, 4, 5]));
    expect(await admin.smartLog()).toMatchObject({ critical_warning: 0 });
    expect(await admin.changedNamespaces()).toEqual([]);
    expect((await admin.firmwareSlotLog()).activeSlot).toBe(1);
    expect((await admin.commandEffectsLog()).io.get(NvmOpcode.read)).toMatchObject({ supported: true });
    expect(await admin.getFeature('numberOfQueues')).toEqual({ submission: 127, completion: 127 });
    const getErrors = { opcode: AdminOpcode.getLogPage, cdw10: (0x0fff << 16) | LogPage.error };
    expect((await admin.command({ ...getErrors, read: 16_384 })).data).toHaveLength(16_384);
    const abort = new AbortController();
    const event = expect(admin.asynchronousEvent({ signal: abort.signal })).rejects.toMatchObject({
      sct: 0,
      sc: GenericStatus.abortRequested,
    });
    abort.abort();
    await event;
  });

  test('write zeroes and deallocate keep to the limits of the target', async () => {
    await using device = await connect(target.malloc);
    await using controller = await NvmeController.attach(device);
    const [namespace] = controller.namespaces;
    const { zeroBytes, ranges } = await controller.commandLimits();
    expect([zeroBytes, ranges]).toEqual([16 << 20, 1]);
    const blocks = (2 * zeroBytes) / namespace!.blockSize;
    const memory = await device.dma.allocate(1 << 20);
    const bytes = new Uint8Array(memory.buffer).fill(7);
    /** The first byte of some blocks. */
    const found = async (...lbas: number[]): Promise<(number | undefined)[]> => {
      for (const [index, lba] of lbas.entries()) {
        await namespace!.read(memory, { lba, blocks: 1, offset: index * namespace!.blockSize });
      }
      return lbas.map((_, index) => bytes[index * namespace!.blockSize]);
    };
    for (const lba of [0, 1, blocks - 2, blocks - 1]) await namespace!.write(memory, { lba, blocks: 1 });
    await namespace!.writeZeroes({ lba: 1, blocks: blocks - 2 });
    expect(await found(0, 1, blocks - 2, blocks - 1)).toEqual([7, 0, 0, 7]);
    bytes.fill(7);
    await namespace!.write(memory, { lba: 0, blocks: 8 });
    await namespace!.deallocate([
      { lba: 0, blocks: 2 },
      { lba: 4, blocks: 2 },
    ]);
    expect(await found(0, 1, 2, 3, 4, 5, 6)).toEqual([0, 0, 7, 7, 0, 0, 7]);
  });

  testCommands(() => target);

  test('a second client is told that the endpoint is busy', async () => {
    await using device = await connect(target.null);
    const { code, stderr } = await cli('info', target.null, '--timeout', '500ms');
    expect(code).toBe(3);
    expect(stderr).toMatch(/serves one client at a time/);
    expect(device.closed).toBe(false);
  });

  // The last one: it takes the target away. Two targets cannot run side by side, SPDK claims the core.
  test('a target that dies ends the run with one line and exit code 3', async () => {
    const scratch = new Scratch();
    const running = startCli(scratch, 'bench', target.malloc, '--runtime', '20');
    await running.busy(0.8);
    target.kill();
    const { status, stderr } = await running.ended;
    scratch.remove();
    expect(status).toBe(3);
    expect(stderr.trim().split('\n')).toHaveLength(1);
  }, 60_000);
});

describeSpdk("SPDK's clients against our controller", () => {
  const address = (folder: string): string =>
    `trtype:VFIOUSER traddr:${folder} subnqn:nqn.2019-07.io.spdk:cnode1`;
  let folder: string;
  let server: ReturnType<typeof spawn>;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'vfio-user-'));
    server = spawn(process.execPath, [MAIN, 'serve', 'nvme', '--socket', folder, '--size', '64m'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    if (server.stdout !== null) await once(server.stdout, 'data');
  }, 30_000);

  afterAll(async () => {
    const ended = once(server, 'exit');
    server.kill('SIGTERM');
    await ended;
    rmSync(folder, { recursive: true, force: true });
  });

  const spdk = (tool: string, ...args: string[]): Promise<Ended> =>
    run(join(SPDK_DIR ?? '', 'build/bin', tool), ['-r', address(folder), ...args, '-s', '256', '-g']);

  test('spdk_nvme_identify', async () => {
    const { code, stdout } = await spdk('spdk_nvme_identify');
    expect(code).toBe(0);
    expect(stdout).toMatch(/Model Number:\s+vfio-user/);
    expect(stdout).toMatch(/Size \(in LBAs\):\s+131072/);
  }, 60_000);

  test.each(['randread', 'randwrite', 'rw'])(
    'spdk_nvme_perf -w %s',
    async (workload) => {
      const { code, stdout, stderr } = await spdk(
        'spdk_nvme_perf',
        '-q',
        '32',
        '-o',
        '4096',
        '-w',
        workload,
        '-M',
        '50',
        '-t',
        '1',
        '-c',
        '0x2',
      );
      expect(code).toBe(0);
      expect(`${stdout}${stderr}`).not.toMatch(/ERROR|return failure/);
      const total = /Total\s+:\s+([\d.]+)/.exec(stdout)?.[1];
      expect(Number(total)).toBeGreaterThan(0);
    },
    60_000,
  );
});
