// SPDX-License-Identifier: MIT

/**
 * The loop of a queue that is kept full: it reaps completions, and submits an entry for each.
 *
 * Beyond the tail of the submission queue the caller has prepared entries that lack only command id and data pointer. An
 * entry gets those of the command whose completion makes room for it. The doorbells are rung once for all completions
 * that are found together, and then the clock is read. A completion with a status, or of a command id without a data
 * pointer, ends the loop and stays in the queue for the caller.
 *
 * `NativeQueueLoop` is the form for mapped doorbells. `ScriptQueueLoop` is its reference, and serves where
 * doorbells are written by message.
 */
export interface QueueLoop {
  /**
   * The data pointer of each command id, 4 words each (NVMe base 2.0, 3.3.3.1: DPTR). There may be several sets of them, one
   * after the other, for I/Os of different sizes. The caller fills them once.
   */
  readonly pointers: Uint32Array;
  /** For each entry of the submission queue the word of {@link pointers} at which its set begins. 0 unless the caller stores more. */
  readonly sets: Uint32Array;
  /** Command ids of the completions that the last run took, in their order. */
  readonly cids: Uint32Array;
  /** When the doorbells were rung for each of them, in milliseconds of `performance.now()`. */
  readonly times: Float64Array;
  /**
   * @param tail index of the first of `ready` prepared entries in the submission queue
   * @param head index of the next entry of the completion queue
   * @param phase phase tag of that entry
   * @param ready most entries to submit; no more are submitted than {@link cids} has room for
   * @param patience microseconds without a completion after which the run ends; 0 ends it when the queue is found empty
   * @returns number of completions taken, and of entries submitted
   */
  run(tail: number, head: number, phase: number, ready: number, patience: number): number;
}
