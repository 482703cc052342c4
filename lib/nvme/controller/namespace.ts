// SPDX-License-Identifier: MIT
import { Mutex } from '../../async';
import { VfioUserError, outOfRange } from '../../errors';
import type { Backend, SynchronousBackend } from '../backends';
import { BadBlocks } from './bad-blocks';
import { type BlockSize, eraseBytes, isFormatOf } from './format';
import { type NamespaceIdentifiers, namespaceIdentifiers } from './identifiers';
import { Outcome } from './outcome';
import { type NamespaceCounters, type NamespaceStatistics, newNamespaceCounters } from './statistics';
import type { Alive } from './transfer';

/** A namespace to be added to a controller. */
export interface NvmeNamespaceOptions {
  /** Where the namespace keeps its data. It is closed with the namespace. */
  readonly backend: Backend;
  /** Namespace id, from 1 to the controller's `maxNamespaces`. Default: the lowest that is free. */
  readonly nsid?: number | undefined;
  /** Bytes of a logical block, 512 (default) or 4096. A host can change it: Format NVM. */
  readonly blockSize?: 512 | 4096 | undefined;
  /**
   * UUID, 32 hexadecimal digits with or without dashes. This and the other identifiers follow from the identity of the backend,
   * such as the path of its file; from serial number and namespace id when it has none.
   */
  readonly uuid?: string | undefined;
  /** NGUID, 32 hexadecimal digits. Default: those of the UUID. */
  readonly nguid?: string | undefined;
  /** EUI-64, 16 hexadecimal digits. Default: see `uuid`. */
  readonly eui64?: string | undefined;
}

/** A namespace of a controller, as it is now. */
export interface NvmeNamespaceInfo extends NamespaceIdentifiers {
  /** Namespace id. */
  readonly nsid: number;
  /** What its backend is: `null`, `memory`, `file`, or a name of somebody's own. */
  readonly kind: string;
  /** Bytes, a multiple of `blockSize`. */
  readonly size: number;
  /** Bytes of a logical block. */
  readonly blockSize: number;
  /** Whether the host sees it, as it does unless it has detached it, or made it and not attached it. */
  readonly attached: boolean;
  /** What hosts have done with it. */
  readonly statistics: NamespaceStatistics;
}

/** Storage that hosts address by logical blocks (NVMe base 2.0, 3.2.1). */
export class Namespace implements Omit<NvmeNamespaceInfo, 'statistics'> {
  readonly nsid: number;
  readonly backend: Backend;
  /** The backend, unless it is asynchronous. */
  readonly synchronous: SynchronousBackend | null;
  /** Bytes of a logical block. */
  blockSize: BlockSize;
  /** Size in logical blocks. What the backend has beyond the last whole block is not used. */
  blocks: number;
  readonly uuid: string;
  readonly nguid: string;
  readonly eui64: string;
  readonly counters: NamespaceCounters = newNamespaceCounters();
  /** Blocks that a host has made unreadable. They are forgotten with the process. */
  readonly badBlocks = new BadBlocks();
  /** Whether the controller has the namespace: it is active. */
  attached = false;
  /** Counts the times that the backend was taken from the commands. Those that came before must not reach it any more. */
  generation = 0;
  /** Percent of a format that are left; null while none runs. */
  formatting: number | null = null;
  readonly #changes = new Mutex();
  #closed = false;
  /** Commands that run as promises, and may use the backend. */
  private readonly running = new Set<Promise<unknown>>();
  /** `until` resolves when the command that has the namespace for itself has ended; null when there is none. */
  private readonly exclusive: { until: Promise<void> | null } = { until: null };

  /**
   * @param identity what the namespace is known by, unless its backend tells
   * @throws TypeError or RangeError when an option makes no sense
   */
  constructor(options: NvmeNamespaceOptions, nsid: number, identity: string) {
    const { backend, blockSize = 512 } = options;
    if (![512, 4096].includes(blockSize)) throw outOfRange(`blockSize is 512 or 4096, got ${blockSize}`);
    const { blockSize: least = 1 } = backend;
    if (blockSize < least) {
      throw outOfRange(
        `The backend takes blocks of at least ${least} bytes, and those of the namespace have ${blockSize}`,
      );
    }
    if (backend.size < blockSize) {
      throw outOfRange(`The backend has ${backend.size} bytes, which is less than one block of ${blockSize}`);
    }
    const identifiers = namespaceIdentifiers(options, backend.identity ?? identity);
    this.nsid = nsid;
    this.backend = backend;
    this.synchronous = backend.asynchronous === true ? null : backend;
    this.blockSize = blockSize;
    this.blocks = Math.floor(backend.size / blockSize);
    this.uuid = identifiers.uuid;
    this.nguid = identifiers.nguid;
    this.eui64 = identifiers.eui64;
  }

  get kind(): string {
    return this.backend.kind;
  }

  get size(): number {
    return this.blocks * this.blockSize;
  }

