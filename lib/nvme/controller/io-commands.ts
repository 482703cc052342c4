// SPDX-License-Identifier: MIT
import { BROADCAST_NSID, NvmOpcode } from '../spec/opcodes';
import { SqeWord } from '../spec/submission-entry';
import { type Backend, BackendResult, type SynchronousBackend } from '../backends';
import type { ClientView, ViewRange } from './client-view';
import { DataPointer, type FetchedLists } from './data-pointer';
import type { FeatureSet } from './feature-set';
import { NAMESPACE_ID, type Namespace } from './namespace';
import { type Deferred, Outcome, readFailure, writeFailure } from './outcome';
import type { Counters } from './statistics';
import { type Alive, type Parts, commandBytes, readParts, resolveParts, writeParts } from './transfer';

/** Returned by {@link IoCommands.execute} when the command is to be executed by {@link IoCommands.deferred}. */
export const DEFERRED = -1;

/** Bytes that are zeroed without giving the event loop a turn. */
const ZERO_AT_ONCE = 2 ** 20;
/** Memory of a command that moves no data while it waits for the backend. */
const BYTES_WITHOUT_DATA = 2048;

const TWO_32 = 0x1_0000_0000;
/** FUA, bit 30 of CDW12. */
const FORCE_UNIT_ACCESS = 1 << 30;
/** DEAC, bit 25 of CDW12 of Write Zeroes: the blocks may be deallocated. */
const DEALLOCATE = 1 << 25;
/** FUSE, bits 9:8 of CDW0, and the upper bit of PSDT, 15:14: neither fused commands nor SGLs of metadata are offered. */
const UNSUPPORTED_FLAGS = 0x8300;
/** PSDT of 1: the data pointer is an SGL descriptor. */
const SGL = 0x4000;

/** What {@link IoCommands} works with. */
export interface IoContext {
  readonly namespace: Namespace;
  /** Greatest transfer of a command in bytes. */
  readonly maxTransfer: number;
  readonly view: ClientView;
  readonly features: Pick<FeatureSet, 'writeThrough'>;
  readonly counters: Counters;
}

/** The commands of the NVM command set that the controller has. */
export class IoCommands {
  readonly #backend: Backend;
  /** The same when it is synchronous, and null otherwise: then its commands are deferred. */
  readonly #synchronous: SynchronousBackend | null;
  readonly #blockSize: number;
  readonly #blocks: number;
  readonly #maxTransfer: number;
  readonly #view: ClientView;
  readonly #features: IoContext['features'];
  readonly #counters: Counters;
  readonly #pointer: DataPointer;
  #scratch: Uint8Array | undefined;

