// SPDX-License-Identifier: MIT
import { randomUUID } from 'node:crypto';
import { closeSync, openSync } from 'node:fs';
import { mkdir, readFile, readdir, rmdir, stat, unlink } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { Mutex } from '../../async';
import { VfioUserError, asError, systemError } from '../../errors';
import { lockFile } from '../../native';
import { type Backend, createBackend } from '../backends';
import { REPLACEMENT, makeSparseFile, replaceFile, syncFolder } from './durable-file';
import {
  RUBBISH,
  type FolderRecord,
  type NamespaceRecord,
  folderText,
  namespaceText,
  parseFolder,
  parseNamespace,
  wrong,
} from './namespace-record';
import { checkCapacity, type NamespaceStore, type StoredNamespace } from './namespace-store';

/** The folder as a whole. */
const STORE = 'store.json';
/** In the folder of a namespace, which is named by a UUID: what it is, and its data. */
const RECORD = 'namespace.json';
const DATA = 'data';
/** Made by the file system, in the root of some. */
const LOST_AND_FOUND = 'lost+found';
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** How a folder is opened. */
export interface NamespaceFolderOptions {
  /** Bytes of all namespaces together, an integer of at least 512. Default: as before; a new folder needs it. */
  readonly capacity?: number | undefined;
}

/**
 * Opens a folder in which the namespaces that hosts make are kept: ids, identifiers, block size, attachment, and data in a sparse
 * file for each. What a host was told of is there the next time, whenever the process or the machine stopped; the data as far as it was
 * flushed. Nobody else can open the folder until the store is closed, or the process has ended. A folder that is not there is made.
 *
 * @returns rejects before anything is changed: with a TypeError when the folder or a file in it is something else, or the capacity is
 *   less than what is used; with `ERR_VFIO_USER_BUSY` when the folder is open already, and with `ERR_VFIO_USER_SYSTEM`
 * @example
 * const namespaceStore = await openNamespaceFolder('/srv/drive', { capacity: 2 ** 40 });
 * const controller = new NvmeControllerModel({ namespaces: [], namespaceStore });
 */
export async function openNamespaceFolder(
  folder: string,
  { capacity }: NamespaceFolderOptions = {},
): Promise<NamespaceStore> {
  if (capacity !== undefined) checkCapacity(capacity);
  const path = resolve(folder);
  return told(path, async () => {
    const isNew = await isMissing(path);
    if (isNew) {
      neededCapacity(path, capacity);
      await mkdir(path, 0o700);
      await syncFolder(dirname(path));
    }
    // Also what is unlocked when the process ends.
    const lock = openSync(path, 'r');
    try {
      if (!lockFile(lock, path))
        throw new VfioUserError(
          'ERR_VFIO_USER_BUSY',
          `The namespaces of ${path} are served already, by this or another process; \`fuser -v ${path}\` tells which`,
        );
      return await NamespaceFolder.load(path, lock, capacity);
    } catch (error) {
      closeSync(lock);
      throw error;
    }
  });
}

/** A folder of namespaces, which is locked. */
class NamespaceFolder implements NamespaceStore {
  readonly capacity: number;
  readonly identity: string;
  readonly volatileCache = true;
  readonly namespaces: readonly StoredNamespace[];
  readonly #path: string;
  readonly #lock: number;
  /** The folders of namespaces by their backends. */
  readonly #places = new Map<Backend, string>();
  readonly #changes = new Mutex();
  #closed = false;

  private constructor(path: string, lock: number, { uuid, capacity }: FolderRecord, found: readonly Found[]) {
    this.#path = path;
    this.#lock = lock;
    this.identity = uuid;
    this.capacity = capacity;
    try {
      this.namespaces = found.map(({ place, record }) => {
        const backend = createBackend({ kind: 'file', path: join(place, DATA), size: record.size });
        this.#places.set(backend, place);
        return { ...record, backend };
      });
    } catch (error) {
      this.#closeBackends();
      throw error;
    }
  }

  /** Reads all of it, and only then changes any. */
  static async load(path: string, lock: number, capacity: number | undefined): Promise<NamespaceFolder> {
    const before = await readStore(path);
    const store = {
      uuid: before?.uuid ?? randomUUID(),
      capacity: capacity ?? before?.capacity ?? neededCapacity(path, capacity),
    };
    const found: Found[] = [];
    const rubbish: string[] = [];
    for (const place of await placesOf(path)) {
      const record = await readNamespace(place);
      if (record === RUBBISH) rubbish.push(place);
      else found.push({ place, record });
    }
    checkTogether(path, store.capacity, found);
    if (store.capacity !== before?.capacity) await replaceFile(join(path, STORE), folderText(store));
    for (const place of rubbish) await removePlace(place);
    return new NamespaceFolder(path, lock, store, found);
  }

