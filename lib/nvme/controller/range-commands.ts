// SPDX-License-Identifier: MIT
import { type DatasetRange, datasetCdw10, datasetCdw11, decodeDatasetRanges } from '../spec/command-words';
import { NvmOpcode } from '../spec/opcodes';
import { SqeWord } from '../spec/submission-entry';
import { BackendResult } from '../backends';
import type { ClientView } from './client-view';
import { blockOffset, rangeOutcome, resolveData, startBlock } from './io-words';
import type { Namespace } from './namespace';
import { Outcome, type Reply, readFailure, writeFailure } from './outcome';
import { type Alive, readParts, resolveParts } from './transfer';

/** Bytes that Verify reads, and Dataset Management gives back, without giving the event loop a turn. */
const VERIFY_AT_ONCE = 2 ** 20;
const DEALLOCATE_AT_ONCE = 2 ** 30;
const DATASET_RANGE_BYTES = 16;
/** Most bytes of the ranges of Dataset Management, of which there are at most 256. */
const DATASET_BYTES = 256 * DATASET_RANGE_BYTES;

/**
 * The commands that are about ranges of blocks and have no data of blocks: Dataset Management, Verify, Write Uncorrectable. They
 * are run as promises, on a copy of the command.
 */
export class RangeCommands {
  readonly #view: ClientView;

  constructor(view: ClientView) {
    this.#view = view;
  }

  /** Whether a command is one of these. */
  has(opcode: number): boolean {
    return (
      opcode === NvmOpcode.datasetManagement ||
      opcode === NvmOpcode.verify ||
      opcode === NvmOpcode.writeUncorrectable
    );
  }

  /** Most memory that a command of these needs beside that of any command. */
  bytes(opcode: number): number {
    if (opcode === NvmOpcode.verify) return VERIFY_AT_ONCE;
    return opcode === NvmOpcode.datasetManagement ? 2 * DATASET_BYTES : 0;
  }

  /** @param alive whether the command still matters, and its namespace is there */
  async run(namespace: Namespace, words: Int32Array, alive: Alive): Promise<Reply> {
    const cdw0 = words[0] as number;
    const opcode = cdw0 & 0xff;
    if (opcode === NvmOpcode.datasetManagement) return this.#manageDataset(namespace, words, alive);
    const cdw12 = words[SqeWord.cdw12] as number;
    if (blockOffset(namespace, words, 0, cdw0, cdw12) < 0) return { outcome: rangeOutcome(cdw0) };
    const start = startBlock(words, 0);
    const end = start + (cdw12 & 0xffff) + 1;
    if (opcode === NvmOpcode.verify) return verify(namespace, start, end, alive);
    if (!alive.commit()) return { outcome: Outcome.internalError };
    const marked = namespace.badBlocks.add(start, end);
    return { outcome: marked ? Outcome.success : Outcome.internalError };
  }

  /** Dataset Management (NVM command set 1.0, 3.2.3). What it tells beside deallocation are hints, which are not used. */
  async #manageDataset(namespace: Namespace, words: Int32Array, alive: Alive): Promise<Reply> {
    const length = datasetCdw10.decode(words[SqeWord.cdw10] as number).ranges * DATASET_RANGE_BYTES;
    const parts = await resolveParts(this.#view, length, alive, (pointer, lists) =>
      resolveData(pointer, words, 0, words[0] as number, length, lists),
    );
    if (parts.outcome !== Outcome.success) return { outcome: parts.outcome };
    const data = await readParts(this.#view, parts, length, alive);
    if (data === undefined || !alive()) return { outcome: Outcome.dataTransferError };
    const ranges = decodeDatasetRanges(data);
    for (const { lba, blocks } of ranges) {
      if (lba + blocks > namespace.blocks) return { outcome: Outcome.lbaOutOfRange, lba };
    }
    if (!datasetCdw11.decode(words[SqeWord.cdw11] as number).deallocate) return { outcome: Outcome.success };
    for (const range of ranges) {
      const outcome = await deallocate(namespace, range, alive);
      if (outcome !== Outcome.success) return { outcome, lba: range.lba };
    }
    return { outcome: Outcome.success };
  }
}

/** Gives back the storage of blocks. Returns an {@link Outcome}. */
async function deallocate(
  namespace: Namespace,
  { lba, blocks }: DatasetRange,
  alive: Alive,
): Promise<number> {
  const { backend, blockSize, badBlocks } = namespace;
  if (!alive.commit()) return Outcome.internalError;
  badBlocks.delete(lba, lba + blocks);
  if (backend.deallocation === undefined) return Outcome.success;
  const end = (lba + blocks) * blockSize;
  for (let offset = lba * blockSize; offset < end; offset += DEALLOCATE_AT_ONCE) {
    if (!alive()) return Outcome.internalError;
    const result = await backend.deallocate(offset, Math.min(DEALLOCATE_AT_ONCE, end - offset));
    if (result !== BackendResult.success) return writeFailure(result);
    await new Promise(setImmediate);
  }
  return Outcome.success;
}

/** Verify (NVM command set 1.0, 3.2.5): reads blocks as Read does, for nobody. */
async function verify(namespace: Namespace, start: number, end: number, alive: Alive): Promise<Reply> {
  const { backend, blockSize, badBlocks } = namespace;
  const most = Math.floor(VERIFY_AT_ONCE / blockSize);
  const data = new Uint8Array(Math.min(most, end - start) * blockSize);
  for (let lba = start; lba < end; lba += most) {
    if (!alive()) return { outcome: Outcome.internalError };
    const blocks = Math.min(most, end - lba);
    const bad = badBlocks.firstIn(lba, lba + blocks);
    if (bad >= 0) return { outcome: Outcome.unrecoveredReadError, lba: bad };
    const result = await backend.read(lba * blockSize, data, 0, blocks * blockSize);
    if (result !== BackendResult.success) return { outcome: readFailure(result), lba };
    await new Promise(setImmediate);
  }
  namespace.counters.otherCommands++;
  return { outcome: Outcome.success };
}
