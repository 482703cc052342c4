// SPDX-License-Identifier: MIT
import { VfioUserError, outOfRange } from '../../errors';
import {
  NvmOpcode,
  copyCdw12,
  currentLbaFormat,
  datasetCdw10,
  datasetCdw11,
  encodeCopyRanges,
  encodeDatasetRanges,
  joinWords,
  type DatasetRange,
  type IdentifyNamespace,
  type LbaFormat,
} from '../spec';
import { NO_LIMITS, splitRanges, type CommandLimits } from './command-limits';
import type { IoQueue } from './io-queue';

/** Memory for the data of a command: a `DmaMemory`, or anything that knows its device address. */
export interface DataBuffer {
  /** Address at which the device sees the first byte. */
  readonly iova: number;
  /** Bytes. */
  readonly size: number;
}

/** Which blocks, and where in the buffer. */
export interface BlockRange {
  /** First block. */
  readonly lba: number;
  /** Number of blocks, at least 1. */
  readonly blocks: number;
  /** Offset of the first byte in the buffer, in bytes, a multiple of 4. Default 0. */
  readonly offset?: number;
  /** Queue to use. Default: the controller's. */
  readonly queue?: IoQueue;
}

/** What is written. */
export interface WriteRange extends BlockRange {
  /** FUA: the write is complete when the data is durable, as if a flush followed. Default false. */
  readonly forceUnitAccess?: boolean;
}

/** Which blocks {@link NvmeNamespace.verify} reads, and {@link NvmeNamespace.writeUncorrectable} makes unreadable. */
export interface UnbufferedRange extends Omit<BlockRange, 'offset'> {}

/** Which blocks {@link NvmeNamespace.writeZeroes} fills. */
export interface ZeroRange extends Omit<WriteRange, 'offset'> {
  /** DEAC: the controller may deallocate the blocks, as long as they read as zeros. Default false. */
  readonly deallocate?: boolean;
}

/** Where {@link NvmeNamespace.copy} writes. */
export interface CopyTarget extends Omit<WriteRange, 'offset' | 'blocks'> {}

/** What a namespace needs of its controller. */
interface NamespaceOwner {
  /** Largest transfer of one command, in bytes. */
  readonly maxTransferSize: number;
  commandLimits(): Promise<CommandLimits>;
  defaultQueue(): Promise<IoQueue>;
}

/** A block count has 16 bits, and is 0's based (NVM command set 1.0, 3.2.4, CDW12). */
const MOST_BLOCKS = 0x10000;
/** Commands without data in flight together: they have no buffer that would bound their number. */
const UNBUFFERED_COMMANDS = 64;
/** Flags of CDW12 (NVM command set 1.0, 3.2.6 and 3.2.8). */
const FORCE_UNIT_ACCESS = 0x4000_0000;
const DEALLOCATE = 0x0200_0000;

/**
 * A namespace of an NVMe controller. A transfer that is too large for one command is split, and its parts are in flight together.
 *
 * All methods reject with a `RangeError` when blocks are not in the namespace or do not fit the buffer, with an `NvmeStatusError`
 * when the controller completes a command with an error status, and with a `VfioUserError` when it has failed or is closed.
 */
export class NvmeNamespace {
  /** Namespace id. */
  readonly id: number;
  /** What Identify Namespace returned when the controller was attached. */
  readonly identify: IdentifyNamespace;
  /** The format in use. */
  readonly format: LbaFormat;
  /** Bytes of a logical block. */
  readonly blockSize: number;
  /** Size in blocks (NSZE). */
  readonly blocks: number;
  readonly #controller: NamespaceOwner;

  /** @internal */
  constructor(controller: NamespaceOwner, id: number, identify: IdentifyNamespace) {
    this.#controller = controller;
    this.id = id;
    this.identify = identify;
    this.format = currentLbaFormat(identify);
    this.blockSize = 2 ** this.format.ds;
    this.blocks = identify.nsze;
  }

