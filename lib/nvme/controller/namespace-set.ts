// SPDX-License-Identifier: MIT
import { randomUUID } from 'node:crypto';
import { asError, invalidArgument, outOfRange } from '../../errors';
import { BROADCAST_NSID } from '../spec';
import { CreatedNamespaces } from './created-namespaces';
import { Namespace, type NvmeNamespaceOptions } from './namespace';
import type { NamespaceStore } from './namespace-store';
import type { BlockSize } from './format';
import { namespaceIdentifiers } from './identifiers';
import { Outcome } from './outcome';
import { type NamespaceCounters, addNamespaceCounters, newNamespaceCounters } from './statistics';
import type { Alive } from './transfer';

/** What {@link NamespaceSet} is made of. */
export interface NamespaceSetOptions {
  /** Greatest namespace id. */
  readonly maxNamespaces: number;
  /** Serial number of the controller. */
  readonly serial: string;
  /** Namespaces to begin with. */
  readonly namespaces: readonly NvmeNamespaceOptions[];
  /** What hosts make namespaces of; null when they cannot. */
  readonly namespaceStore: NamespaceStore | null;
  /** Called with what went wrong in the store, and of storage whose new size cannot be taken over. */
  readonly onWarning: (problem: string) => void;
}

/**
 * The namespaces of a controller by their ids (NVMe base 2.0, 3.2.1). A namespace that was added is allocated. While it is attached,
 * as it is at first, it is active. Commands reach an active namespace, unless it is being formatted. All other ids up to the limit are
 * inactive, and those above are invalid.
 */
export class NamespaceSet {
  /** Called with the id of an active namespace that came, went or changed. */
  onChange: (nsid: number) => void = () => undefined;
  readonly #serial: string;
  readonly #warn: (problem: string) => void;
  readonly #allocated = new Map<number, Namespace>();
  /** By namespace id. It is never resized, and has a null where commands reach no namespace: that keeps the lookup fast. */
  readonly #reached: (Namespace | null)[];
  /** Namespaces that were removed while commands still run. */
  readonly #leaving = new Set<Namespace>();
  /** Namespaces of the store. */
  readonly #created: CreatedNamespaces;
  /** What was counted for namespaces that are gone. */
  readonly #retired = newNamespaceCounters();

  /** @throws TypeError or RangeError when an option of a namespace makes no sense */
  constructor({ maxNamespaces, serial, namespaces, namespaceStore, onWarning }: NamespaceSetOptions) {
    this.#serial = serial;
    this.#created = new CreatedNamespaces(namespaceStore, onWarning);
    this.#warn = onWarning;
    this.#reached = Array.from({ length: maxNamespaces + 1 }, () => null);
    for (const { attached, ...options } of this.#created.kept) {
      const namespace = this.#allocate(options);
      this.#created.add(namespace);
      if (attached) this.attach(namespace);
    }
    // Those without an id get what the others leave.
    for (const options of namespaces) if (options.nsid !== undefined) this.add(options);
    for (const options of namespaces) if (options.nsid === undefined) this.add(options);
  }

  /** Greatest namespace id: NN of Identify Controller. */
  get limit(): number {
    return this.#reached.length - 1;
  }

  /** The active namespaces in the order of their ids. */
  get active(): Namespace[] {
    return this.allocated.filter(({ attached }) => attached);
  }

