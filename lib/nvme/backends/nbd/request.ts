// SPDX-License-Identifier: MIT

/** What is asked of a server. */
export interface NbdRequest {
  readonly type: number;
  readonly flags: number;
  readonly offset: number;
  readonly length: number;
  /** The bytes that a write sends, or a read gets: all of them. */
  readonly data?: Uint8Array;
}

/** A request that is in flight. */
export interface PendingRequest extends NbdRequest {
  /** When it is too late for the reply, by `performance.now()`. */
  readonly deadline: number;
  /** Parts of a read that have come, when replies are structured: offsets within it, in pairs of begin and end. */
  readonly parts: number[];
  /** First error of a structured reply; 0 without. */
  errno: number;
  readonly settle: (errno: number | null) => void;
}
