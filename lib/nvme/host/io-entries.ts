// SPDX-License-Identifier: MIT
import { highWord } from '../spec/bits';
import { prpListLength, storePrp } from '../spec/prp';
import { storeSglDataBlock } from '../spec/sgl';
import { Psdt, SqeWord } from '../spec/submission-entry';
import { NVME_PAGE, type DmaArena, type DmaChunk } from './dma-arena';
import type { IoCommand } from './io-command';
import type { QueuePair } from './queue-pair';

/** Where FUSE is in CDW0. */
const FUSE_SHIFT = 8;
/** PSDT of a command whose data pointer is an SGL descriptor. */
const SGL = Psdt.sglContiguousMetadata << 14;

/** Writes commands into the entries of a submission queue, with room for the PRP list of each. */
export class IoEntries {
  readonly #arena: DmaArena;
  readonly #sgl: boolean;
  readonly #lists: DmaChunk;
  readonly #listBytes: number;
  readonly #listWords: Uint32Array;

  /**
   * @param depth most commands outstanding
   * @param maxTransfer bytes of the largest command
   * @param sgl whether the controller takes SGLs: then one descriptor stands in for a PRP list
   */
  constructor(arena: DmaArena, depth: number, maxTransfer: number, sgl: boolean) {
    this.#arena = arena;
    this.#sgl = sgl;
    // One list per command id; a list must not leave its page.
    this.#listBytes = 2 ** Math.ceil(Math.log2((maxTransfer / NVME_PAGE + 1) * 8));
    this.#lists = arena.allocate(depth * this.#listBytes);
    this.#listWords = arena.words(this.#lists);
  }

  /** Gives the memory of the lists back: the controller has no such queue any more. */
  release(): void {
    this.#arena.release(this.#lists);
  }

  /** Writes a command into the next entry of a queue. */
  write(queue: QueuePair, cid: number, command: IoCommand): void {
    const { opcode, nsid, lba, cdw12, address, length, fuse } = command;
    const words = queue.submissions;
    const at = queue.claim();
    words.fill(0, at, at + 16);
    const cdw0 = ((cid << 16) | (fuse << FUSE_SHIFT) | opcode) >>> 0;
    words[at + SqeWord.cdw0] = cdw0;
    words[at + SqeWord.nsid] = nsid;
    if (this.#sgl && prpListLength(address, length, NVME_PAGE) > 0) {
      words[at + SqeWord.cdw0] = (cdw0 | SGL) >>> 0;
      storeSglDataBlock(words, at + SqeWord.prp1Low, address, length);
    } else if (length > 0) {
      const slot = cid * this.#listBytes;
      storePrp(words, at, address, length, NVME_PAGE, this.#listWords, slot / 4, this.#lists.iova + slot);
    }
    words[at + SqeWord.cdw10] = lba >>> 0;
    words[at + SqeWord.cdw11] = highWord(lba);
    words[at + SqeWord.cdw12] = cdw12;
  }
}
