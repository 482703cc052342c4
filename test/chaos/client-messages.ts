// SPDX-License-Identifier: MIT

/** What a client of role client is told when it starts. */
export interface ClientTask {
  readonly socket: string;
  /** File of the ledger, which is this client's own. */
  readonly ledger: string;
  readonly cells: number;
  /** Of the ledger. */
  readonly seed: number;
  /** Of this client's load. */
  readonly loadSeed: number;
  /** MSI-X vectors, 0 to poll. */
  readonly vectors: number;
  /** Small DMA ranges, beside the memory of the commands. */
  readonly ranges: number;
}

export type ClientOrder =
  | { readonly do: 'go'; readonly task: ClientTask }
  /** The controller or the device is reset under load. */
  | { readonly do: 'reset-controller' }
  | { readonly do: 'reset-device' }
  /** A file that the server has mapped is truncated while the server reads and writes it. */
  | { readonly do: 'shrink' }
  | { readonly do: 'close' };

export type ClientReport =
  /** It has loaded its program, and waits for `go`. */
  | { readonly kind: 'ready' }
  /** The first command has completed: by the clock that processes share, in milliseconds. */
  | { readonly kind: 'first-io'; readonly at: number }
  | { readonly kind: 'done' }
  | { readonly kind: 'mistake'; readonly mistake: 'lost' | 'wrong' | 'broken'; readonly text: string }
  /** The server is gone, or does not serve this client (any more). */
  | { readonly kind: 'refused'; readonly text: string };

/** Words of the ledger's header: the {@link Phase}, commands and flushes of the load, and how often all cells were read back. */
export const Header = { phase: 0, done: 1, flushes: 2, verified: 3 } as const;

/** How far a client has come. */
export const Phase = { idle: 0, connect: 1, 'bring-up': 2, verify: 3, load: 4, close: 5 } as const;
export type Phase = keyof typeof Phase;

/** Now, by a clock that processes share, in milliseconds. */
export const sharedNow = (): number => performance.timeOrigin + performance.now();
