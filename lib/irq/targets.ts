// SPDX-License-Identifier: MIT
import type { EventFd } from '../native';
import type { IrqHandler } from './vector';

/** Where the signals of a vector go: to a function, to an eventfd, which stays the caller's, or nowhere (null). */
export type IrqTarget = IrqHandler | EventFd | null;

/** Vectors one after the other. */
export interface VectorRange {
  /** The first one. */
  readonly start: number;
  /** How many. */
  readonly count: number;
}

/** Vectors that an action is for: a range of them, or an array whose element n tells whether vector n is meant. */
export type VectorSelection =
  | {
      /** First vector. Default 0. */
      readonly start?: number;
      /** Number of vectors, at least 1. Default: all from `start` on. */
      readonly count?: number;
      /** Always absent, which tells a range from an array. */
      readonly length?: never;
    }
  | readonly boolean[];
