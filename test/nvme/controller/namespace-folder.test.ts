// SPDX-License-Identifier: MIT
/** Namespaces that hosts make, in a folder that keeps them. */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MemoryBackend } from '../../../lib/nvme/backends';
import { type NamespaceStore, NvmeControllerModel, openNamespaceFolder } from '../../../lib/nvme/controller';
import { openFds, warmUp } from '../../support/resources';
import { Address, Host, type HostQueue, until } from './support';

const MIB = 1 << 20;
const CAPACITY = 8 * MIB;
const [MANAGEMENT, ATTACHMENT, FORMAT] = [0x0d, 0x15, 0x80];
const [FLUSH, WRITE, READ] = [0, 1, 2];

let root: string;
let folder: string;
let descriptors: number;
let host: Host | null = null;
let queue: HostQueue;
let warnings: string[];

beforeAll(warmUp);
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'vfio-user-folder-'));
  folder = join(root, 'drive');
  descriptors = openFds();
  warnings = [];
});
afterEach(async () => {
  end();
  await until(() => openFds() <= descriptors, 'all descriptors are closed');
  rmSync(root, { recursive: true });
});

/** A controller whose hosts make namespaces in the folder; after one that was there before. */
async function begin(capacity?: number): Promise<NvmeControllerModel> {
  end();
  const namespaceStore = await openNamespaceFolder(folder, { capacity });
  host = new Host({ namespaces: [], namespaceStore, onWarning: (text) => warnings.push(text) });
  host.enable();
  queue = await host.createQueues();
  return host.controller;
}

function end(): void {
  host?.close();
  host = null;
}

function there(): Host {
  if (host === null) throw new Error('there is no controller');
  return host;
}

function data(length = 4096): Uint8Array {
  return there().memory.bytes(Address.data, length);
}

async function admin(opcode: number, nsid: number, cdw10: number): Promise<string> {
  return (await there().adminCommand({ opcode, nsid, cdw10 })).status;
}

/** @param format 0 for blocks of 512 bytes, 1 for 4096 */
function create(blocks: number, format = 0): Promise<string> {
  const bytes = data().fill(0);
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  for (const at of [0, 8]) view.setBigUint64(at, BigInt(blocks), true);
  view.setUint8(26, format);
  return admin(MANAGEMENT, 0, 0);
}

/** Attaches (0) or detaches (1). */
function attachment(nsid: number, select: number): Promise<string> {
  data().fill(0).set([1, 0, 1]);
  return admin(ATTACHMENT, nsid, select);
}

async function io(opcode: number, nsid: number): Promise<string> {
  return (await there().run(queue, { opcode, nsid, prp1: Address.data })).status;
}

const ok = '00/00';

/** What is to be there the next time. */
function keptOf({ namespaces }: NvmeControllerModel): unknown[] {
  return namespaces.map((namespace) => ({ ...namespace, statistics: null }));
}

/** The folders of namespaces. */
function places(): string[] {
  return readdirSync(folder)
    .filter((name) => name !== 'store.json')
    .map((name) => join(folder, name));
}

function edit(path: string, change: (record: Record<string, unknown>) => void): void {
  const record = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;
  change(record);
  writeFileSync(path, JSON.stringify(record));
}

test('ids, identifiers, block size, attachment and data are there the next time, and so are serial number and capacity', async () => {
  const first = await begin(CAPACITY);
  expect(await create(2048)).toBe(ok);
  expect(await create(256, 1)).toBe(ok);
  expect(await create(8)).toBe(ok);
  expect(await attachment(2, 0)).toBe(ok);
  expect(await attachment(3, 0)).toBe(ok);
  data().fill(7);
  expect(await io(WRITE, 2)).toBe(ok);
  expect(await io(FLUSH, 2)).toBe(ok);
  expect(await admin(MANAGEMENT, 3, 1)).toBe(ok);
  expect(await create(16)).toBe(ok);
  const before = keptOf(first);
  expect(before).toMatchObject([
    { nsid: 1, size: MIB, blockSize: 512, attached: false },
    { nsid: 2, size: MIB, blockSize: 4096, attached: true },
    { nsid: 3, size: 8192, blockSize: 512, attached: false },
  ]);
  const { serial, nqn } = first;
  const second = await begin();
  expect(keptOf(second)).toEqual(before);
  expect([second.serial, second.nqn]).toEqual([serial, nqn]);
  data().fill(0);
  expect(await io(READ, 2)).toBe(ok);
  expect(data().every((byte) => byte === 7)).toBe(true);
  // UNVMCAP; VWC, as its files have a cache.
  expect(await admin(6, 0, 1)).toBe(ok);
  const view = new DataView(data().buffer, data().byteOffset);
  expect(Number(view.getBigUint64(296, true))).toBe(CAPACITY - 2 * MIB - 8192);
  expect(view.getUint8(525) & 1).toBe(1);
  // Nothing is left of what was deleted.
  expect(places()).toHaveLength(3);
  expect(warnings).toEqual([]);
});