  /** What is told to whoever serves the controller. */
  get info(): NvmeNamespaceInfo {
    const { nsid, kind, size, blockSize, attached, uuid, nguid, eui64, counters } = this;
    return { nsid, kind, size, blockSize, attached, uuid, nguid, eui64, statistics: { ...counters } };
  }

  /** Whether a command for these bytes may go straight to the backend: none has it for itself, and all of the blocks can be read. */
  isDirect(offset: number, length: number): boolean {
    if (this.exclusive.until !== null) return false;
    const { badBlocks, blockSize } = this;
    return badBlocks.empty || badBlocks.firstIn(offset / blockSize, (offset + length) / blockSize) < 0;
  }

  /** The same namespace, whose data comes from and goes to another backend: for a command that a fault strikes. */
  over(backend: Backend): Namespace {
    const synchronous = backend.asynchronous === true ? null : backend;
    return Object.create(this, {
      backend: { value: backend },
      synchronous: { value: synchronous },
    }) as Namespace;
  }

  /** Runs a command that takes its time, once none has the namespace for itself; see {@link whenDrained}. */
  run<T>(command: () => Promise<T>): Promise<T> {
    if (this.exclusive.until !== null) return this.exclusive.until.then(() => this.run(command));
    const running = command().finally(() => {
      this.running.delete(running);
    });
    this.running.add(running);
    return running;
  }

  /** Runs a command while no other uses the backend: after those that run, and before those that come meanwhile. */
  alone<T>(command: () => Promise<T>): Promise<T> {
    if (this.exclusive.until !== null) return this.exclusive.until.then(() => this.alone(command));
    const drained = this.whenDrained();
    const running = this.run(() => drained.then(command));
    const end = (): void => {
      this.exclusive.until = null;
    };
    this.exclusive.until = running.then(end, end);
    return running;
  }

  /** Resolves when the commands that run now do not use the backend any more. */
  async whenDrained(): Promise<void> {
    await Promise.allSettled(this.running);
  }

  /** Makes durable what was written. Rejects when that is not possible. */
  async flush(): Promise<void> {
    if (this.backend.volatileCache) await this.backend.flush();
  }

  /**
   * Changes the size. Commands behind a new end fail at once, and those that run have ended before the backend changes.
   *
   * @param size bytes, a multiple of the block size. Default: what the storage has now
   */
  resize(size?: number): Promise<void> {
    return this.#changes.run(() => this.#resize(size));
  }

  async #resize(size: number | undefined): Promise<void> {
    const { backend, blockSize, nsid } = this;
    if (size !== undefined && !(Number.isSafeInteger(size) && size > 0 && size % blockSize === 0)) {
      throw outOfRange(`The size of namespace ${nsid} is a multiple of ${blockSize} bytes, got ${size}`);
    }
    if (size !== undefined && backend.resize === undefined) {
      throw new VfioUserError(
        'ERR_VFIO_USER_UNSUPPORTED',
        `The size of namespace ${nsid} cannot be changed: its ${backend.kind} backend has no resize`,
      );
    }
    try {
      this.blocks = Math.min(this.blocks, Math.floor((size ?? Infinity) / blockSize));
      await this.whenDrained();
      if (this.#closed) throw outOfRange(`There is no namespace ${nsid}`);
      await this.run(async () => backend.resize?.(size));
    } finally {
      this.blocks = Math.floor(backend.size / blockSize);
    }
  }

  /** Whether the namespace can have blocks of this size. */
  offers(blockSize: BlockSize): boolean {
    return isFormatOf(this.backend, blockSize);
  }

  /**
   * Makes all blocks zero, durably, and gives them another size. No command may find the namespace meanwhile.
   *
   * @param alive tells whether the format is to go on; what was erased until then stays so
   * @param keep keeps the new size for the next time; returns an {@link Outcome}
   * @returns an {@link Outcome}; unless it is success, the size of the blocks is as before
   */
  async format(blockSize: BlockSize, alive: Alive, keep: () => Promise<number>): Promise<number> {
    this.formatting = 100;
    try {
      return await this.#changes.run(async () => {
        await this.whenDrained();
        return this.run(() => this.#format(blockSize, alive, keep));
      });
    } finally {
      this.formatting = null;
    }
  }

  async #format(blockSize: BlockSize, alive: Alive, keep: () => Promise<number>): Promise<number> {
    const { backend } = this;
    const blocks = Math.floor(backend.size / blockSize);
    const bytes = Math.max(this.size, blocks * blockSize);
    const outcome = await eraseBytes(
      backend,
      bytes,
      () => alive() && !this.#closed,
      (percent) => {
        this.formatting = percent;
      },
    );
    if (outcome !== Outcome.success) return outcome;
    try {
      await this.flush();
    } catch {
      return Outcome.writeFault; // The status is all that the host can be told.
    }
    const kept = await keep();
    if (kept !== Outcome.success) return kept;
    this.badBlocks.clear();
    this.blockSize = blockSize;
    this.blocks = blocks;
    return Outcome.success;
  }

  /** Waits for the commands that run, flushes, and closes the backend in any case. No command may find the namespace any more. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.whenDrained();
    try {
      await this.flush();
    } finally {
      this.backend.close();
    }
  }
}
