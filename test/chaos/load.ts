// SPDX-License-Identifier: MIT
import { performance } from 'node:perf_hooks';
import { fillBlock } from '../../lib/bench/verify-pattern';
import type { LatencyHistogram } from '../../lib/latency-histogram';
import type { Xoshiro128 } from '../../lib/random';
import { DEPTH, MOST_CELLS, Status, compare, type Drive } from './drive';
import { BLOCKS_PER_CELL, WORDS_PER_BLOCK, WORDS_PER_CELL, type Ledger } from './ledger';
import type { Tally } from './tally';

/** A command of the load. Cells are 0 for a flush. */
export interface Operation {
  readonly kind: 'read' | 'write' | 'fua' | 'flush';
  readonly cell: number;
  readonly cells: number;
}

/** Whether a command may fail with a status, because of a fault that was injected. */
export type Excuse = (operation: Operation, status: Status) => boolean;

const NO_EXCUSE: Excuse = () => false;
const PERCENT_WRITES = 55;
const PERCENT_FUA = 4;
const PERCENT_FLUSHES = 4;

/**
 * Reads and writes of random cells, {@link DEPTH} in flight, each compared with the ledger or entered in it. A cell is used
 * by one command at a time, so that the ledger knows the order of its writes.
 */
export class Load {
  readonly #drive: Drive;
  readonly #ledger: Ledger;
  readonly #tally: Tally;
  readonly #random: Xoshiro128;
  readonly #busy: Uint8Array;
  /** Which failures are due to a fault. */
  excuse: Excuse = NO_EXCUSE;
  /** Where the times of reads and writes are entered, if they are wanted. */
  latency: LatencyHistogram | null = null;
  /** Commands that have completed. */
  done = 0;
  /** Called after each of them. */
  onDone: () => void = () => undefined;
  #wanted = 0;
  #sent = 0;

  constructor(drive: Drive, ledger: Ledger, tally: Tally, random: Xoshiro128) {
    this.#drive = drive;
    this.#ledger = ledger;
    this.#tally = tally;
    this.#random = random;
    this.#busy = new Uint8Array(ledger.cells);
  }

  /** Runs so many commands; rejects when the controller goes away under them. */
  async run(count: number): Promise<void> {
    this.#sent = 0;
    this.done = 0;
    this.#wanted = count;
    const slots = Array.from({ length: DEPTH }, (_, slot) => this.#work(slot));
    const ends = await Promise.allSettled(slots);
    for (const end of ends) if (end.status === 'rejected') throw end.reason;
  }

  /** Sends no more commands. */
  stop(): void {
    this.#wanted = 0;
  }

  /** Writes every one of some cells again. */
  async rewrite(cells: readonly number[]): Promise<void> {
    const left = [...cells];
    const work = async (slot: number): Promise<void> => {
      for (let cell; (cell = left.pop()) !== undefined;)
        await this.#do(slot, { kind: 'write', cell, cells: 1 });
    };
    await Promise.all(Array.from({ length: DEPTH }, (_, slot) => work(slot)));
  }

  /** A write, read or flush alone: nothing else is under way. */
  write(cell: number): Promise<Status> {
    return this.#send(0, { kind: 'write', cell, cells: 1 });
  }

  read(cell: number): Promise<Status> {
    return this.#send(0, { kind: 'read', cell, cells: 1 });
  }

  flush(): Promise<Status> {
    return this.#send(0, { kind: 'flush', cell: 0, cells: 0 });
  }

  async #work(slot: number): Promise<void> {
    while (this.#sent < this.#wanted) {
      this.#sent++;
      await this.#do(slot, this.#choose());
      this.done++;
      this.onDone();
    }
  }

  #choose(): Operation {
    const random = this.#random;
    const percent = random.below(100);
    if (percent < PERCENT_FLUSHES) return { kind: 'flush', cell: 0, cells: 0 };
    const cells = random.below(4) > 0 ? 1 : 1 + random.below(MOST_CELLS);
    const kind =
      percent < PERCENT_FLUSHES + PERCENT_FUA
        ? 'fua'
        : percent < PERCENT_FLUSHES + PERCENT_FUA + PERCENT_WRITES
          ? 'write'
          : 'read';
    for (;;) {
      const cell = random.below(this.#ledger.cells - cells + 1);
      if (!this.#busy.subarray(cell, cell + cells).includes(1)) return { kind, cell, cells };
    }
  }

  /** Runs a command and returns its status. Its slot is free. */
  async #do(slot: number, operation: Operation): Promise<void> {
    const { cell, cells } = operation;
    this.#busy.fill(1, cell, cell + cells);
    try {
      const start = performance.now();
      const status = await this.#send(slot, operation);
      if (cells > 0) this.latency?.record((performance.now() - start) * 1e6);
      if (status === Status.success) this.#tally.ios++;
      else this.#judge(operation, status);
    } finally {
      this.#busy.fill(0, cell, cell + cells);
    }
  }

  #judge(operation: Operation, status: Status): void {
    const { kind, cell, cells } = operation;
    if (this.excuse(operation, status)) this.#tally.fails(`${kind} ${status}`);
    else this.#tally.mistake('wrong', `${kind} of ${cells} cells from ${cell} failed with ${status}`);
  }

  async #send(slot: number, { kind, cell, cells }: Operation): Promise<Status> {
    const [drive, ledger] = [this.#drive, this.#ledger];
    const at = drive.wordsAt(slot);
    if (kind === 'flush') {
      const before = ledger.beforeFlush();
      const status = await drive.flush();
      if (status === Status.success) {
        ledger.flush(before);
        this.#tally.flushes++;
      }
      return status;
    }
    if (kind === 'read') {
      const status = await drive.read(slot, cell, cells);
      if (status === Status.success) compare(ledger, this.#tally, drive.words, at, cell, cells);
      return status;
    }
    const generations = Array.from({ length: cells }, (_, index) => {
      const generation = ledger.issue(cell + index);
      fillCell(drive.words, at + index * WORDS_PER_CELL, cell + index, generation, ledger.seed);
      return generation;
    });
    const status = await drive.write(slot, cell, cells, kind === 'fua');
    if (status === Status.success) {
      generations.forEach((generation, index) => {
        ledger.acknowledge(cell + index, generation);
        if (kind === 'fua') ledger.flushCell(cell + index, generation);
      });
    }
    return status;
  }
}

function fillCell(words: Uint32Array, at: number, cell: number, generation: number, seed: number): void {
  for (let index = 0; index < BLOCKS_PER_CELL; index++, at += WORDS_PER_BLOCK)
    fillBlock(words, at, WORDS_PER_BLOCK, { lba: cell * BLOCKS_PER_CELL + index, generation, seed });
}
