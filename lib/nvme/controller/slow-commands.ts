// SPDX-License-Identifier: MIT
import { BackendResult } from '../backends';
import { NvmOpcode } from '../spec/opcodes';
import { SqeWord } from '../spec/submission-entry';
import type { ClientView } from './client-view';
import { COPY_BYTES, CopyCommand } from './copy-command';
import type { Durability } from './durability';
import type { FeatureSet } from './feature-set';
import { runFused, unfuse } from './fused-commands';
import { DEALLOCATE, blockOffset, rangeOutcome, resolveData, startBlock } from './io-words';
import type { Namespace } from './namespace';
import type { NamespaceSet } from './namespace-set';
import { type Deferred, Outcome, type Reply, readFailure, writeFailure } from './outcome';
import { RangeCommands } from './range-commands';
import type { Counters } from './statistics';
import { type Alive, type Parts, commandBytes, readParts, resolveParts, writeParts } from './transfer';

/** Bytes that are zeroed without giving the event loop a turn. */
export const ZERO_AT_ONCE = 2 ** 20;
/** Memory of a command that moves no data while it waits for the backend. */
const BYTES_WITHOUT_DATA = 2048;

/** What I/O commands work with. */
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

/**
 * The I/O commands that take more than a turn of the event loop: those that wait for the backend, or for memory that is reached by
 * message, and all that are seldom enough not to matter to the speed. They work on copies.
 */
export class SlowCommands {
  readonly #namespaces: IoContext['namespaces'];
  readonly #maxTransfer: number;
  readonly #view: ClientView;
  readonly #counters: Counters;
  readonly #durability: Durability;
  readonly #ranges: RangeCommands;
  readonly #copy: CopyCommand;

  constructor({ namespaces, maxTransfer, view, counters }: IoContext, durability: Durability) {
    this.#namespaces = namespaces;
    this.#maxTransfer = maxTransfer;
    this.#view = view;
    this.#counters = counters;
    this.#durability = durability;
    this.#ranges = new RangeCommands(view);
    this.#copy = new CopyCommand(view);
  }

  /** Whether commands of an opcode are always executed here. */
  has(opcode: number): boolean {
    return opcode === NvmOpcode.copy || this.#ranges.has(opcode);
  }

