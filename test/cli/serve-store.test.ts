// SPDX-License-Identifier: MIT
/** `serve nvme --store`: namespaces that hosts make outlive the process, however it ends. */
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import { connect } from '../../lib/client';
import { NvmeController, type NvmeNamespace } from '../../lib/nvme/host';
import { IdentifyCns, decodeIdentifyNamespace, decodeNamespaceList } from '../../lib/nvme/spec';
import type { DmaMemory } from '../../lib/pci';
import { Scratch, cli, failure, startCli, type Running } from './run-cli';

const MIB = 2 ** 20;

let scratch: Scratch;
beforeEach(() => {
  scratch = new Scratch();
});
afterEach(() => {
  scratch.remove();
});

async function serving(capacity: string): Promise<Running> {
  const store = ['--store', scratch.file('drive'), '--capacity', capacity];
  const running = startCli(scratch, 'serve', 'nvme', '--socket', scratch.file('socket'), ...store);
  await running.said('Ctrl-C ends it.');
  return running;
}

/** A host of the drive. */
interface Visit {
  readonly nvme: NvmeController;
  readonly memory: DmaMemory;
}

async function visit<T>(use: (visit: Visit) => Promise<T>): Promise<T> {
  await using device = await connect(scratch.file('socket'));
  await using nvme = await NvmeController.attach(device);
  return await use({ nvme, memory: await device.dma.allocate(4096) });
}

/** Fills the first block. */
async function fill({ nvme, memory }: Visit, nsid: number, byte: number): Promise<void> {
  new Uint8Array(memory.buffer).fill(byte);
  await nvme.namespace(nsid).write(memory, { lba: 0, blocks: 1 });
}

async function firstByte(namespace: NvmeNamespace, memory: DmaMemory): Promise<number | undefined> {
  await namespace.read(memory, { lba: 0, blocks: 1 });
  return new Uint8Array(memory.buffer)[0];
}

test('a drive is the same after it was stopped and started, and its folder cannot be served twice', async () => {
  const first = await serving('1g');
  const before = await visit(async (host) => {
    const { admin, identify } = host.nvme;
    for (const format of [0, 1]) await admin.createNamespace({ blocks: 2048, format });
    await admin.attachNamespace(2);
    await host.nvme.rescan();
    await fill(host, 2, 7);
    return [identify.sn, identify.subnqn, await admin.namespaceDescriptors(2)];
  });
  const other = ['serve', 'nvme', '--socket', scratch.file('other'), '--store', scratch.file('drive')];
  expect(await cli(scratch, ...other)).toMatchObject({
    status: 3,
    stdout: '',
    stderr: expect.stringMatching(
      /^vfio-user: The namespaces of .*drive are served already, .*\n$/,
    ) as string,
  });
  first.kill('SIGTERM');
  expect(await first.ended).toMatchObject({ status: 0, stderr: '' });
  const second = await serving('2g');
  await visit(async ({ nvme, memory }) => {
    const { admin, identify, namespaces } = nvme;
    expect([identify.sn, identify.subnqn, await admin.namespaceDescriptors(2)]).toEqual(before);
    expect(namespaces.map(({ id, blockSize, size }) => [id, blockSize, size])).toEqual([[2, 4096, 8 * MIB]]);
    expect(await firstByte(nvme.namespace(2), memory)).toBe(7);
    expect(identify.unvmcap).toBe(BigInt(2048 * MIB - 9 * MIB));
    await admin.attachNamespace(1);
  });
  second.kill('SIGINT');
  await second.ended;
  expect(scratch.entries()).toEqual(['drive']);
});

test('memory is forgotten, and a folder that is none is refused before anything is served', async () => {
  const folder = scratch.file('folder');
  const serve = (...args: string[]): Promise<unknown> =>
    cli(scratch, 'serve', 'nvme', '--socket', scratch.file('socket'), '--store', ...args);
  expect(await serve(folder)).toEqual(
    failure(2, `${folder} cannot be used: it has no namespaces yet; give the capacity for them (--capacity)`),
  );
  mkdirSync(folder);
  writeFileSync(`${folder}/letter`, '');
  expect(await serve(folder, '--capacity', '1g')).toEqual(
    failure(
      2,
      `${folder} cannot be used: it has letter, and no store.json as a folder of namespaces has; name an empty one`,
    ),
  );
  expect(await serve('')).toEqual(failure(2, '--store is the path of a folder, and was given an empty one'));
  expect(scratch.entries()).toEqual(['folder']);
  expect(readdirSync(folder)).toEqual(['letter']);
});