  /** All namespaces in the order of their ids, those included that are not attached. */
  get allocated(): Namespace[] {
    return Array.from(this.#allocated.values()).sort((a, b) => a.nsid - b.nsid);
  }

  /** Whether hosts can make and delete namespaces. */
  get manageable(): boolean {
    return this.#created.possible;
  }

  /** Bytes of all namespaces, and of those that can be made. */
  get capacity(): number {
    const given = this.allocated.filter((namespace) => !this.#created.has(namespace));
    return given.reduce((sum, { backend }) => sum + backend.size, this.#created.capacity);
  }

  /** Bytes of namespaces that can be made. */
  get unallocated(): number {
    return this.#created.unallocated;
  }

  /** Whether any data may not be durable yet. */
  get volatileCache(): boolean {
    return this.allocated.some(({ backend }) => backend.volatileCache);
  }

  /** Sums of what was done with all namespaces so far. */
  get counters(): NamespaceCounters {
    const sum = { ...this.#retired };
    for (const { counters } of [...this.#allocated.values(), ...this.#leaving])
      addNamespaceCounters(sum, counters);
    return sum;
  }

  /** Finds the namespace that commands for an id reach, which may be any word of a command, also a signed one. */
  find(nsid: number): Namespace | null {
    return nsid > 0 && nsid < this.#reached.length ? (this.#reached[nsid] as Namespace | null) : null;
  }

  /** Finds the active namespace of an id, whether commands reach it or not. */
  findActive(nsid: number): Namespace | null {
    const namespace = this.findAllocated(nsid);
    return namespace?.attached === true ? namespace : null;
  }

  /** Finds the namespace of an id, attached or not. */
  findAllocated(nsid: number): Namespace | null {
    return this.#allocated.get(nsid) ?? null;
  }

  /** Whether a namespace can have the id. */
  isValid(nsid: number): boolean {
    return nsid > 0 && nsid < this.#reached.length;
  }

  /** The outcome of a command for an id that {@link find} does not find (NVMe base 2.0, 3.2.1.2). */
  absence(nsid: number): number {
    if (this.findActive(nsid) !== null) return Outcome.formatInProgress;
    return this.isValid(nsid) ? Outcome.invalidField : Outcome.invalidNamespace;
  }

  /** The namespaces that a command for one or, with the broadcast id, all reaches; an {@link Outcome} when there is none. */
  addressed(nsid: number): readonly Namespace[] | number {
    if (nsid >>> 0 === BROADCAST_NSID) return this.#reached.filter((namespace) => namespace !== null);
    const namespace = this.find(nsid);
    return namespace === null ? this.absence(nsid) : [namespace];
  }

  /**
   * Adds a namespace, and attaches it.
   * @throws TypeError or RangeError when an option makes no sense, or the id is taken
   */
  add(options: NvmeNamespaceOptions): Namespace {
    const namespace = this.#allocate(options);
    this.attach(namespace);
    namespace.backend.onSizeChange?.((size) => {
      void this.#takeOver(namespace, size);
    });
    return namespace;
  }

  /**
   * Makes a namespace of the store, which is not attached.
   * @param size bytes, a multiple of the block size
   * @returns the namespace, or an {@link Outcome}
   */
  async create(size: number, blockSize: BlockSize): Promise<Namespace | number> {
    if (!this.manageable) return Outcome.invalidOpcode;
    if (size > this.unallocated) return Outcome.insufficientCapacity;
    if (this.#allocated.size === this.limit) return Outcome.namespaceIdUnavailable;
    return this.#created.make(
      size,
      // It is another one than those that had its id before.
      (backend) => {
        const identifiers = namespaceIdentifiers({}, backend.identity ?? randomUUID());
        return this.#allocate({ backend, blockSize, ...identifiers });
      },
      (namespace) => this.#remove(namespace),
    );
  }

  /** Attaches or detaches a namespace as a host wants it. Returns an {@link Outcome}; unless it is success, nothing has changed. */
  async setAttached(namespace: Namespace, attached: boolean): Promise<number> {
    const change = (to: boolean): void => {
      if (to) this.attach(namespace);
      else this.detach(namespace);
    };
    change(attached);
    try {
      await this.#created.keep(namespace);
      return Outcome.success;
    } catch (error) {
      change(!attached);
      this.#warn(
        `Namespace ${namespace.nsid} was not ${attached ? 'attached' : 'detached'}: ${asError(error).message}`,
      );
      return Outcome.internalError;
    }
  }

  /** Whether a namespace is one of the store. */
  isCreated(namespace: Namespace): boolean {
    return this.#created.has(namespace);
  }

  /** Whether the block size that a namespace is formatted with outlives the process. */
  keepsFormat(namespace: Namespace): boolean {
    return this.#created.keeps(namespace);
  }

  #allocate(options: NvmeNamespaceOptions): Namespace {
    const nsid = options.nsid ?? this.#free();
    if (!Number.isInteger(nsid) || !this.isValid(nsid)) {
      throw outOfRange(`nsid is an integer from 1 to ${this.limit} (maxNamespaces), got ${nsid}`);
    }
    if (this.#allocated.has(nsid)) throw invalidArgument(`There is a namespace ${nsid} already`);
    const namespace = new Namespace(options, nsid, `${this.#serial} ${nsid}`);
    for (const other of this.#allocated.values()) {
      if (other.backend !== namespace.backend) continue;
      throw invalidArgument(`The backend of namespace ${nsid} is that of namespace ${other.nsid}`);
    }
    this.#allocated.set(nsid, namespace);
    return namespace;
  }

  /**
   * Takes a namespace out, and closes its backend. One of the store goes back to it.
   * @returns resolves when the commands that were using the backend have ended, and what was written is durable. Rejects with a
   *   RangeError when there is no such namespace, and with the error of the backend when it could not be made durable
   */
  async remove(nsid: number): Promise<void> {
    await this.#remove(this.get(nsid));
  }

  async #remove(namespace: Namespace): Promise<void> {
    this.detach(namespace);
    // Another one may have its id by now.
    if (this.#allocated.get(namespace.nsid) !== namespace) return;
    this.#allocated.delete(namespace.nsid);
    this.#leaving.add(namespace);
    try {
      await namespace.close();
    } finally {
      this.#leaving.delete(namespace);
      addNamespaceCounters(this.#retired, namespace.counters);
      await this.#created.giveBack(namespace);
    }
  }

  /**
   * Changes the size of a namespace, see {@link Namespace.resize}. Rejects with a RangeError when there is none.
   */
  async resize(nsid: number, size?: number): Promise<Namespace> {
    const namespace = this.get(nsid);
    const previous = namespace.size;
    try {
      await namespace.resize(size);
    } finally {
      if (namespace.attached && namespace.size !== previous) this.onChange(nsid);
    }
    try {
      await this.#created.keep(namespace);
    } catch (error) {
      this.#warn(
        `Namespace ${nsid} has ${namespace.size} bytes until it is served anew: ${asError(error).message}`,
      );
    }
    return namespace;
  }

  /** The storage of a namespace has got another size by itself. */
  async #takeOver(namespace: Namespace, size: number): Promise<void> {
    const { nsid, blockSize } = namespace;
    if (this.#allocated.get(nsid) !== namespace) return;
    try {
      await this.resize(nsid, Math.floor(size / blockSize) * blockSize);
    } catch (error) {
      this.#warn(`Namespace ${nsid} does not have the new size of its storage: ${asError(error).message}`);
    }
  }

  /**
   * Formats a namespace, see {@link Namespace.format}. Commands do not find it meanwhile, and those that have not reached its backend
   * are aborted.
   */
  async format(namespace: Namespace, blockSize: BlockSize, alive: Alive): Promise<number> {
    // Another command may have begun since the last one was checked.
    if (namespace.formatting !== null) return Outcome.formatInProgress;
    namespace.generation++;
    const formatting = namespace.format(blockSize, alive, async () => {
      try {
        await this.#created.keep(namespace, blockSize);
        return Outcome.success;
      } catch (error) {
        this.#warn(
          `Namespace ${namespace.nsid} was erased and not formatted otherwise: ${asError(error).message}`,
        );
        return Outcome.internalError;
      }
    });
    this.#follow(namespace);
    try {
      return await formatting;
    } finally {
      this.#follow(namespace);
      if (namespace.attached) this.onChange(namespace.nsid);
    }
  }

  /** Makes durable what was written to all namespaces. */
  async flush(): Promise<void> {
    await Promise.all(this.allocated.map((namespace) => namespace.flush()));
  }

  /** Closes the backends at once: nothing uses the controller any more. Idempotent. */
  close(): void {
    for (const { backend } of this.#allocated.values()) backend.close();
    this.#created.close();
  }

  /** Makes a namespace active. */
  attach(namespace: Namespace): void {
    if (namespace.attached) return;
    namespace.attached = true;
    this.#follow(namespace);
    this.onChange(namespace.nsid);
  }

  /** Makes a namespace inactive: commands do not find it any more. Those that have not reached its backend are aborted. */
  detach(namespace: Namespace): void {
    if (!namespace.attached) return;
    namespace.attached = false;
    namespace.generation++;
    this.#follow(namespace);
    this.onChange(namespace.nsid);
  }

  /**
   * The namespace of an id, attached or not.
   * @throws RangeError when there is none
   */
  get(nsid: number): Namespace {
    const namespace = this.#allocated.get(nsid);
    if (namespace === undefined) throw outOfRange(`There is no namespace ${nsid}`);
    return namespace;
  }

  /** Lets commands reach a namespace, or not. */
  #follow(namespace: Namespace): void {
    const { nsid, attached, formatting } = namespace;
    // Another one may have its id by now.
    if (this.#allocated.get(nsid) !== namespace) return;
    this.#reached[nsid] = attached && formatting === null ? namespace : null;
  }

  #free(): number {
    for (let nsid = 1; nsid <= this.limit; nsid++) if (!this.#allocated.has(nsid)) return nsid;
    throw outOfRange(`The controller has all of its ${this.limit} namespaces (maxNamespaces)`);
  }
}
