// SPDX-License-Identifier: MIT
import { COPY_RANGE_BYTES, type DatasetRange, copyCdw12, decodeCopyRanges } from '../spec/command-words';
import { SqeWord } from '../spec/submission-entry';
import { BackendResult } from '../backends';
import type { ClientView } from './client-view';
import { resolveData, startBlock } from './io-words';
import type { Namespace } from './namespace';
import { Outcome, type Reply, readFailure, writeFailure } from './outcome';
import { type Alive, readParts, resolveParts } from './transfer';

/** MSRC + 1: source ranges of a Copy. */
export const COPY_RANGES = 128;
/** MCL in bytes: what a Copy moves at most, all of which is in memory before any of it is written. */
export const COPY_BYTES = 4 << 20;
/** MSSRL in bytes: one source range. */
export const COPY_RANGE_LIMIT = 1 << 20;

/** Copy (NVM command set 1.0, 3.2.2), with source ranges of format 0, from a namespace to itself. */
export class CopyCommand {
  readonly #view: ClientView;

  constructor(view: ClientView) {
    this.#view = view;
  }

  /** @param alive whether the command still matters, and its namespace is there */
  async run(namespace: Namespace, words: Int32Array, alive: Alive): Promise<Reply> {
    const { ranges: count, ...fields } = copyCdw12.decode(words[SqeWord.cdw12] as number);
    if (
      fields.format !== 0 ||
      fields.protectionRead !== 0 ||
      fields.protectionWrite !== 0 ||
      fields.directive !== 0
    )
      return { outcome: Outcome.invalidField };
    if (count > COPY_RANGES) return { outcome: Outcome.commandSizeLimitExceeded };
    const ranges = await this.#ranges(words, count, alive);
    if (typeof ranges === 'number') return { outcome: ranges };
    const destination = startBlock(words, 0);
    const outcome = check(namespace, ranges, destination);
    return outcome === Outcome.success ? copy(namespace, ranges, destination, alive) : { outcome };
  }

  /** Fetches the source ranges. Returns an {@link Outcome} when that fails. */
  async #ranges(words: Int32Array, count: number, alive: Alive): Promise<DatasetRange[] | number> {
    const length = count * COPY_RANGE_BYTES;
    const parts = await resolveParts(this.#view, length, alive, (pointer, lists) =>
      resolveData(pointer, words, 0, words[0] as number, length, lists),
    );
    if (parts.outcome !== Outcome.success) return parts.outcome;
    const data = await readParts(this.#view, parts, length, alive);
    return data === undefined || !alive() ? Outcome.dataTransferError : decodeCopyRanges(data);
  }
}

function check(namespace: Namespace, ranges: readonly DatasetRange[], destination: number): number {
  const { blockSize } = namespace;
  const total = ranges.reduce((sum, { blocks }) => sum + blocks, 0);
  if (ranges.some(({ blocks }) => blocks * blockSize > COPY_RANGE_LIMIT) || total * blockSize > COPY_BYTES) {
    return Outcome.commandSizeLimitExceeded;
  }
  const inside = ({ lba, blocks }: DatasetRange): boolean => lba + blocks <= namespace.blocks;
  return ranges.every(inside) && inside({ lba: destination, blocks: total })
    ? Outcome.success
    : Outcome.lbaOutOfRange;
}

/** Dword 0 of a completion with an error is the number of the first range that was not copied. */
async function copy(
  namespace: Namespace,
  ranges: readonly DatasetRange[],
  destination: number,
  alive: Alive,
): Promise<Reply> {
  const { backend, blockSize, badBlocks, counters } = namespace;
  // All is read before any is written: the ranges may overlap.
  const contents: Uint8Array[] = [];
  for (const [index, { lba, blocks }] of ranges.entries()) {
    const bad = badBlocks.firstIn(lba, lba + blocks);
    if (bad >= 0) return { outcome: Outcome.unrecoveredReadError, dw0: index, lba: bad };
    const data = new Uint8Array(blocks * blockSize);
    if (!alive()) return { outcome: Outcome.internalError };
    const result = await backend.read(lba * blockSize, data, 0, data.length);
    if (result !== BackendResult.success) return { outcome: readFailure(result), dw0: index, lba };
    contents.push(data);
  }
  let to = destination;
  for (const [index, data] of contents.entries()) {
    const blocks = data.length / blockSize;
    if (!alive.commit()) return { outcome: Outcome.internalError };
    const result = await backend.write(to * blockSize, data, 0, data.length);
    if (result !== BackendResult.success) return { outcome: writeFailure(result), dw0: index, lba: to };
    badBlocks.delete(to, to + blocks);
    to += blocks;
  }
  counters.otherCommands++;
  counters.bytesRead += (to - destination) * blockSize;
  counters.bytesWritten += (to - destination) * blockSize;
  return { outcome: Outcome.success };
}
