// SPDX-License-Identifier: MIT
import { performance } from 'node:perf_hooks';
import { VfioUserError, invalidArgument, outOfRange } from '../../errors';
import {
  AdminOpcode,
  SQE_WORDS,
  abortCdw10,
  adminOpcodeName,
  buildPrp,
  encodeCommand,
  getFeaturesCdw10,
  hexCode,
  identifyCdw10,
  type Command,
} from '../spec';
import { NVME_PAGE, type DmaArena } from './dma-arena';
import { NvmeStatusError, isOver } from './nvme-error';
import type { QueuePair } from './queue-pair';
import type { StatusWatch } from './status-watch';

/** A command of the admin queue, which chooses the command id. */
export type QueuedCommand = Omit<Command, 'cid'>;

/** How long an admin command is waited for. */
export interface AdminWait {
  /** Milliseconds until the command fails with ERR_VFIO_USER_TIMEOUT; Infinity for none. Default: `adminTimeout` of `attach`. */
  readonly timeout?: number | undefined;
  /**
   * Has the controller abort the command (NVMe base 2.0, 5.1), which then fails with the status 00/07. A controller may decline;
   * the command then goes on.
   */
  readonly signal?: AbortSignal | undefined;
}

/**
 * An admin command, word by word; what is not given is 0. Its data goes through memory of the driver (`read`, `write`), or lies
 * where `prp1` and `prp2` say.
 */
export interface AdminCommand extends Omit<Command, 'cid' | 'fuse' | 'psdt'>, AdminWait {
  /** Bytes that the controller sends, at least 1. The controller sets the limit (MDTS). */
  readonly read?: number;
  /** Data for the controller, at least 1 byte. The controller sets the limit (MDTS). */
  readonly write?: Uint8Array;
}

/** How an admin command ended. */
export interface AdminCompletion {
  /** Dword 0 of the completion, which has a meaning for some commands. */
  readonly result: number;
  /** The bytes that were read; empty for a command without `read`. */
  readonly data: Uint8Array;
}

interface Waiting {
  readonly command: QueuedCommand;
  readonly deadline: number;
  readonly timeout: number;
  resolve(result: number): void;
  reject(error: Error): void;
}

/** How long completions are polled at every turn of the event loop before the queue is looked at once a millisecond. */
const EAGER_MILLISECONDS = 5;
/** SPDK's target has 32 requests for its admin queue, whatever the size of the queue; some are held by events. */
const MAX_OUTSTANDING = 16;
const NO_DATA = new Uint8Array(0);

/** The admin queue: commands as promises, completions polled while any is outstanding. */
export class AdminQueue {
  readonly #name: string;
  #queue: QueuePair | null = null;
  readonly #arena: DmaArena;
  readonly #waiting = new Map<number, Waiting>();
  readonly #turns: (() => void)[] = [];
  readonly #timeout: number;
  readonly #watch: StatusWatch;
  /** Commands that were completed so far. */
  completed = 0;
  #nextCid = 0;
  #polling = false;
  #eagerUntil = 0;
  #failure: Error | null = null;
  /** Why commands fail as long as the device is waited for. */
  #lost: Error | null = null;

  /**
   * @param name of the device, for messages
   * @param arena memory for the data of commands
   * @param timeout of a command that names none, in milliseconds
   * @param watch looks whether the controller has failed
   */
  constructor(name: string, arena: DmaArena, timeout: number, watch: StatusWatch) {
    this.#name = name;
    this.#arena = arena;
    this.#timeout = timeout;
    this.#watch = watch;
    watch.queues.add(this);
  }

