// SPDX-License-Identifier: MIT
import { performance } from 'node:perf_hooks';
import { VfioUserError } from '../../errors';
import { adminOpcodeName, encodeCommand, type Command } from '../spec';
import type { DmaArena } from './dma-arena';
import { NVME_PAGE } from './dma-arena';
import { NvmeStatusError } from './nvme-error';
import type { QueuePair } from './queue-pair';

interface Waiting {
  readonly opcode: number;
  readonly deadline: number;
  readonly timeout: number;
  resolve(result: number): void;
  reject(error: Error): void;
}

/** How long completions are polled at every turn of the event loop before the queue is looked at once a millisecond. */
const EAGER_MILLISECONDS = 5;
/** SPDK's target has 32 requests for its admin queue, whatever the size of the queue; some are held by events. */
const MAX_OUTSTANDING = 16;

/** The admin queue: commands as promises, completions polled while any is outstanding. */
export class AdminQueue {
  readonly #queue: QueuePair;
  readonly #arena: DmaArena;
  readonly #waiting = new Map<number, Waiting>();
  readonly #turns: (() => void)[] = [];
  readonly #timeout: number;
  #nextCid = 0;
  #polling = false;
  #eagerUntil = 0;
  #failure: Error | null = null;

  /** @param timeout of each command, in milliseconds */
  constructor(queue: QueuePair, arena: DmaArena, timeout: number) {
    this.#queue = queue;
    this.#arena = arena;
    this.#timeout = timeout;
  }

  /**
   * Runs a command.
   *
   * @returns dword 0 of the completion
   * @throws NvmeStatusError; VfioUserError TIMEOUT, or why the controller failed
   */
  async command(command: Omit<Command, 'cid'>, timeout = this.#timeout): Promise<number> {
    while (this.#waiting.size >= Math.min(this.#queue.capacity, MAX_OUTSTANDING)) {
      await new Promise<void>((resolve) => this.#turns.push(resolve));
    }
    if (this.#failure !== null) throw this.#failure;
    return new Promise<number>((resolve, reject) => {
      const cid = this.#takeCid();
      const deadline = performance.now() + timeout;
      encodeCommand(this.#queue.submissions, this.#queue.claim(), { ...command, cid });
      this.#waiting.set(cid, { opcode: command.opcode, deadline, timeout, resolve, reject });
      this.#touch(() => {
        this.#queue.ring();
      });
      this.#eagerUntil = performance.now() + EAGER_MILLISECONDS;
      if (!this.#polling) {
        this.#polling = true;
        setImmediate(this.#poll);
      }
    });
  }

  /** Runs a command that transfers `length` bytes, at most a page, from the controller. Returns a copy of them. */
  async read(command: Omit<Command, 'cid' | 'prp1'>, length = NVME_PAGE): Promise<Uint8Array> {
    const chunk = this.#arena.allocate(NVME_PAGE);
    try {
      await this.command({ ...command, prp1: chunk.iova });
    } catch (error) {
      // Not given back otherwise: a command that timed out may still write to the page.
      if (error instanceof NvmeStatusError) this.#arena.release(chunk);
      throw error;
    }
    const data = this.#arena.bytes(chunk).slice(0, length);
    this.#arena.release(chunk);
    return data;
  }

  /** Fails every command, now and later. */
  fail(error: Error): void {
    this.#failure ??= error;
    const all = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const waiting of all) waiting.reject(error);
    this.#wake();
  }

  readonly #poll = (): void => {
    this.#touch(() => {
      this.#queue.poll(this.#queue.capacity, this.#complete);
    });
    const now = performance.now();
    for (const [cid, waiting] of this.#waiting) {
      if (waiting.deadline > now) continue;
      this.#waiting.delete(cid);
      waiting.reject(
        new VfioUserError(
          'ERR_VFIO_USER_TIMEOUT',
          `the controller did not complete ${adminOpcodeName(waiting.opcode)} within ${String(waiting.timeout)} ms`,
        ),
      );
    }
    this.#wake();
    this.#polling = this.#waiting.size > 0;
    if (!this.#polling) return;
    if (now < this.#eagerUntil) setImmediate(this.#poll);
    else setTimeout(this.#poll, 1);
  };

  readonly #complete = (cid: number, status: number, result: number): void => {
    const waiting = this.#waiting.get(cid);
    // A command that timed out, or a command id that the controller made up.
    if (waiting === undefined) return;
    this.#waiting.delete(cid);
    if (status === 0) waiting.resolve(result);
    else waiting.reject(new NvmeStatusError(waiting.opcode, true, status, ''));
  };

  /** Doorbells that are messages fail when the device is gone, and nobody waits for the error here. */
  #touch(action: () => void): void {
    if (this.#failure !== null) return;
    try {
      action();
    } catch (error) {
      this.fail(error as Error);
    }
  }

  #takeCid(): number {
    do this.#nextCid = (this.#nextCid + 1) & 0x7fff;
    while (this.#waiting.has(this.#nextCid));
    return this.#nextCid;
  }

  #wake(): void {
    for (const turn of this.#turns.splice(0)) turn();
  }
}
