// SPDX-License-Identifier: MIT
import { BackendResult, type SynchronousBackend } from '../backends';
import { NvmOpcode } from '../spec/opcodes';
import { SqeWord } from '../spec/submission-entry';
import type { ViewRange } from './client-view';
import { DataPointer } from './data-pointer';
import { Durability } from './durability';
import { DEALLOCATE, UNSUPPORTED_FLAGS, blockOffset, rangeOutcome, resolveData } from './io-words';
import type { Namespace } from './namespace';
import { Outcome, readFailure, writeFailure } from './outcome';
import { type IoContext, SlowCommands, ZERO_AT_ONCE } from './slow-commands';

/** Returned by {@link IoCommands.execute} when the command is to be executed by {@link IoCommands.slow}. */
export const DEFERRED = -1;

/** The namespace id for all namespaces, as a signed word. */
const BROADCAST = -1;

/** The commands of the NVM command set that the controller has. Those that can be are executed at once, in place. */
export class IoCommands {
  /** Bytes that were read, written and zeroed at once: what they moved is what takes time. */
  bytesMoved = 0;
  /** Executes all others. */
  readonly slow: SlowCommands;
  readonly #namespaces: IoContext['namespaces'];
  readonly #maxTransfer: number;
  readonly #durability: Durability;
  readonly #pointer: DataPointer;
  #scratch: Uint8Array | undefined;

  constructor(context: IoContext) {
    const { namespaces, maxTransfer, view, features, onWarning } = context;
    this.#namespaces = namespaces;
    this.#maxTransfer = maxTransfer;
    this.#durability = new Durability(features, onWarning);
    this.#pointer = new DataPointer(view, maxTransfer);
    this.slow = new SlowCommands(context, this.#durability);
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
        if (!this.slow.has(cdw0 & 0xff)) return Outcome.invalidOpcode;
        return (cdw0 & UNSUPPORTED_FLAGS) === 0 ? DEFERRED : Outcome.invalidField;
    }
  }

  /** A command for this namespace id ended with an error. */
  failed(nsid: number): void {
    const namespace = this.#namespaces.find(nsid);
    if (namespace !== null) namespace.counters.errors++;
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
    if (opcode === NvmOpcode.write && this.#durability.isAsked(namespace, cdw12)) return DEFERRED;
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
    if (this.#durability.isAsked(namespace, cdw12)) return DEFERRED;
    const result = backend.zero(offset, length, (cdw12 & DEALLOCATE) !== 0);
    namespace.counters.bytesZeroed += length;
    this.bytesMoved += length;
    return result === BackendResult.success ? Outcome.success : writeFailure(result);
  }
}