test('a format and a change of size are kept', async () => {
  const controller = await begin(CAPACITY);
  expect(await create(2048)).toBe(ok);
  expect(await attachment(1, 0)).toBe(ok);
  expect(await admin(FORMAT, 1, 1)).toBe(ok);
  await controller.resizeNamespace(1, 2 * MIB);
  expect(warnings).toEqual([]);
  expect((await begin()).namespaces).toMatchObject([{ nsid: 1, blockSize: 4096, size: 2 * MIB }]);
  expect(await attachment(1, 1)).toBe(ok);
  expect((await begin()).namespaces).toMatchObject([{ nsid: 1, attached: false }]);
});

test('what was given to the controller has its place beside them', async () => {
  await begin(CAPACITY);
  expect(await create(8)).toBe(ok);
  end();
  const given = new MemoryBackend(MIB);
  const make = (namespaceStore: NamespaceStore, nsid?: number): NvmeControllerModel =>
    new NvmeControllerModel({ namespaces: [{ backend: given, nsid }], namespaceStore });
  const store = await openNamespaceFolder(folder);
  expect(() => make(store, 1)).toThrow('There is a namespace 1 already');
  store.close?.();
  const controller = make(await openNamespaceFolder(folder));
  expect(controller.namespaces).toMatchObject([
    { nsid: 1, kind: 'file' },
    { nsid: 2, kind: 'memory' },
  ]);
  controller.close();
});

test('the capacity may change, and not to less than is used', async () => {
  await begin(CAPACITY);
  expect(await create(2048)).toBe(ok);
  end();
  const before = readFileSync(join(folder, 'store.json'), 'utf8');
  await expect(openNamespaceFolder(folder, { capacity: MIB - 512 })).rejects.toMatchObject({
    code: 'ERR_INVALID_ARG_VALUE',
    message: `${folder} cannot be used: its namespaces have ${MIB} bytes, more than a capacity of ${MIB - 512}; give it as much (--capacity)`,
  });
  expect(readFileSync(join(folder, 'store.json'), 'utf8')).toBe(before);
  await begin(MIB);
  expect(await create(1)).toBe('01/15 DNR');
  await begin();
  expect(await create(1)).toBe('01/15 DNR');
});

test('a folder that is open already is refused; when it is closed it is not', async () => {
  await begin(CAPACITY);
  await expect(openNamespaceFolder(folder)).rejects.toMatchObject({
    code: 'ERR_VFIO_USER_BUSY',
    message: `The namespaces of ${folder} are served already, by this or another process; \`fuser -v ${folder}\` tells which`,
  });
  await begin();
});

describe('after a crash', () => {
  const uuid = '01234567-89ab-cdef-0123-456789abcdef';

  test.each<[string, Readonly<Record<string, string>>]>([
    ['before anything was written', {}],
    ['while its record was written', { 'namespace.json.new': '{' }],
    ['before it was made', { 'namespace.json': '{"rubbish":true}' }],
    [
      'when its data was there',
      { 'namespace.json': '{"rubbish":true}', data: 'x', 'namespace.json.new': '{}' },
    ],
  ])('a namespace that was being made or deleted is gone: %s', async (_, files) => {
    await begin(CAPACITY);
    expect(await create(8)).toBe(ok);
    const kept = places();
    end();
    mkdirSync(join(folder, uuid));
    for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, uuid, name), text);
    writeFileSync(join(folder, 'store.json.new'), '');
    expect((await begin()).namespaces).toHaveLength(1);
    expect(places().filter((place) => !place.endsWith('.new'))).toEqual(kept);
  });

  test('a new folder without its file is begun again', async () => {
    mkdirSync(folder);
    mkdirSync(join(folder, 'lost+found'));
    writeFileSync(join(folder, 'store.json.new'), '{');
    await begin(CAPACITY);
    expect(await create(8)).toBe(ok);
    expect((await begin()).namespaces).toHaveLength(1);
  });
});