/** What a host knows of a namespace: its size in MiB, whether it is attached, and what was written to it. */
interface Known {
  readonly mebibytes: number;
  readonly attached: boolean;
  readonly byte: number;
}

type Drive = ReadonlyMap<number, Known>;

/** A change of a drive, and what is known of the drive then. */
interface Step {
  readonly change: (host: Visit) => Promise<unknown>;
  readonly then: (drive: Drive) => Drive;
}

/** Makes, attaches, fills, detaches, attaches again and deletes namespaces, two at a time, without an end. */
function* steps(): Generator<Step> {
  for (let round = 0; ; round++) {
    const nsid = 1 + (round % 2);
    const byte = 1 + (round % 200);
    const mebibytes = 1 + (round % 3);
    const now = (change: Partial<Known>): Step['then'] => {
      const fresh = { mebibytes, attached: false, byte: 0 };
      return (drive) => new Map([...drive, [nsid, { ...fresh, ...drive.get(nsid), ...change }]]);
    };
    const attach: Step = {
      change: async ({ nvme }) => {
        await nvme.admin.attachNamespace(nsid);
        await nvme.rescan();
      },
      then: now({ attached: true }),
    };
    if (round > 1)
      yield {
        change: ({ nvme }) => nvme.admin.deleteNamespace(nsid),
        then: (drive) => new Map([...drive].filter(([id]) => id !== nsid)),
      };
    yield { change: ({ nvme }) => nvme.admin.createNamespace({ blocks: mebibytes * 2048 }), then: now({}) };
    yield attach;
    yield { change: (host) => fill(host, nsid, byte), then: now({ byte }) };
    yield { change: ({ nvme }) => nvme.admin.detachNamespace(nsid), then: now({ attached: false }) };
    yield attach;
  }
}

/** The drive as it is. What is in a namespace that is not attached is taken for what is known of it. */
async function found({ nvme, memory }: Visit, known: Drive): Promise<Drive> {
  const drive = new Map<number, Known>();
  for (const nsid of decodeNamespaceList(await nvme.admin.identify(IdentifyCns.allocatedNamespaces))) {
    const identified = await nvme.admin.identify(IdentifyCns.allocatedNamespace, { nsid });
    const namespace = nvme.namespaces.find(({ id }) => id === nsid);
    drive.set(nsid, {
      mebibytes: decodeIdentifyNamespace(identified).nsze / 2048,
      attached: namespace !== undefined,
      byte:
        namespace === undefined ? (known.get(nsid)?.byte ?? 0) : ((await firstByte(namespace, memory)) ?? 0),
    });
  }
  return drive;
}

test('what a host was told of is there after kill -9 at any moment, and what it was not told of is done or not', async () => {
  const KILLS = 10;
  const todo = steps();
  let drive: Drive = new Map();
  let pending: Step | undefined;
  for (let kill = 0; kill <= KILLS; kill++) {
    const running = await serving('1g');
    await visit(async (host) => {
      const present = await found(host, drive);
      const possible = pending === undefined ? [drive] : [drive, pending.then(drive)];
      expect(possible).toContainEqual(present);
      // What was not done is not done again: the next steps are of a drive where it was.
      if (pending !== undefined) {
        if (isDeepStrictEqual(present, drive)) await pending.change(host);
        drive = pending.then(drive);
      }
      for (let count = 0; count < 3 + kill; count++) {
        const step = todo.next().value as Step;
        await step.change(host);
        drive = step.then(drive);
      }
      pending = todo.next().value as Step;
      const last = pending.change(host).catch(() => undefined);
      for (let turns = 0; turns < 4 * kill; turns++) await new Promise(setImmediate);
      running.kill('SIGKILL');
      await last;
    }).catch((error: unknown) => {
      // The controller cannot be shut down any more.
      if ((error as { code?: unknown }).code !== 'ERR_VFIO_USER_DISCONNECTED') throw error;
    });
    expect(await running.ended).toMatchObject({ signal: 'SIGKILL', stderr: '' });
  }
  expect(readdirSync(scratch.file('drive')).length).toBeLessThan(6);
});
