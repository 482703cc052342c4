// SPDX-License-Identifier: MIT
import { asError } from '../../errors';
import { NvmOpcode } from '../spec/opcodes';
import { SqeWord } from '../spec/submission-entry';
import { BackendResult, type SynchronousBackend } from '../backends';
import type { ClientView, ViewRange } from './client-view';
import { COPY_BYTES, CopyCommand } from './copy-command';
import { DataPointer } from './data-pointer';
import type { FeatureSet } from './feature-set';
import { runFused, unfuse } from './fused-commands';
import { UNSUPPORTED_FLAGS, blockOffset, rangeOutcome, resolveData, startBlock } from './io-words';
import type { Namespace } from './namespace';
import type { NamespaceSet } from './namespace-set';
import { type Deferred, Outcome, type Reply, readFailure, writeFailure } from './outcome';
import { RangeCommands } from './range-commands';
import type { Counters } from './statistics';
import { type Alive, type Parts, commandBytes, readParts, resolveParts, writeParts } from './transfer';

/** Returned by {@link IoCommands.execute} when the command is to be executed by {@link IoCommands.deferred}. */
export const DEFERRED = -1;

/** Bytes that are zeroed without giving the event loop a turn. */
const ZERO_AT_ONCE = 2 ** 20;
/** Memory of a command that moves no data while it waits for the backend. */
const BYTES_WITHOUT_DATA = 2048;

/** The namespace id for all namespaces, as a signed word. */
const BROADCAST = -1;
/** FUA, bit 30 of CDW12. */
const FORCE_UNIT_ACCESS = 1 << 30;
/** DEAC, bit 25 of CDW12 of Write Zeroes: the blocks may be deallocated. */
const DEALLOCATE = 1 << 25;
/** What {@link IoCommands} works with. */
export interface IoContext {
  readonly namespaces: Pick<NamespaceSet, 'find' | 'absence' | 'addressed'>;
  /** Greatest transfer of a command in bytes. */
  readonly maxTransfer: number;
  readonly view: ClientView;
  readonly features: Pick<FeatureSet, 'writeThrough'>;
  readonly counters: Counters;
  /** Told why a flush has failed. */
  readonly onWarning: (reason: string) => void;
}

/** The commands of the NVM command set that the controller has. */
export class IoCommands {
  /** Bytes that commands have read, written and zeroed: what they moved is what takes time. */
  bytesMoved = 0;
  readonly #namespaces: IoContext['namespaces'];
  readonly #maxTransfer: number;
  readonly #view: ClientView;
  readonly #features: IoContext['features'];
  readonly #counters: Counters;
  readonly #onWarning: IoContext['onWarning'];
  readonly #pointer: DataPointer;
  readonly #ranges: RangeCommands;
  readonly #copy: CopyCommand;
  #scratch: Uint8Array | undefined;

  constructor({ namespaces, maxTransfer, view, features, counters, onWarning }: IoContext) {
    this.#namespaces = namespaces;
    this.#maxTransfer = maxTransfer;
    this.#view = view;
    this.#features = features;
    this.#counters = counters;
    this.#onWarning = onWarning;
    this.#pointer = new DataPointer(view, maxTransfer);
    this.#ranges = new RangeCommands(view);
    this.#copy = new CopyCommand(view);
  }