  /** Size in bytes. */
  get size(): number {
    return this.blocks * this.blockSize;
  }

  /** Reads blocks into memory of the device (NVM command set 1.0, 3.2.4). */
  read(buffer: DataBuffer, range: BlockRange): Promise<void> {
    return this.#transfer(NvmOpcode.read, buffer, range, 0);
  }

  /** Writes blocks from memory of the device (NVM command set 1.0, 3.2.6). */
  write(buffer: DataBuffer, range: WriteRange): Promise<void> {
    const flags = range.forceUnitAccess === true ? FORCE_UNIT_ACCESS : 0;
    return this.#transfer(NvmOpcode.write, buffer, range, flags);
  }

  /**
   * Compares blocks with memory of the device (NVM command set 1.0, 3.2.1). Rejects with an `NvmeStatusError` of type 2 and code
   * 85h when they differ. Controllers have it or not (`oncs` of Identify Controller, bit 0).
   */
  compare(buffer: DataBuffer, range: BlockRange): Promise<void> {
    return this.#transfer(NvmOpcode.compare, buffer, range, 0);
  }

  /**
   * Fills blocks with zeros, without data (NVM command set 1.0, 3.2.8). Controllers have it or not (`oncs` of Identify
   * Controller, bit 3).
   */
  async writeZeroes(range: ZeroRange): Promise<void> {
    const { forceUnitAccess = false, deallocate = false } = range;
    const flags = (forceUnitAccess ? FORCE_UNIT_ACCESS : 0) | (deallocate ? DEALLOCATE : 0);
    await this.#withoutData(NvmOpcode.writeZeroes, range, flags, 'zeroBytes');
  }

  /**
   * Has the controller check that it can read blocks, without giving them (NVM command set 1.0, 3.2.5). Rejects as {@link read} does.
   * Controllers have it or not (`oncs` of Identify Controller, bit 7).
   */
  verify(range: UnbufferedRange): Promise<void> {
    return this.#withoutData(NvmOpcode.verify, range, 0, 'verifyBytes');
  }

  /**
   * Makes blocks unreadable until they are written again (NVM command set 1.0, 3.2.7): {@link read} rejects with an
   * `NvmeStatusError` of type 2 and code 81h. Controllers have it or not (`oncs` of Identify Controller, bit 1).
   */
  writeUncorrectable(range: UnbufferedRange): Promise<void> {
    return this.#withoutData(NvmOpcode.writeUncorrectable, range, 0, 'uncorrectableBytes');
  }

