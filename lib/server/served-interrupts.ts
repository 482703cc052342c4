// SPDX-License-Identifier: MIT
import type { SetIrqsRequest } from '../protocol';
import type { FdList } from '../transport';
import type { Eventually } from './model-calls';

/** The interrupts of one client, as far as a server has to do with them. */
export interface ServedInterrupts {
  /** See `Client.setInterrupt`. */
  set(high: boolean, vector: number): boolean;
  /** See `Client.trigger`. */
  trigger(irqIndex: number, vector: number): boolean;
  /** Configuration space has changed, or what the client has set. */
  configured(): void;
  /** The device is reset: its interrupts are low, and none is pending. */
  reset(): void;
  /** Serves a DEVICE_SET_IRQS. */
  setIrqs(request: Readonly<SetIrqsRequest>, fds: FdList): Eventually<void>;
  /** Signals nothing any more, and closes all eventfds. Resolves when that is done. */
  close(): Promise<void>;
}
