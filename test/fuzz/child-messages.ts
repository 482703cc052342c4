// SPDX-License-Identifier: MIT
import type { RoleName } from './role';
import type { Holdings, RunLimits } from './run-sessions';

/** Descriptor of the file in which a child tells how far it is: session, messages and a count of signs of life, as doubles. */
export const PROGRESS_FD = 4;

/** What a child is told to do. */
export interface ChildTask {
  readonly role: RoleName;
  readonly seed: number;
  readonly limits: RunLimits;
  /** File of a case that is run, once, instead of generated sessions. */
  readonly replay?: string | undefined;
}

/** What it tells at its end. */
export type ChildReport =
  | { readonly kind: 'failure'; readonly session: number; readonly text: string }
  | {
      readonly kind: 'done';
      readonly messages: number;
      readonly connections: number;
      readonly sessions: number;
      readonly seen: readonly (readonly [string, number])[];
      readonly first: Holdings | null;
      readonly last: Holdings | null;
    };