  /**
   * Executes the command that begins at word `at`. Each word is read once, since the host may be writing.
   * @returns an {@link Outcome}, or {@link DEFERRED} when nothing was done
   */
  execute(words: Int32Array, at: number): number {
    const cdw0 = words[at] as number;
    switch (cdw0 & 0xff) {
      case NvmOpcode.read:
      case NvmOpcode.write:
      case NvmOpcode.compare:
        return this.#transfer(words, at, cdw0);
      case NvmOpcode.flush:
        return this.#flush(words, at, cdw0);
      case NvmOpcode.writeZeroes:
        return this.#writeZeroes(words, at, cdw0);
      default:
        if (!this.#isSlow(cdw0 & 0xff)) return Outcome.invalidOpcode;
        return (cdw0 & UNSUPPORTED_FLAGS) === 0 ? DEFERRED : Outcome.invalidField;
    }
  }

  /**
   * A command for which {@link execute} has returned {@link DEFERRED}. It is checked again: the host may have changed it before
   * the copy was made.
   * @param words a copy of the command
   * @param alive whether the command still matters
   */
  deferred(words: Int32Array, alive: Alive): Deferred {
    const opcode = (words[0] as number) & 0xff;
    const nsid = words[SqeWord.nsid] as number;
    if (opcode === NvmOpcode.flush) return withoutData(() => this.#flushSlowly(nsid, alive));
    const namespace = this.#namespaces.find(nsid);
    if (namespace === null) return withoutData(() => this.#namespaces.absence(nsid));
    const bytes = this.#bytes(namespace, opcode, words);
    const reaches = reaching(namespace, alive);
    const run = (): Promise<Reply> => namespace.run(() => this.#executeSlowly(namespace, words, reaches));
    return { bytes, run: () => this.#reply(namespace, run) };
  }

  /**
   * Two fused commands: their reply tells the outcomes of both.
   * @param first a copy of the first command
   * @param second a copy of the second command
   * @param alive whether the commands still matter
   */
  fused(first: Int32Array, second: Int32Array, alive: Alive): Deferred {
    if (!unfuse(first, second)) return withoutData(() => Outcome.invalidField);
    const nsid = first[SqeWord.nsid] as number;
    const namespace = this.#namespaces.find(nsid);
    if (namespace === null) return withoutData(() => this.#namespaces.absence(nsid));
    const bytes = 2 * this.#bytes(namespace, NvmOpcode.compare, first);
    const reaches = reaching(namespace, alive);
    const part = (words: Int32Array) => () => this.#executeSlowly(namespace, words, reaches);
    const run = (): Promise<Reply> => namespace.alone(() => runFused(part(first), part(second)));
    return { bytes, run: () => this.#reply(namespace, run) };
  }

  /** A failure after a namespace has gone, or is formatted, is that of a command that came after that. */
  async #reply(namespace: Namespace, run: () => Promise<Reply>): Promise<Reply> {
    const { generation } = namespace;
    const reply = await run();
    if (reply.outcome === Outcome.success || namespace.generation === generation) return reply;
    return { outcome: this.#namespaces.absence(namespace.nsid) };
  }

  /** Whether a command is always deferred. */
  #isSlow(opcode: number): boolean {
    return opcode === NvmOpcode.copy || this.#ranges.has(opcode);
  }

  /** Most memory that a command needs while it runs. */
  #bytes(namespace: Namespace, opcode: number, words: Int32Array): number {
    if (opcode === NvmOpcode.writeZeroes) return BYTES_WITHOUT_DATA;
    if (opcode === NvmOpcode.copy) return commandBytes(COPY_BYTES / 2);
    if (this.#ranges.has(opcode)) return BYTES_WITHOUT_DATA + this.#ranges.bytes(opcode);
    const length = (((words[SqeWord.cdw12] as number) & 0xffff) + 1) * namespace.blockSize;
    return commandBytes(Math.min(length, this.#maxTransfer)); // A longer transfer is refused.
  }

  /** A command for this namespace id ended with an error. */
  failed(nsid: number): void {
    const namespace = this.#namespaces.find(nsid);
    if (namespace !== null) namespace.counters.errors++;
  }

  /** @param alive whether the command still matters, and its namespace is there */
  async #executeSlowly(namespace: Namespace, words: Int32Array, alive: Alive): Promise<Reply> {
    this.#counters.slowCommands++;
    if (!alive()) return { outcome: Outcome.internalError };
    const opcode = (words[0] as number) & 0xff;
    if (opcode === NvmOpcode.copy) {
      const reply = await this.#copy.run(namespace, words, alive);
      const durable = this.#isDurable(namespace, words[SqeWord.cdw12] as number);
      return reply.outcome === Outcome.success && durable
        ? { outcome: await this.#makeDurable(namespace) }
        : reply;
    }
    if (this.#ranges.has(opcode)) return this.#ranges.run(namespace, words, alive);
    if (opcode === NvmOpcode.read || opcode === NvmOpcode.compare) {
      const bad = badBlockOf(namespace, words);
      if (bad >= 0) return { outcome: Outcome.unrecoveredReadError, lba: bad };
    }
    const outcome = await this.#transferSlowly(namespace, words, alive);
    if (outcome === Outcome.success && (opcode === NvmOpcode.write || opcode === NvmOpcode.writeZeroes)) {
      const start = startBlock(words, 0);
      namespace.badBlocks.delete(start, start + ((words[SqeWord.cdw12] as number) & 0xffff) + 1);
    }
    return { outcome };
  }

  async #transferSlowly(namespace: Namespace, words: Int32Array, alive: Alive): Promise<number> {
    const cdw0 = words[0] as number;
    const opcode = cdw0 & 0xff;
    const cdw12 = words[SqeWord.cdw12] as number;
    const offset = blockOffset(namespace, words, 0, cdw0, cdw12);
    if (offset < 0) return rangeOutcome(cdw0);
    const length = ((cdw12 & 0xffff) + 1) * namespace.blockSize;
    if (opcode === NvmOpcode.writeZeroes) return this.#zeroSlowly(namespace, offset, length, cdw12, alive);
    if (length > this.#maxTransfer) return Outcome.invalidField;
    const parts = await resolveParts(this.#view, length, alive, (pointer, lists) =>
      resolveData(pointer, words, 0, cdw0, length, lists),
    );
    if (parts.outcome !== Outcome.success) return parts.outcome;
    switch (opcode) {
      case NvmOpcode.read:
        return this.#readSlowly(namespace, offset, length, parts, alive);
      case NvmOpcode.write:
        return this.#writeSlowly(namespace, offset, length, parts, cdw12, alive);
      case NvmOpcode.compare:
        return this.#compareSlowly(namespace, offset, length, parts, alive);
      default:
        return Outcome.invalidOpcode;
    }
  }

  #transfer(words: Int32Array, at: number, cdw0: number): number {
    const nsid = words[at + SqeWord.nsid] as number;
    const namespace = this.#namespaces.find(nsid);
    if (namespace === null) return this.#namespaces.absence(nsid);
    const opcode = cdw0 & 0xff;
    const cdw12 = words[at + SqeWord.cdw12] as number;
    const offset = blockOffset(namespace, words, at, cdw0, cdw12);
    if (offset < 0) return rangeOutcome(cdw0);
    const length = ((cdw12 & 0xffff) + 1) * namespace.blockSize;
    if (length > this.#maxTransfer) return Outcome.invalidField;
    const backend = namespace.synchronous;
    if (backend === null || !namespace.isDirect(offset, length)) return DEFERRED;
    if (opcode === NvmOpcode.write && this.#isDurable(namespace, cdw12)) return DEFERRED;
    const pointer = this.#pointer;
    const outcome = resolveData(pointer, words, at, cdw0, length);
    if (pointer.missingList >= 0) return DEFERRED;
    if (outcome !== Outcome.success) return outcome;
    if (!pointer.mapped) return DEFERRED;
    switch (opcode) {
      case NvmOpcode.read:
        return this.#read(namespace, backend, offset, length);
      case NvmOpcode.write:
        return this.#write(namespace, backend, offset, length);
      default:
        return this.#compare(namespace, backend, offset, length);
    }
  }

  #read(namespace: Namespace, backend: SynchronousBackend, offset: number, length: number): number {
    const { count, ranges, addresses, lengths } = this.#pointer;
    let from = offset;
    for (let i = 0; i < count; i++) {
      const range = ranges[i] as ViewRange;
      const part = lengths[i] as number;
      const result = backend.read(from, range.bytes, (addresses[i] as number) + range.bias, part);
      if (result !== BackendResult.success) return readFailure(result);
      from += part;
    }
    namespace.counters.readCommands++;
    namespace.counters.bytesRead += length;
    this.bytesMoved += length;
    return Outcome.success;
  }

  #write(namespace: Namespace, backend: SynchronousBackend, offset: number, length: number): number {
    const { count, ranges, addresses, lengths } = this.#pointer;
    let to = offset;
    for (let i = 0; i < count; i++) {
      const range = ranges[i] as ViewRange;
      const part = lengths[i] as number;
      const result = backend.write(to, range.bytes, (addresses[i] as number) + range.bias, part);
      if (result !== BackendResult.success) return writeFailure(result);
      to += part;
    }
    namespace.counters.writeCommands++;
    namespace.counters.bytesWritten += length;
    this.bytesMoved += length;
    return Outcome.success;
  }

  #compare(namespace: Namespace, backend: SynchronousBackend, offset: number, length: number): number {
    const { count, ranges, addresses, lengths } = this.#pointer;
    const scratch = (this.#scratch ??= new Uint8Array(this.#maxTransfer));
    const result = backend.read(offset, scratch, 0, length);
    if (result !== BackendResult.success) return readFailure(result);
    namespace.counters.otherCommands++;
    namespace.counters.bytesRead += length;
    this.bytesMoved += length;
    let at = 0;
    for (let i = 0; i < count; i++) {
      const range = ranges[i] as ViewRange;
      const part = lengths[i] as number;
      const theirs = new Uint8Array(range.buffer, (addresses[i] as number) + range.bias, part);
      if (Buffer.compare(theirs, scratch.subarray(at, at + part)) !== 0) return Outcome.compareFailure;
      at += part;
    }
    return Outcome.success;
  }

  #flush(words: Int32Array, at: number, cdw0: number): number {
    if ((cdw0 & UNSUPPORTED_FLAGS) !== 0) return Outcome.invalidField;
    const nsid = words[at + SqeWord.nsid] as number;
    const namespace = this.#namespaces.find(nsid);
    if (namespace === null && nsid !== BROADCAST) return this.#namespaces.absence(nsid);
    if (namespace === null || namespace.backend.volatileCache) return DEFERRED;
    namespace.counters.otherCommands++;
    return Outcome.success;
  }

  /** Flushes one namespace or, for the broadcast id, all. */
  async #flushSlowly(nsid: number, alive: Alive): Promise<number> {
    this.#counters.slowCommands++;
    const namespaces = this.#namespaces.addressed(nsid);
    if (typeof namespaces === 'number') return namespaces;
    if (!alive()) return Outcome.internalError;
    const outcomes = await Promise.all(
      namespaces.map((namespace) => {
        namespace.counters.otherCommands++;
        return namespace.run(() => this.#makeDurable(namespace));
      }),
    );
    return outcomes.find((outcome) => outcome !== Outcome.success) ?? Outcome.success;
  }

  #writeZeroes(words: Int32Array, at: number, cdw0: number): number {
    const nsid = words[at + SqeWord.nsid] as number;
    const namespace = this.#namespaces.find(nsid);
    if (namespace === null) return this.#namespaces.absence(nsid);
    const cdw12 = words[at + SqeWord.cdw12] as number;
    const offset = blockOffset(namespace, words, at, cdw0, cdw12);
    if (offset < 0) return rangeOutcome(cdw0);
    namespace.counters.otherCommands++;
    const length = ((cdw12 & 0xffff) + 1) * namespace.blockSize;
    const backend = namespace.synchronous;
    if (backend === null || length > ZERO_AT_ONCE || !namespace.isDirect(offset, length)) return DEFERRED;
    if (this.#isDurable(namespace, cdw12)) return DEFERRED;
    const result = backend.zero(offset, length, (cdw12 & DEALLOCATE) !== 0);
    namespace.counters.bytesZeroed += length;
    this.bytesMoved += length;
    return result === BackendResult.success ? Outcome.success : writeFailure(result);
  }

  async #readSlowly(
    namespace: Namespace,
    offset: number,
    length: number,
    parts: Parts,
    alive: Alive,
  ): Promise<number> {
    const data = new Uint8Array(length);
    if (!alive()) return Outcome.internalError;
    const result = await namespace.backend.read(offset, data, 0, length);
    if (result !== BackendResult.success) return readFailure(result);
    namespace.counters.readCommands++;
    namespace.counters.bytesRead += length;
    this.bytesMoved += length;
    return writeParts(this.#view, parts, data, alive);
  }

  async #writeSlowly(
    namespace: Namespace,
    offset: number,
    length: number,
    parts: Parts,
    cdw12: number,
    alive: Alive,
  ): Promise<number> {
    const data = await readParts(this.#view, parts, length, alive);
    if (data === undefined || !alive.commit()) return Outcome.dataTransferError;
    const result = await namespace.backend.write(offset, data, 0, length);
    if (result !== BackendResult.success) return writeFailure(result);
    namespace.counters.writeCommands++;
    namespace.counters.bytesWritten += length;
    this.bytesMoved += length;
    return this.#isDurable(namespace, cdw12) ? this.#makeDurable(namespace) : Outcome.success;
  }

  async #compareSlowly(
    namespace: Namespace,
    offset: number,
    length: number,
    parts: Parts,
    alive: Alive,
  ): Promise<number> {
    const theirs = await readParts(this.#view, parts, length, alive);
    if (theirs === undefined || !alive()) return Outcome.dataTransferError;
    namespace.counters.otherCommands++;
    namespace.counters.bytesRead += length;
    this.bytesMoved += length;
    const ours = new Uint8Array(length);
    const result = await namespace.backend.read(offset, ours, 0, length);
    if (result !== BackendResult.success) return readFailure(result);
    return Buffer.compare(theirs, ours) === 0 ? Outcome.success : Outcome.compareFailure;
  }

  async #zeroSlowly(
    namespace: Namespace,
    offset: number,
    length: number,
    cdw12: number,
    alive: Alive,
  ): Promise<number> {
    const atOnce = namespace.synchronous === null ? length : ZERO_AT_ONCE;
    for (let done = 0; done < length; done += atOnce) {
      if (!alive.commit()) return Outcome.internalError;
      const part = Math.min(atOnce, length - done);
      const result = await namespace.backend.zero(offset + done, part, (cdw12 & DEALLOCATE) !== 0);
      namespace.counters.bytesZeroed += part;
      this.bytesMoved += part;
      if (result !== BackendResult.success) return writeFailure(result);
      await new Promise(setImmediate);
    }
    return this.#isDurable(namespace, cdw12) ? this.#makeDurable(namespace) : Outcome.success;
  }

  /** Makes durable what was written to a namespace. Returns an {@link Outcome}: that is all that the host can be told. */
  async #makeDurable(namespace: Namespace): Promise<number> {
    try {
      await namespace.flush();
      return Outcome.success;
    } catch (error) {
      this.#onWarning(`Namespace ${namespace.nsid} was not made durable: ${asError(error).message}`);
      return Outcome.writeFault;
    }
  }

  /** Whether a write is complete only when it is durable. */
  #isDurable(namespace: Namespace, cdw12: number): boolean {
    return (
      namespace.backend.volatileCache && ((cdw12 & FORCE_UNIT_ACCESS) !== 0 || this.#features.writeThrough)
    );
  }
}

/** A command that has no data in the client's memory, to be run later. */
function withoutData(run: () => number | Promise<number>): Deferred {
  return { bytes: BYTES_WITHOUT_DATA, run: async () => ({ outcome: await run() }) };
}

/** Tells whether a command still matters, and may reach the backend of its namespace. */
function reaching(namespace: Namespace, alive: Alive): Alive {
  const { generation } = namespace;
  const reaches = (): boolean => namespace.generation === generation;
  return Object.assign(() => alive() && reaches(), { commit: () => reaches() && alive.commit() });
}

/** The first block that a command reads and that cannot be read; -1 when there is none. */
function badBlockOf({ badBlocks }: Namespace, words: Int32Array): number {
  const start = startBlock(words, 0);
  return badBlocks.firstIn(start, start + ((words[SqeWord.cdw12] as number) & 0xffff) + 1);
}