  constructor({ namespace, maxTransfer, view, features, counters }: IoContext) {
    this.#backend = namespace.backend;
    this.#synchronous = namespace.synchronous;
    this.#blockSize = namespace.blockSize;
    this.#blocks = namespace.blocks;
    this.#maxTransfer = maxTransfer;
    this.#view = view;
    this.#features = features;
    this.#counters = counters;
    this.#pointer = new DataPointer(view, maxTransfer);
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
        return Outcome.invalidOpcode;
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
    const hasData = opcode !== NvmOpcode.flush && opcode !== NvmOpcode.writeZeroes;
    const length = (((words[SqeWord.cdw12] as number) & 0xffff) + 1) * this.#blockSize;
    return {
      // A longer transfer is refused.
      bytes: hasData ? commandBytes(Math.min(length, this.#maxTransfer)) : BYTES_WITHOUT_DATA,
      run: async () => ({ outcome: await this.#executeSlowly(words, alive) }),
    };
  }

  async #executeSlowly(words: Int32Array, alive: Alive): Promise<number> {
    this.#counters.slowCommands++;
    if (!alive()) return Outcome.internalError;
    const cdw0 = words[0] as number;
    const opcode = cdw0 & 0xff;
    if (opcode === NvmOpcode.flush) return this.#makeDurable();
    const cdw12 = words[SqeWord.cdw12] as number;
    const offset = this.#offset(words, 0, cdw0, cdw12);
    if (offset < 0) return this.#rangeOutcome(words, 0, cdw0);
    const length = ((cdw12 & 0xffff) + 1) * this.#blockSize;
    if (opcode === NvmOpcode.writeZeroes) return this.#zeroSlowly(offset, length, cdw12, alive);
    if (length > this.#maxTransfer) return Outcome.invalidField;
    const parts = await resolveParts(this.#view, length, alive, (pointer, lists) =>
      resolve(pointer, words, 0, cdw0, length, lists),
    );
    if (parts.outcome !== Outcome.success) return parts.outcome;
    switch (opcode) {
      case NvmOpcode.read:
        return this.#readSlowly(offset, length, parts, alive);
      case NvmOpcode.write:
        return this.#writeSlowly(offset, length, parts, cdw12, alive);
      case NvmOpcode.compare:
        return this.#compareSlowly(offset, length, parts, alive);
      default:
        return Outcome.invalidOpcode;
    }
  }

  #transfer(words: Int32Array, at: number, cdw0: number): number {
    const opcode = cdw0 & 0xff;
    const cdw12 = words[at + SqeWord.cdw12] as number;
    const offset = this.#offset(words, at, cdw0, cdw12);
    if (offset < 0) return this.#rangeOutcome(words, at, cdw0);
    const length = ((cdw12 & 0xffff) + 1) * this.#blockSize;
    if (length > this.#maxTransfer) return Outcome.invalidField;
    const backend = this.#synchronous;
    if (backend === null || (opcode === NvmOpcode.write && this.#isDurable(cdw12))) return DEFERRED;
    const pointer = this.#pointer;
    const outcome = resolve(pointer, words, at, cdw0, length);
    if (pointer.missingList >= 0) return DEFERRED;
    if (outcome !== Outcome.success) return outcome;
    if (!pointer.mapped) return DEFERRED;
    switch (opcode) {
      case NvmOpcode.read:
        return this.#read(backend, offset, length);
      case NvmOpcode.write:
        return this.#write(backend, offset, length);
      default:
        return this.#compare(backend, offset, length);
    }
  }

  #read(backend: SynchronousBackend, offset: number, length: number): number {
    const { count, ranges, addresses, lengths } = this.#pointer;
    let from = offset;
    for (let i = 0; i < count; i++) {
      const range = ranges[i] as ViewRange;
      const part = lengths[i] as number;
      const result = backend.read(from, range.bytes, (addresses[i] as number) + range.bias, part);
      if (result !== BackendResult.success) return readFailure(result);
      from += part;
    }
    this.#counters.readCommands++;
    this.#counters.bytesRead += length;
    return Outcome.success;
  }

  #write(backend: SynchronousBackend, offset: number, length: number): number {
    const { count, ranges, addresses, lengths } = this.#pointer;
    let to = offset;
    for (let i = 0; i < count; i++) {
      const range = ranges[i] as ViewRange;
      const part = lengths[i] as number;
      const result = backend.write(to, range.bytes, (addresses[i] as number) + range.bias, part);
      if (result !== BackendResult.success) return writeFailure(result);
      to += part;
    }
    this.#counters.writeCommands++;
    this.#counters.bytesWritten += length;
    return Outcome.success;
  }

  #compare(backend: SynchronousBackend, offset: number, length: number): number {
    const { count, ranges, addresses, lengths } = this.#pointer;
    const scratch = (this.#scratch ??= new Uint8Array(this.#maxTransfer));
    const result = backend.read(offset, scratch, 0, length);
    if (result !== BackendResult.success) return readFailure(result);
    this.#counters.otherCommands++;
    this.#counters.bytesRead += length;
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
    const nsid = words[at + SqeWord.nsid] as number;
    if ((cdw0 & UNSUPPORTED_FLAGS) !== 0) return Outcome.invalidField;
    if (nsid !== NAMESPACE_ID && nsid !== (BROADCAST_NSID | 0)) return Outcome.invalidNamespace;
    this.#counters.otherCommands++;
    return this.#backend.volatileCache ? DEFERRED : Outcome.success;
  }

  #writeZeroes(words: Int32Array, at: number, cdw0: number): number {
    const cdw12 = words[at + SqeWord.cdw12] as number;
    const offset = this.#offset(words, at, cdw0, cdw12);
    if (offset < 0) return this.#rangeOutcome(words, at, cdw0);
    this.#counters.otherCommands++;
    const length = ((cdw12 & 0xffff) + 1) * this.#blockSize;
    const backend = this.#synchronous;
    if (backend === null || length > ZERO_AT_ONCE || this.#isDurable(cdw12)) return DEFERRED;
    const result = backend.zero(offset, length, (cdw12 & DEALLOCATE) !== 0);
    this.#counters.bytesZeroed += length;
    return result === BackendResult.success ? Outcome.success : writeFailure(result);
  }

  async #readSlowly(offset: number, length: number, parts: Parts, alive: Alive): Promise<number> {
    const data = new Uint8Array(length);
    if (!alive()) return Outcome.internalError;
    const result = await this.#backend.read(offset, data, 0, length);
    if (result !== BackendResult.success) return readFailure(result);
    this.#counters.readCommands++;
    this.#counters.bytesRead += length;
    return writeParts(this.#view, parts, data, alive);
  }

  async #writeSlowly(
    offset: number,
    length: number,
    parts: Parts,
    cdw12: number,
    alive: Alive,
  ): Promise<number> {
    const data = await readParts(this.#view, parts, length, alive);
    if (data === undefined || !alive()) return Outcome.dataTransferError;
    const result = await this.#backend.write(offset, data, 0, length);
    if (result !== BackendResult.success) return writeFailure(result);
    this.#counters.writeCommands++;
    this.#counters.bytesWritten += length;
    return this.#isDurable(cdw12) ? this.#makeDurable() : Outcome.success;
  }

  async #compareSlowly(offset: number, length: number, parts: Parts, alive: Alive): Promise<number> {
    const theirs = await readParts(this.#view, parts, length, alive);
    if (theirs === undefined || !alive()) return Outcome.dataTransferError;
    this.#counters.otherCommands++;
    this.#counters.bytesRead += length;
    const ours = new Uint8Array(length);
    const result = await this.#backend.read(offset, ours, 0, length);
    if (result !== BackendResult.success) return readFailure(result);
    return Buffer.compare(theirs, ours) === 0 ? Outcome.success : Outcome.compareFailure;
  }

  async #zeroSlowly(offset: number, length: number, cdw12: number, alive: Alive): Promise<number> {
    const atOnce = this.#synchronous === null ? length : ZERO_AT_ONCE;
    for (let done = 0; done < length; done += atOnce) {
      if (!alive()) return Outcome.internalError;
      const part = Math.min(atOnce, length - done);
      const result = await this.#backend.zero(offset + done, part, (cdw12 & DEALLOCATE) !== 0);
      this.#counters.bytesZeroed += part;
      if (result !== BackendResult.success) return writeFailure(result);
      await new Promise(setImmediate);
    }
    return this.#isDurable(cdw12) ? this.#makeDurable() : Outcome.success;
  }

  async #makeDurable(): Promise<number> {
    try {
      await this.#backend.flush();
      return Outcome.success;
    } catch {
      return Outcome.writeFault; // The status is all that the host can be told.
    }
  }

  /** Whether a write is complete only when it is durable. */
  #isDurable(cdw12: number): boolean {
    return this.#backend.volatileCache && ((cdw12 & FORCE_UNIT_ACCESS) !== 0 || this.#features.writeThrough);
  }

  /** Where the blocks of a command begin in the backend. When it is -1, {@link #rangeOutcome} tells what is wrong. */
  #offset(words: Int32Array, at: number, cdw0: number, cdw12: number): number {
    const lba = startBlock(words, at);
    if ((cdw0 & UNSUPPORTED_FLAGS) !== 0 || words[at + SqeWord.nsid] !== NAMESPACE_ID) return -1;
    // An LBA of 2^53 or more is rounded, and stays beyond every namespace.
    return lba + (cdw12 & 0xffff) + 1 > this.#blocks ? -1 : lba * this.#blockSize;
  }