  /**
   * Tells the controller that the data of blocks is not needed any more: Dataset Management with AD (NVM command set 1.0, 3.2.3).
   * What they read afterwards, `dlfeat` of Identify Namespace tells. Controllers have it or not (`oncs` of Identify Controller,
   * bit 2).
   */
  async deallocate(ranges: readonly DatasetRange[], queue?: IoQueue): Promise<void> {
    for (const range of ranges) this.#checkRange(range);
    const limits = await this.#controller.commandLimits();
    const target = queue ?? (await this.#controller.defaultQueue());
    for (const command of splitRanges(ranges, limits)) {
      const cdw10 = datasetCdw10.encode({ ranges: command.length });
      const words = joinWords(cdw10, datasetCdw11.encode({ deallocate: true }));
      await target.submitData(NvmOpcode.datasetManagement, this.id, words, 0, encodeDatasetRanges(command));
    }
  }

  /**
   * Copies blocks within the namespace, without their data coming here (NVM command set 1.0, 3.2.2): the ranges one behind the other to
   * `lba`. What the controller does not copy at once (`mssrl`, `mcl` and `msrc` of {@link identify}) is more commands, one after
   * the other; within one of them source and destination may overlap.
   *
   * @param ranges what is copied, in order
   * @param to the first block that is written
   * @throws VfioUserError ERR_VFIO_USER_UNSUPPORTED when the controller has no Copy (`oncs` of Identify Controller, bit 8)
   */
  async copy(ranges: readonly DatasetRange[], to: CopyTarget): Promise<void> {
    for (const range of ranges) this.#checkRange(range);
    const total = ranges.reduce((sum, { blocks }) => sum + blocks, 0);
    if (total === 0) return;
    this.#checkRange({ lba: to.lba, blocks: total });
    const { mssrl, mcl, msrc } = this.identify;
    if (mssrl === 0 || mcl === 0) {
      throw new VfioUserError(
        'ERR_VFIO_USER_UNSUPPORTED',
        `the controller of namespace ${this.id} has no Copy: read the blocks and write them`,
      );
    }
    const queue = to.queue ?? (await this.#controller.defaultQueue());
    const limits = { ...NO_LIMITS, ranges: msrc + 1, rangeBlocks: Math.min(mssrl, MOST_BLOCKS), blocks: mcl };
    let { lba } = to;
    for (const command of splitRanges(ranges, limits)) {
      const cdw12 = copyCdw12.encode({
        ranges: command.length,
        format: 0,
        forceUnitAccess: to.forceUnitAccess === true,
      });
      await queue.submitData(NvmOpcode.copy, this.id, lba, cdw12, encodeCopyRanges(command));
      for (const { blocks } of command) lba += blocks;
    }
  }

  /**
   * Writes blocks if they are as expected, with nothing between the two: a Compare and a Write that are fused (NVMe base 2.0, 3.4.2). Rejects
   * with an `NvmeStatusError` of type 2 and code 85h, and has written nothing, when they differ. It is one command each, and so no longer than a
   * transfer; controllers promise it for `acwu` + 1 blocks. They have it or not (`fuses` of Identify Controller, bit 0).
   *
   * @param expected what the blocks are compared with
   * @param replacement what they become
   * @param range the blocks; `offset` is that in both buffers
   */
  async compareAndWrite(expected: DataBuffer, replacement: DataBuffer, range: WriteRange): Promise<void> {
    const { lba, blocks, offset = 0 } = range;
    const length = blocks * this.blockSize;
    const mistake =
      this.#rangeMistake(lba, blocks) ??
      this.#bufferMistake(expected, blocks, offset) ??
      this.#bufferMistake(replacement, blocks, offset);
    if (mistake !== undefined) throw mistake;
    if (length > this.#controller.maxTransferSize || blocks > MOST_BLOCKS) {
      throw outOfRange(
        `${blocks} blocks are more than the controller transfers at once, ${this.#controller.maxTransferSize} bytes: Compare and Write cannot be split`,
      );
    }
    const queue = range.queue ?? (await this.#controller.defaultQueue());
    const cdw12 = (blocks - 1) | (range.forceUnitAccess === true ? FORCE_UNIT_ACCESS : 0);
    const [compared, written] = [expected.iova + offset, replacement.iova + offset];
    await queue.compareAndWrite(this.id, lba, cdw12, compared, written, length);
  }

  /** Makes what was written durable (NVMe base 2.0, 7.1). */
  async flush(queue?: IoQueue): Promise<void> {
    const target = queue ?? (await this.#controller.defaultQueue());
    await target.submit(NvmOpcode.flush, this.id, 0, 0, 0, 0);
  }

  /** @param limit what of the limits is for the command */
  async #withoutData(
    opcode: number,
    range: UnbufferedRange,
    flags: number,
    limit: 'zeroBytes' | 'verifyBytes' | 'uncorrectableBytes',
  ): Promise<void> {
    this.#checkRange(range);
    const bytes = (await this.#controller.commandLimits())[limit];
    const most = Math.min(Math.floor(bytes / this.blockSize), MOST_BLOCKS);
    const queue = range.queue ?? (await this.#controller.defaultQueue());
    const end = range.lba + range.blocks;
    for (let lba = range.lba; lba < end; lba += most * UNBUFFERED_COMMANDS) {
      const blocks = Math.min(most * UNBUFFERED_COMMANDS, end - lba);
      await this.#submitParts(opcode, 0, 0, { lba, blocks }, flags, queue, most);
    }
  }

  #transfer(opcode: number, buffer: DataBuffer, range: BlockRange, flags: number): Promise<void> {
    const { queue } = range;
    const mistake =
      this.#rangeMistake(range.lba, range.blocks) ??
      this.#bufferMistake(buffer, range.blocks, range.offset ?? 0);
    if (mistake !== undefined) return Promise.reject(mistake);
    // Without an async function between, which would make more promises for each command.
    if (queue !== undefined) return this.#submit(opcode, buffer, range, flags, queue);
    return this.#controller.defaultQueue().then((own) => this.#submit(opcode, buffer, range, flags, own));
  }

  #submit(
    opcode: number,
    buffer: DataBuffer,
    range: BlockRange,
    flags: number,
    queue: IoQueue,
  ): Promise<void> {
    const { lba, blocks, offset = 0 } = range;
    const most = Math.min(Math.floor(this.#controller.maxTransferSize / this.blockSize), MOST_BLOCKS);
    const address = buffer.iova + offset;
    if (blocks <= most) {
      return queue.submit(opcode, this.id, lba, (blocks - 1) | flags, address, blocks * this.blockSize);
    }
    return this.#submitParts(opcode, address, this.blockSize, range, flags, queue, most);
  }

  /**
   * @param stride bytes of data of a block, 0 for a command without data
   * @param most blocks of one command
   */
  async #submitParts(
    opcode: number,
    address: number,
    stride: number,
    { lba, blocks }: BlockRange,
    flags: number,
    queue: IoQueue,
    most: number,
  ): Promise<void> {
    if (most === 0) {
      throw new VfioUserError(
        'ERR_VFIO_USER_UNSUPPORTED',
        `a block of namespace ${this.id} has ${this.blockSize} bytes, more than the controller transfers at once`,
      );
    }
    const parts: Promise<void>[] = [];
    for (let at = 0; at < blocks; at += most) {
      const count = Math.min(most, blocks - at);
      const cdw12 = (count - 1) | flags;
      parts.push(queue.submit(opcode, this.id, lba + at, cdw12, address + at * stride, count * stride));
    }
    // All of them, also after a failure: the caller may release the buffer afterwards.
    const results = await Promise.allSettled(parts);
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  }

  #checkRange({ lba, blocks }: DatasetRange): void {
    const mistake = this.#rangeMistake(lba, blocks);
    if (mistake !== undefined) throw mistake;
  }

  #rangeMistake(lba: number, blocks: number): Error | undefined {
    if (
      Number.isSafeInteger(lba) &&
      Number.isSafeInteger(blocks) &&
      lba >= 0 &&
      blocks >= 1 &&
      lba + blocks <= this.blocks
    ) {
      return undefined;
    }
    return outOfRange(
      `${blocks} blocks from LBA ${lba} are not within namespace ${this.id}, which has ${this.blocks} blocks`,
    );
  }

  #bufferMistake(buffer: DataBuffer, blocks: number, offset: number): Error | undefined {
    if (this.format.ms > 0) {
      return new VfioUserError(
        'ERR_VFIO_USER_UNSUPPORTED',
        `namespace ${this.id} has ${this.format.ms} bytes of metadata per block, which this driver does not transfer`,
      );
    }
    const length = blocks * this.blockSize;
    if (!Number.isSafeInteger(offset) || offset < 0 || offset % 4 !== 0 || offset + length > buffer.size) {
      return outOfRange(
        `${length} bytes at offset ${offset} do not fit a buffer of ${buffer.size} bytes; offsets are multiples of 4`,
      );
    }
    return undefined;
  }
}