  /** Commands that a completion is expected for: an Asynchronous Event Request may wait for ever. */
  get outstanding(): number {
    let count = 0;
    for (const { timeout } of this.#waiting.values()) if (timeout !== Infinity) count++;
    return count;
  }

  /** Sends commands by this queue pair from now on. */
  start(queue: QueuePair): void {
    this.#queue = queue;
    this.#lost = null;
  }

  /** Fails every command, now and until {@link start}: the connection is lost, and the device waited for. */
  suspend(lost: Error): void {
    this.#lost = lost;
    this.#rejectAll(lost);
  }

  /**
   * Runs a command.
   *
   * @returns dword 0 of the completion
   * @throws NvmeStatusError; VfioUserError TIMEOUT, or why the controller failed
   */
  async run(command: QueuedCommand, { timeout = this.#timeout, signal }: AdminWait = {}): Promise<number> {
    while (this.#waiting.size >= Math.min(this.#queue?.capacity ?? 1, MAX_OUTSTANDING)) {
      await new Promise<void>((resolve) => this.#turns.push(resolve));
    }
    signal?.throwIfAborted();
    const failure = this.#failure ?? this.#lost;
    if (failure !== null) throw failure;
    const cid = this.#takeCid();
    const completion = this.#submit(this.#queue as QueuePair, cid, command, timeout);
    if (signal === undefined) return completion;
    const onAbort = (): void => {
      // A controller that declines, or is gone, leaves it to the command itself how it ends.
      this.abort(0, cid).catch(() => undefined);
    };
    signal.addEventListener('abort', onAbort, { once: true });
    return completion.finally(() => {
      signal.removeEventListener('abort', onAbort);
    });
  }

  /** Runs a command with its data, which goes through a part of the arena. */
  async transfer(command: AdminCommand): Promise<AdminCompletion> {
    const { read, write, timeout, signal, ...words } = command;
    if (read === undefined && write === undefined) {
      return { result: await this.run(words, { timeout, signal }), data: NO_DATA };
    }
    if ((read !== undefined && write !== undefined) || words.prp1 !== undefined || words.prp2 !== undefined) {
      throw invalidArgument('an admin command takes one of read, write and the PRPs of your own memory');
    }
    const length = read ?? (write as Uint8Array).length;
    if (!Number.isSafeInteger(length) || length < 1) {
      throw outOfRange(`an admin command transfers an integer number of bytes from 1 on, not ${length}`);
    }
    const pages = Math.ceil(length / NVME_PAGE);
    const listOffset = pages * NVME_PAGE;
    const memory = this.#arena.allocate(pages > 2 ? listOffset + NVME_PAGE : listOffset);
    try {
      if (write !== undefined) this.#arena.bytes(memory).set(write);
      const { prp1, prp2, list } = buildPrp(memory.iova, length, NVME_PAGE, memory.iova + listOffset);
      const entries = new BigUint64Array(this.#arena.memory.buffer, memory.offset + listOffset, list.length);
      list.forEach((page, index) => (entries[index] = BigInt(page)));
      const result = await this.run({ ...words, prp1, prp2 }, { timeout, signal });
      const data = read === undefined ? NO_DATA : this.#arena.bytes(memory).slice(0, length);
      this.#arena.release(memory);
      return { result, data };
    } catch (error) {
      // Not given back otherwise: the controller may still be at a command that timed out, and access the memory.
      if (isOver(error) || !(error instanceof VfioUserError)) this.#arena.release(memory);
      throw error;
    }
  }

  /** Asks for a command to be aborted. True when it was (NVMe base 2.0, 5.1). */
  async abort(sqId: number, cid: number): Promise<boolean> {
    const result = await this.run({ opcode: AdminOpcode.abort, cdw10: abortCdw10.encode({ sqId, cid }) });
    return (result & 1) === 0;
  }

  /** Fails every command, now and later. */
  fail(error: Error): void {
    this.#failure ??= error;
    this.#rejectAll(error);
  }

  #rejectAll(error: Error): void {
    const all = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const waiting of all) waiting.reject(error);
    this.#wake();
  }

  #submit(queue: QueuePair, cid: number, command: QueuedCommand, timeout: number): Promise<number> {
    return new Promise<number>((resolve, reject) => {
      const deadline = performance.now() + timeout;
      // Encoded aside: an entry that is claimed is submitted, also when the command turns out not to be valid.
      const entry = new Uint32Array(SQE_WORDS);
      encodeCommand(entry, 0, { ...command, cid });
      queue.submissions.set(entry, queue.claim());
      this.#waiting.set(cid, { command, deadline, timeout, resolve, reject });
      this.#touch(() => {
        queue.ring();
      });
      this.#watch.begin();
      this.#eagerUntil = performance.now() + EAGER_MILLISECONDS;
      if (this.#polling) return;
      this.#polling = true;
      setImmediate(this.#poll);
    });
  }

  readonly #poll = (): void => {
    this.#touch(() => {
      this.#queue?.poll(this.#queue.capacity, this.#complete);
    });
    const now = performance.now();
    for (const [cid, waiting] of this.#waiting) {
      if (waiting.deadline > now) continue;
      this.#waiting.delete(cid);
      waiting.reject(
        new VfioUserError(
          'ERR_VFIO_USER_TIMEOUT',
          `${this.#name} did not complete ${adminOpcodeName(waiting.command.opcode)} within ${waiting.timeout} ms; ` +
            'look at its server, or attach with a longer adminTimeout',
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
    this.completed++;
    const waiting = this.#waiting.get(cid);
    // A command that timed out, or a command id that the controller made up.
    if (waiting === undefined) return;
    this.#waiting.delete(cid);
    const { command } = waiting;
    if (status === 0) waiting.resolve(result);
    else waiting.reject(new NvmeStatusError(command.opcode, true, status, detailOf(command)));
  };

  /**
   * Doorbells that are messages fail when the device is gone, and nobody waits for the error here. A device that comes back has
   * told of its loss before, and {@link suspend} was called.
   */
  #touch(action: () => void): void {
    if (this.#failure !== null || this.#lost !== null) return;
    try {
      action();
    } catch (error) {
      // The action may have called suspend().
      if ((this.#lost as Error | null) === null) this.fail(error as Error);
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

/** What a command was about, for its error. */
function detailOf({ opcode, cdw10 = 0, nsid = 0 }: QueuedCommand): string {
  switch (opcode) {
    case AdminOpcode.identify: {
      const cns = `CNS ${hexCode(identifyCdw10.decode(cdw10).cns)}`;
      return nsid === 0 ? cns : `${cns}, namespace ${nsid}`;
    }
    case AdminOpcode.getLogPage:
      return `log page ${hexCode(cdw10 & 0xff)}`;
    case AdminOpcode.getFeatures:
    case AdminOpcode.setFeatures:
      return `feature ${hexCode(getFeaturesCdw10.decode(cdw10).feature)}`;
    default:
      return '';
  }
}
