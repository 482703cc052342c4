// SPDX-License-Identifier: MIT
import { highWord } from '../spec/bits';
import { NvmOpcode } from '../spec/opcodes';
import { prpListLength, storePrp } from '../spec/prp';
import { storeSglDataBlock } from '../spec/sgl';
import { Psdt, SqeWord } from '../spec/submission-entry';
import { NVME_PAGE, type DmaArena, type DmaChunk } from './dma-arena';
import type { QueuePair } from './queue-pair';

/** PSDT of a command whose data pointer is an SGL descriptor. */
const SGL = Psdt.sglContiguousMetadata << 14;

/** An I/O command, until it is completed. */
export interface IoCommand {
  readonly opcode: number;
  readonly nsid: number;
  readonly lba: number;
  readonly cdw12: number;
  readonly address: number;
  readonly length: number;
  /** When it was sent, by the seconds of the watchdog. */
  since: number;
  /** Of a Flush: the acknowledged writes that it covers. */
  covered: number;
  resolve(): void;
  reject(error: Error): void;
}

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
  write(queue: QueuePair, cid: number, { opcode, nsid, lba, cdw12, address, length }: IoCommand): void {
    const words = queue.submissions;
    const at = queue.claim();
    words.fill(0, at, at + 16);
    words[at + SqeWord.cdw0] = ((cid << 16) | opcode) >>> 0;
    words[at + SqeWord.nsid] = nsid;
    if (this.#sgl && prpListLength(address, length, NVME_PAGE) > 0) {
      words[at + SqeWord.cdw0] = ((cid << 16) | SGL | opcode) >>> 0;
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

/** What a command was about, for its error. */
export function detailOf({ opcode, nsid, lba, cdw12 }: IoCommand): string {
  switch (opcode) {
    case NvmOpcode.read:
    case NvmOpcode.write:
    case NvmOpcode.compare:
    case NvmOpcode.writeZeroes:
      return `LBA ${lba}, ${(cdw12 & 0xffff) + 1} blocks`;
    default:
      return `namespace ${nsid}`;
  }
}