  #rangeOutcome(words: Int32Array, at: number, cdw0: number): number {
    if ((cdw0 & UNSUPPORTED_FLAGS) !== 0) return Outcome.invalidField;
    return words[at + SqeWord.nsid] === NAMESPACE_ID ? Outcome.lbaOutOfRange : Outcome.invalidNamespace;
  }
}

/** Finds the data of the command at word `at`. Each word is read once. Returns an {@link Outcome}. */
function resolve(
  pointer: DataPointer,
  words: Int32Array,
  at: number,
  cdw0: number,
  length: number,
  lists?: FetchedLists,
): number {
  const toClient = (cdw0 & 0xff) === NvmOpcode.read;
  const first = address(words, at + SqeWord.prp1Low);
  const second = at + SqeWord.prp2Low;
  if ((cdw0 & SGL) === 0) return pointer.resolve(first, address(words, second), length, toClient, lists);
  const size = (words[second] as number) >>> 0;
  return pointer.resolveSgl(first, size, words[second + 1] as number, length, toClient, lists);
}

/** The 64-bit address in two words. What is rounded, from 2^53 on, does not become less than 2^53. */
function address(words: Int32Array | Uint32Array, at: number): number {
  return ((words[at + 1] as number) >>> 0) * TWO_32 + ((words[at] as number) >>> 0);
}

/** SLBA of Read, Write, Compare and Write Zeroes: CDW10 and CDW11. */
export function startBlock(words: Int32Array | Uint32Array, at: number): number {
  return address(words, at + SqeWord.cdw10);
}