  create(size: number): Promise<Backend> {
    return this.#change(async () => {
      const place = join(this.#path, randomUUID());
      await mkdir(place, 0o700);
      try {
        const backend = await makeData(place, size);
        this.#places.set(backend, place);
        return backend;
      } catch (error) {
        await removePlace(place).catch(() => undefined); // Why it could not be made is what people have to know.
        throw error;
      }
    });
  }

  keep({ backend, ...namespace }: StoredNamespace): Promise<void> {
    return this.#change(async () => {
      const record = { ...namespace, size: backend.size };
      await replaceFile(join(this.#placeOf(backend), RECORD), namespaceText(record));
    });
  }

  delete(backend: Backend): Promise<void> {
    return this.#change(async () => {
      const place = this.#placeOf(backend);
      this.#places.delete(backend);
      await replaceFile(join(place, RECORD), namespaceText(RUBBISH));
      await removePlace(place);
    });
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#closeBackends();
    // What is under way has begun to write.
    void this.#changes.run(() => {
      closeSync(this.#lock);
      return Promise.resolve();
    });
  }

  #change<T>(change: () => Promise<T>): Promise<T> {
    return this.#changes.run(() => {
      if (this.#closed)
        throw new VfioUserError('ERR_VFIO_USER_CLOSED', `The namespaces of ${this.#path} are closed`);
      return told(this.#path, change);
    });
  }

  #placeOf(backend: Backend): string {
    const place = this.#places.get(backend);
    if (place === undefined)
      throw new VfioUserError('ERR_VFIO_USER_CLOSED', `The namespace is not in ${this.#path} any more`);
    return place;
  }

  #closeBackends(): void {
    for (const backend of this.#places.keys()) backend.close();
  }
}

/** A namespace in the folder. */
interface Found {
  readonly place: string;
  readonly record: NamespaceRecord;
}

/** What the folder is as a whole; undefined for an empty one. */
async function readStore(path: string): Promise<FolderRecord | undefined> {
  const store = join(path, STORE);
  if (!(await isMissing(store))) return parseFolder(store, await readFile(store, 'utf8'));
  const foreign = (await readdir(path)).find((name) => ![STORE + REPLACEMENT, LOST_AND_FOUND].includes(name));
  if (foreign === undefined) return undefined;
  throw wrong(path, `it has ${foreign}, and no ${STORE} as a folder of namespaces has; name an empty one`);
}

/** The folders of namespaces. */
async function placesOf(path: string): Promise<string[]> {
  const names = (await readdir(path)).filter(
    (name) => ![STORE, STORE + REPLACEMENT, LOST_AND_FOUND].includes(name),
  );
  const foreign = names.find((name) => !UUID.test(name));
  if (foreign !== undefined)
    throw wrong(path, `${foreign} is not of a folder of namespaces; move it elsewhere`);
  return names.map((name) => join(path, name));
}

async function readNamespace(place: string): Promise<NamespaceRecord | typeof RUBBISH> {
  const [file, data] = [join(place, RECORD), join(place, DATA)];
  if (await isMissing(file)) {
    // The record is there before the data, and goes after it.
    if (await isMissing(data)) return RUBBISH;
    throw wrong(
      place,
      `it has data, and no ${RECORD} that tells of it; put that back, or move the folder elsewhere`,
    );
  }
  const record = parseNamespace(file, await readFile(file, 'utf8'));
  if (record === RUBBISH) return RUBBISH;
  if (await isMissing(data)) throw wrong(place, `namespace ${record.nsid} has no ${DATA}`);
  const { size } = await stat(data);
  if (size < record.size)
    throw wrong(data, `it has ${size} of the ${record.size} bytes of namespace ${record.nsid}`);
  return record;
}

/** @throws TypeError for what cannot be together */
function checkTogether(path: string, capacity: number, found: readonly Found[]): void {
  for (const key of ['nsid', 'uuid'] as const) {
    const values = found.map(({ record }) => record[key]);
    const twice = values.find((value, index) => values.indexOf(value) !== index);
    if (twice !== undefined) throw wrong(path, `two namespaces have the ${key} ${twice}`);
  }
  const used = found.reduce((sum, { record: { size } }) => sum + size, 0);
  if (used > capacity)
    throw wrong(
      path,
      `its namespaces have ${used} bytes, more than a capacity of ${capacity}; give it as much (--capacity)`,
    );
}

function neededCapacity(path: string, capacity: number | undefined): number {
  if (capacity !== undefined) return capacity;
  throw wrong(path, 'it has no namespaces yet; give the capacity for them (--capacity)');
}

/** Storage of a namespace, which is rubbish until it is kept. */
async function makeData(place: string, size: number): Promise<Backend> {
  const path = join(place, DATA);
  await replaceFile(join(place, RECORD), namespaceText(RUBBISH));
  await makeSparseFile(path, size);
  await syncFolder(place);
  await syncFolder(dirname(place));
  return createBackend({ kind: 'file', path, size });
}

/** Removes what is left of a namespace: its data first, so that rubbish is told from data whose record was lost. */
async function removePlace(place: string): Promise<void> {
  for (const name of [DATA, RECORD + REPLACEMENT, RECORD])
    await unlink(join(place, name)).catch((error: unknown) => {
      if (codeOf(error) !== 'ENOENT') throw error;
    });
  await rmdir(place);
  await syncFolder(dirname(place));
}

async function isMissing(path: string): Promise<boolean> {
  try {
    await stat(path);
    return false;
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error;
    return true;
  }
}

function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
}

/** Tells a failure of `node:fs` as the package does. */
async function told<T>(path: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    const { errno, syscall } = error as NodeJS.ErrnoException;
    if (error instanceof VfioUserError || errno === undefined || syscall === undefined) throw asError(error);
    throw systemError(syscall, -errno, `The namespaces of ${(error as NodeJS.ErrnoException).path ?? path}`);
  }
}