  /**
   * A command that is to be executed here. It is checked again: the host may have changed it before
   * the copy was made.
   * @param words a copy of the command
   * @param alive whether the command still matters
   */
  deferred(words: Int32Array, alive: Alive): Deferred {
    const opcode = (words[0] as number) & 0xff;
    const nsid = words[SqeWord.nsid] as number;
    if (opcode === NvmOpcode.flush) return withoutData(() => this.#flush(nsid, alive));
    const namespace = this.#namespaces.find(nsid);
    if (namespace === null) return withoutData(() => this.#namespaces.absence(nsid));
    const bytes = this.#bytes(namespace, opcode, words);
    const reaches = reaching(namespace, alive);
    const run = (): Promise<Reply> => namespace.run(() => this.#execute(namespace, words, reaches));
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
    const part = (words: Int32Array) => () => this.#execute(namespace, words, reaches);
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

  /** Most memory that a command needs while it runs. */
  #bytes(namespace: Namespace, opcode: number, words: Int32Array): number {
    if (opcode === NvmOpcode.writeZeroes) return BYTES_WITHOUT_DATA;
    if (opcode === NvmOpcode.copy) return commandBytes(COPY_BYTES / 2);
    if (this.#ranges.has(opcode)) return BYTES_WITHOUT_DATA + this.#ranges.bytes(opcode);
    const length = (((words[SqeWord.cdw12] as number) & 0xffff) + 1) * namespace.blockSize;
    return commandBytes(Math.min(length, this.#maxTransfer)); // A longer transfer is refused.
  }

  /** @param alive whether the command still matters, and its namespace is there */
  async #execute(namespace: Namespace, words: Int32Array, alive: Alive): Promise<Reply> {
    this.#counters.slowCommands++;
    if (!alive()) return { outcome: Outcome.internalError };
    const opcode = (words[0] as number) & 0xff;
    if (opcode === NvmOpcode.copy) {
      const reply = await this.#copy.run(namespace, words, alive);
      const durable = this.#durability.isAsked(namespace, words[SqeWord.cdw12] as number);
      return reply.outcome === Outcome.success && durable
        ? { outcome: await this.#durability.make(namespace) }
        : reply;
    }
    if (this.#ranges.has(opcode)) return this.#ranges.run(namespace, words, alive);
    if (opcode === NvmOpcode.read || opcode === NvmOpcode.compare) {
      const bad = badBlockOf(namespace, words);
      if (bad >= 0) return { outcome: Outcome.unrecoveredReadError, lba: bad };
    }
    const outcome = await this.#transfer(namespace, words, alive);
    if (outcome === Outcome.success && (opcode === NvmOpcode.write || opcode === NvmOpcode.writeZeroes)) {
      const start = startBlock(words, 0);
      namespace.badBlocks.delete(start, start + ((words[SqeWord.cdw12] as number) & 0xffff) + 1);
    }
    return { outcome };
  }

  async #transfer(namespace: Namespace, words: Int32Array, alive: Alive): Promise<number> {
    const cdw0 = words[0] as number;
    const opcode = cdw0 & 0xff;
    const cdw12 = words[SqeWord.cdw12] as number;
    const offset = blockOffset(namespace, words, 0, cdw0, cdw12);
    if (offset < 0) return rangeOutcome(cdw0);
    const length = ((cdw12 & 0xffff) + 1) * namespace.blockSize;
    if (opcode === NvmOpcode.writeZeroes) return this.#zero(namespace, offset, length, cdw12, alive);
    if (length > this.#maxTransfer) return Outcome.invalidField;
    const parts = await resolveParts(this.#view, length, alive, (pointer, lists) =>
      resolveData(pointer, words, 0, cdw0, length, lists),
    );
    if (parts.outcome !== Outcome.success) return parts.outcome;
    switch (opcode) {
      case NvmOpcode.read:
        return this.#read(namespace, offset, length, parts, alive);
      case NvmOpcode.write:
        return this.#write(namespace, offset, length, parts, cdw12, alive);
      case NvmOpcode.compare:
        return this.#compare(namespace, offset, length, parts, alive);
      default:
        return Outcome.invalidOpcode;
    }
  }

  /** Flushes one namespace or, for the broadcast id, all. */
  async #flush(nsid: number, alive: Alive): Promise<number> {
    this.#counters.slowCommands++;
    const namespaces = this.#namespaces.addressed(nsid);
    if (typeof namespaces === 'number') return namespaces;
    if (!alive()) return Outcome.internalError;
    const outcomes = await Promise.all(
      namespaces.map((namespace) => {
        namespace.counters.otherCommands++;
        return namespace.run(() => this.#durability.make(namespace));
      }),
    );
    return outcomes.find((outcome) => outcome !== Outcome.success) ?? Outcome.success;
  }

  async #read(
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
    return writeParts(this.#view, parts, data, alive);
  }

  async #write(
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
    return this.#durability.isAsked(namespace, cdw12) ? this.#durability.make(namespace) : Outcome.success;
  }

  async #compare(
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
    const ours = new Uint8Array(length);
    const result = await namespace.backend.read(offset, ours, 0, length);
    if (result !== BackendResult.success) return readFailure(result);
    return Buffer.compare(theirs, ours) === 0 ? Outcome.success : Outcome.compareFailure;
  }

  async #zero(
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
      if (result !== BackendResult.success) return writeFailure(result);
      await new Promise(setImmediate);
    }
    return this.#durability.isAsked(namespace, cdw12) ? this.#durability.make(namespace) : Outcome.success;
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
