// SPDX-License-Identifier: MIT
import { VfioUserError, connect, type DmaMemory, type VfioUserDevice } from 'vfio-user';
import {
  NvmeController,
  NvmeStatusError,
  type IoQueue,
  type NvmeNamespace,
  type ResubmitPolicy,
} from 'vfio-user/nvme';
import { BLOCKS_PER_CELL, CELL_BYTES, WORDS_PER_CELL, type Ledger } from './ledger';
import type { Tally } from './tally';

/** Commands in flight. */
export const DEPTH = 16;
/** Cells of the largest command. */
export const MOST_CELLS = 8;
/**
 * What a server, or a client, may take for anything, in milliseconds: far more than it needs on a machine that has much else to
 * do. What takes longer hangs.
 */
export const PATIENCE = 300_000;

const TIMEOUTS = { connectTimeout: PATIENCE, messageTimeout: PATIENCE, quiesceTimeout: PATIENCE };

/** A status as `type/code` in hexadecimal; `00/00` is success. */
export type Status = string;
export const Status = {
  success: '00/00',
  transferError: '00/04',
  capacityExceeded: '00/81',
  writeFault: '02/80',
  unrecoveredReadError: '02/81',
  /** There is none, since the controller has gone and is waited for. */
  gone: 'gone',
} as const;

/** A namespace that is driven by this process, with memory for {@link DEPTH} commands. */
export class Drive {
  private constructor(
    readonly device: VfioUserDevice,
    readonly nvme: NvmeController,
    readonly namespace: NvmeNamespace,
    readonly queue: IoQueue,
    readonly memory: DmaMemory,
    readonly words: Uint32Array,
  ) {}

  /**
   * @param vectors MSI-X vectors, 0 to poll
   * @param onConnect called when the server has accepted the connection
   */
  static async open(path: string, vectors = 0, onConnect?: () => void): Promise<Drive> {
    const device = await connect(path, TIMEOUTS);
    onConnect?.();
    try {
      return await Drive.attach(device, vectors);
    } catch (error) {
      await device.close();
      throw error;
    }
  }

  /** Opens a device that comes back when its server does, and with it its controller and its queue. */
  static async openLasting(path: string, vectors: number): Promise<Drive> {
    const reconnect = { firstDelay: 5, longestDelay: 20, deadline: PATIENCE };
    const device = await connect(path, { ...TIMEOUTS, reconnect });
    // No cell is written by two commands at a time, so that there is no order to keep.
    return Drive.attach(device, vectors, 'reads-and-writes');
  }

  /** Brings up the controller of a device that is connected. */
  static async attach(device: VfioUserDevice, vectors: number, resubmit?: ResubmitPolicy): Promise<Drive> {
    const options = { vectors, adminTimeout: PATIENCE, ...(resubmit !== undefined && { resubmit }) };
    const nvme = await NvmeController.attach(device, options);
    const memory = await device.dma.allocate(DEPTH * MOST_CELLS * CELL_BYTES);
    const queue = await nvme.createIoQueue(DEPTH);
    return new Drive(device, nvme, nvme.namespace(1), queue, memory, new Uint32Array(memory.buffer));
  }

  /** Shuts the controller down. Commands in flight fail; the connection stays. */
  async detach(): Promise<void> {
    await this.nvme.close();
    await this.memory.close();
  }

  /** Reads cells into the memory of a command in flight. */
  read(slot: number, cell: number, count: number): Promise<Status> {
    return this.#statusOf(this.namespace.read(this.memory, this.#range(slot, cell, count)));
  }

  write(slot: number, cell: number, count: number, forceUnitAccess: boolean): Promise<Status> {
    const range = { ...this.#range(slot, cell, count), forceUnitAccess };
    return this.#statusOf(this.namespace.write(this.memory, range));
  }

  flush(): Promise<Status> {
    return this.#statusOf(this.namespace.flush(this.queue));
  }

  /** Where the memory of a command in flight begins, in words. */
  wordsAt(slot: number): number {
    return slot * MOST_CELLS * WORDS_PER_CELL;
  }

  /** Reads all cells, and compares them. */
  async verify(ledger: Ledger, tally: Tally): Promise<void> {
    let next = 0;
    const worker = async (slot: number): Promise<void> => {
      while (next < ledger.cells) {
        const cell = next;
        const count = Math.min(MOST_CELLS, ledger.cells - cell);
        next += count;
        const status = await this.read(slot, cell, count);
        if (status === Status.success) compare(ledger, tally, this.words, this.wordsAt(slot), cell, count);
        else tally.mistake('wrong', `a read of cell ${cell} failed with ${status}`);
      }
    };
    await Promise.all(Array.from({ length: DEPTH }, (_, slot) => worker(slot)));
  }

  async close(): Promise<void> {
    try {
      await this.nvme.close();
    } finally {
      await this.device.close();
    }
  }

  #statusOf(command: Promise<void>): Promise<Status> {
    return statusOf(command, this.device.reconnects);
  }

  #range(
    slot: number,
    cell: number,
    count: number,
  ): { lba: number; blocks: number; offset: number; queue: IoQueue } {
    const offset = this.wordsAt(slot) * 4;
    return { lba: cell * BLOCKS_PER_CELL, blocks: count * BLOCKS_PER_CELL, offset, queue: this.queue };
  }
}

/** Compares cells in memory with what they may hold. */
export function compare(
  ledger: Ledger,
  tally: Tally,
  words: Uint32Array,
  at: number,
  cell: number,
  count: number,
): void {
  for (let index = 0; index < count; index++) {
    const { mistake } = ledger.inspect(words, at + index * WORDS_PER_CELL, cell + index);
    if (mistake !== undefined) tally.mistake('lost', mistake);
  }
  tally.verifiedBytes += count * CELL_BYTES;
}

/** The status of a command; rejects when the controller is gone for good. */
export async function statusOf(command: Promise<void>, lasting = false): Promise<Status> {
  try {
    await command;
    return Status.success;
  } catch (error) {
    if (lasting && error instanceof VfioUserError && error.code === 'ERR_VFIO_USER_DISCONNECTED')
      return Status.gone;
    if (!(error instanceof NvmeStatusError)) throw error;
    return [error.sct, error.sc].map((code) => code.toString(16).padStart(2, '0')).join('/');
  }
}
