// SPDX-License-Identifier: MIT
import { VfioUserError, outOfRange } from '../../errors';
import { NvmOpcode, currentLbaFormat, type IdentifyNamespace, type LbaFormat } from '../spec';
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
  readonly lba: number;
  /** Number of blocks, at least 1. */
  readonly blocks: number;
  /** Offset of the first byte in the buffer, in bytes, a multiple of 4. Default 0. */
  readonly offset?: number;
  /** Queue to use. Default: the controller's. */
  readonly queue?: IoQueue;
}

/** What a namespace needs of its controller. */
interface NamespaceOwner {
  /** Of one command, in bytes. */
  readonly maxTransferSize: number;
  defaultQueue(): Promise<IoQueue>;
}

/** A namespace of an NVMe controller. Transfers above the controller's limit are split; all parts are in flight together. */
export class NvmeNamespace {
  readonly id: number;
  readonly identify: IdentifyNamespace;
  /** The format in use. */
  readonly format: LbaFormat;
  /** Bytes of a logical block. */
  readonly blockSize: number;
  /** Size in blocks (NSZE). */
  readonly blocks: number;
  readonly #controller: NamespaceOwner;

  /** Made by the controller. */
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

  /**
   * Reads blocks into memory of the device.
   *
   * @throws RangeError when the blocks are not in the namespace or do not fit the buffer; NvmeStatusError
   */
  read(buffer: DataBuffer, range: BlockRange): Promise<void> {
    return this.#transfer(NvmOpcode.read, buffer, range);
  }

  /** Writes blocks from memory of the device; as {@link read}. */
  write(buffer: DataBuffer, range: BlockRange): Promise<void> {
    return this.#transfer(NvmOpcode.write, buffer, range);
  }

  /** Makes what was written durable. */
  async flush(queue?: IoQueue): Promise<void> {
    const target = queue ?? (await this.#controller.defaultQueue());
    await target.submit(NvmOpcode.flush, this.id, 0, 0, 0, 0);
  }

  #transfer(opcode: number, buffer: DataBuffer, range: BlockRange): Promise<void> {
    const { queue } = range;
    const mistake = this.#mistake(buffer, range.lba, range.blocks, range.offset ?? 0);
    if (mistake !== undefined) return Promise.reject(mistake);
    // Without an async function between, which would make more promises for each command.
    if (queue !== undefined) return this.#submit(opcode, buffer, range, queue);
    return this.#controller.defaultQueue().then((own) => this.#submit(opcode, buffer, range, own));
  }

  #submit(opcode: number, buffer: DataBuffer, range: BlockRange, queue: IoQueue): Promise<void> {
    const { lba, blocks, offset = 0 } = range;
    // A block count has 16 bits (NVM command set 1.0, 3.2.4, CDW12).
    const most = Math.min(Math.floor(this.#controller.maxTransferSize / this.blockSize), 0x10000);
    const address = buffer.iova + offset;
    if (blocks <= most) return queue.submit(opcode, this.id, lba, blocks, address, blocks * this.blockSize);
    return this.#submitParts(opcode, address, range, queue, most);
  }

  /** @param most blocks of one command */
  async #submitParts(
    opcode: number,
    address: number,
    { lba, blocks }: BlockRange,
    queue: IoQueue,
    most: number,
  ): Promise<void> {
    if (most === 0) {
      throw new VfioUserError(
        'ERR_VFIO_USER_UNSUPPORTED',
        `a block of namespace ${String(this.id)} has ${String(this.blockSize)} bytes, more than the controller transfers at once`,
      );
    }
    const parts: Promise<void>[] = [];
    for (let at = 0; at < blocks; at += most) {
      const count = Math.min(most, blocks - at);
      const part = queue.submit(
        opcode,
        this.id,
        lba + at,
        count,
        address + at * this.blockSize,
        count * this.blockSize,
      );
      parts.push(part);
    }
    // All of them, also after a failure: the caller may release the buffer afterwards.
    const results = await Promise.allSettled(parts);
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  }

  #mistake(buffer: DataBuffer, lba: number, blocks: number, offset: number): Error | undefined {
    if (this.format.ms > 0) {
      return new VfioUserError(
        'ERR_VFIO_USER_UNSUPPORTED',
        `namespace ${String(this.id)} has ${String(this.format.ms)} bytes of metadata per block, which this driver does not transfer`,
      );
    }
    if (
      !Number.isSafeInteger(lba) ||
      !Number.isSafeInteger(blocks) ||
      lba < 0 ||
      blocks < 1 ||
      lba + blocks > this.blocks
    ) {
      return outOfRange(
        `${String(blocks)} blocks from LBA ${String(lba)} are not within namespace ${String(this.id)}, which has ${String(this.blocks)} blocks`,
      );
    }
    if (
      !Number.isSafeInteger(offset) ||
      offset < 0 ||
      offset % 4 !== 0 ||
      offset + blocks * this.blockSize > buffer.size
    ) {
      return outOfRange(
        `${String(blocks * this.blockSize)} bytes at offset ${String(offset)} do not fit a buffer of ${String(buffer.size)} bytes; offsets are multiples of 4`,
      );
    }
    return undefined;
  }
}