describe('what is something else is refused, and left as it is', () => {
  const refused = async (message: string | RegExp, capacity?: number): Promise<void> => {
    const before = readdirSync(root, { recursive: true });
    await expect(openNamespaceFolder(folder, { capacity })).rejects.toMatchObject({
      code: 'ERR_INVALID_ARG_VALUE',
      message: typeof message === 'string' ? message : (expect.stringMatching(message) as string),
    });
    expect(readdirSync(root, { recursive: true })).toEqual(before);
  };

  test('no capacity for a new one', async () => {
    await refused(
      `${folder} cannot be used: it has no namespaces yet; give the capacity for them (--capacity)`,
    );
    mkdirSync(folder);
    await refused(
      `${folder} cannot be used: it has no namespaces yet; give the capacity for them (--capacity)`,
    );
    await expect(openNamespaceFolder(folder, { capacity: 511 })).rejects.toThrow(
      'The capacity for namespaces is an integer of at least 512 bytes, got 511',
    );
  });

  test('a folder of somebody else', async () => {
    mkdirSync(folder);
    writeFileSync(join(folder, 'letter.txt'), '');
    await refused(
      `${folder} cannot be used: it has letter.txt, and no store.json as a folder of namespaces has; name an empty one`,
      CAPACITY,
    );
  });

  test('a file, and a folder that cannot be made', async () => {
    writeFileSync(folder, '');
    await expect(openNamespaceFolder(folder, { capacity: CAPACITY })).rejects.toMatchObject({
      code: 'ERR_VFIO_USER_SYSTEM',
      errnoName: 'ENOTDIR',
      message: expect.stringContaining(folder) as string,
    });
    await expect(openNamespaceFolder(join(root, 'no', 'such'), { capacity: CAPACITY })).rejects.toMatchObject(
      {
        code: 'ERR_VFIO_USER_SYSTEM',
        errnoName: 'ENOENT',
      },
    );
  });

  test.each<[string, RegExp, (place: string) => void]>([
    [
      'a file that is not of it',
      /letter\.txt is not of a folder of namespaces; move it elsewhere$/,
      (place) => {
        writeFileSync(join(place, '..', 'letter.txt'), '');
      },
    ],
    [
      'another format',
      /store\.json cannot be used: it is not of a folder of namespaces that this version knows$/,
      (place) => {
        edit(join(place, '..', 'store.json'), (record) => (record['format'] = 'vfio-user namespaces 2'));
      },
    ],
    [
      'no JSON',
      /store\.json cannot be used: it is no JSON of an object$/,
      (place) => {
        truncateSync(join(place, '..', 'store.json'), 3);
      },
    ],
    [
      'no capacity',
      /store\.json cannot be used: its capacity is missing or makes no sense$/,
      (place) => {
        edit(join(place, '..', 'store.json'), (record) => (record['capacity'] = '1g'));
      },
    ],
    [
      'data without a record',
      /it has data, and no namespace\.json that tells of it; put that back, or move the folder elsewhere$/,
      (place) => {
        rmSync(join(place, 'namespace.json'));
      },
    ],
    [
      'no data',
      /namespace 1 has no data$/,
      (place) => {
        rmSync(join(place, 'data'));
      },
    ],
    [
      'data that was truncated',
      /data cannot be used: it has 512 of the 4096 bytes of namespace 1$/,
      (place) => {
        truncateSync(join(place, 'data'), 512);
      },
    ],
    ...(['nsid', 'size', 'blockSize', 'attached', 'uuid', 'nguid', 'eui64'] as const).map(
      (key): [string, RegExp, (place: string) => void] => [
        `a wrong ${key}`,
        new RegExp(`namespace\\.json cannot be used: its ${key} is missing or makes no sense$`),
        (place) => {
          edit(join(place, 'namespace.json'), (record) => (record[key] = 0));
        },
      ],
    ),
  ])('%s', async (_, message, spoil) => {
    await begin(CAPACITY);
    expect(await create(8)).toBe(ok);
    const [place = ''] = places();
    end();
    spoil(place);
    await refused(message);
  });

  test.each(['nsid', 'uuid'])('two namespaces of one %s', async (key) => {
    await begin(CAPACITY);
    expect([await create(8), await create(8)]).toEqual([ok, ok]);
    const [first = '', second = ''] = places().map((place) => join(place, 'namespace.json'));
    end();
    const record = JSON.parse(readFileSync(first, 'utf8')) as Record<string, unknown>;
    edit(second, (other) => (other[key] = record[key]));
    await refused(new RegExp(`two namespaces have the ${key} ${String(record[key])}$`));
  });
});

describe('a folder that fails', () => {
  /** Nothing can be written to it, also by root. */
  const spoil = (place: string): void => {
    mkdirSync(join(place, 'namespace.json.new'));
  };
  const mend = (place: string): void => {
    rmSync(join(place, 'namespace.json.new'), { recursive: true });
  };

  test('leaves a namespace as it was, and tells why', async () => {
    const controller = await begin(CAPACITY);
    expect(await create(8)).toBe(ok);
    const [place = ''] = places();
    spoil(place);
    expect(await attachment(1, 0)).toBe('00/06');
    expect(await admin(FORMAT, 1, 1)).toBe('00/06');
    expect(controller.namespaces).toMatchObject([{ attached: false, blockSize: 512, size: 4096 }]);
    await controller.resizeNamespace(1, 8192);
    const why = expect.stringMatching(
      /: The namespaces of .*namespace\.json\.new: open failed with EISDIR$/,
    ) as string;
    expect(warnings).toEqual([why, why, why]);
    expect(warnings.map((text) => text.replace(/: The .*/, ''))).toEqual([
      'Namespace 1 was not attached',
      'Namespace 1 was erased and not formatted otherwise',
      'Namespace 1 has 8192 bytes until it is served anew',
    ]);
    mend(place);
    expect(await attachment(1, 0)).toBe(ok);
    expect((await begin()).namespaces).toMatchObject([{ attached: true, size: 8192 }]);
  });

  test('does not delete, and the namespace is there the next time', async () => {
    const controller = await begin(CAPACITY);
    expect(await create(8)).toBe(ok);
    const [place = ''] = places();
    spoil(place);
    expect(await admin(MANAGEMENT, 1, 1)).toBe(ok);
    expect(controller.namespaces).toEqual([]);
    expect(warnings).toEqual([
      expect.stringMatching(/^The storage of namespace 1 was not deleted: The names/),
    ]);
    mend(place);
    expect((await begin()).namespaces).toHaveLength(1);
  });

  test('makes none, and nothing is left of it', async () => {
    await begin(CAPACITY);
    rmSync(folder, { recursive: true });
    expect(await create(8)).toBe('00/06');
    expect(warnings).toEqual([
      expect.stringMatching(/^A namespace of 4096 bytes could not be made: .*mkdir failed with ENOENT$/),
    ]);
    mkdirSync(folder);
    expect(await create(8)).toBe(ok);
    expect(places()).toHaveLength(1);
  });
});

test('a controller that is closed while a namespace is made leaves nothing of it', async () => {
  await begin(CAPACITY);
  // It is not answered, as there is nobody any more.
  const making = create(8).catch(() => undefined);
  await until(() => places().length > 0, 'it has begun');
  end();
  await making;
  await until(() => openFds() <= descriptors, 'all descriptors are closed');
  expect((await begin()).namespaces).toEqual([]);
  expect(places()).toEqual([]);
});

test('the files are for their owner alone', async () => {
  await begin(CAPACITY);
  expect(await create(8)).toBe(ok);
  const [place = ''] = places();
  const files = [
    folder,
    join(folder, 'store.json'),
    place,
    join(place, 'data'),
    join(place, 'namespace.json'),
  ];
  expect(files.every((file) => existsSync(file) && (statSync(file).mode & 0o077) === 0)).toBe(true);
});
