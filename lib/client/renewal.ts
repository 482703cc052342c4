// SPDX-License-Identifier: MIT
import { performance } from 'node:perf_hooks';
import { VfioUserError } from '../errors';
import type { DeviceEvents, DeviceReconnecting } from '../pci/device';
import type { NegotiatedLimits } from '../protocol';
import { DeviceIdentity, assertSameLimits } from './identity';
import type { Link } from './link';
import type { OpenConnection } from './open-connection';
import type { OpenParts } from './open-parts';
import { Reconnection, type ReconnectOptions, type ReconnectionTask } from './reconnection';

/** What `connect` knows of a device that is to come back. */
export interface RenewalPlan {
  readonly options: Required<ReconnectOptions>;
  /** What the device is, and what its server takes. */
  readonly identity: DeviceIdentity;
  readonly limits: NegotiatedLimits;
  readonly open: (signal: AbortSignal) => Promise<OpenConnection>;
  /** Ends attempts when it is aborted. */
  readonly signal: AbortSignal | undefined;
}

/** Emits an event of the device; does not throw. */
export type Tell = <Name extends keyof DeviceEvents>(event: Name, ...args: DeviceEvents[Name]) => void;

/** Sets up a connection in the place of one that was lost: the same device, with all that it had. */
export class Renewal implements ReconnectionTask {
  readonly name: string;
  readonly #plan: RenewalPlan;
  readonly #link: Link;
  readonly #parts: OpenParts;
  readonly #tell: Tell;
  #reconnection: Reconnection | null = null;
  #lostAt = 0;

  constructor(plan: RenewalPlan, link: Link, parts: OpenParts, tell: Tell) {
    this.name = link.name;
    this.#plan = plan;
    this.#link = link;
    this.#parts = parts;
    this.#tell = tell;
  }

  /** Renews the link, or closes it with the reason why it cannot be. Never rejects. */
  async run(lost: VfioUserError): Promise<void> {
    const { options, signal } = this.#plan;
    const reconnection = new Reconnection(options, this);
    this.#reconnection = reconnection;
    this.#lostAt = performance.now();
    const onAbort = (): void => {
      const text = `${this.name}: its server has gone (${lost.message}), and waiting for it was aborted`;
      reconnection.stop(new VfioUserError('ERR_VFIO_USER_CLOSED', text, { cause: signal?.reason }));
    };
    signal?.addEventListener('abort', onAbort, { once: true });
    if (signal?.aborted === true) onAbort();
    try {
      await reconnection.run(lost);
    } catch (error) {
      this.#link.close(error as VfioUserError);
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  }

  /** Ends what is under way, as the link is closed. */
  stop(): void {
    this.#reconnection?.stop(new VfioUserError('ERR_VFIO_USER_CLOSED', `${this.name} is closed`));
  }

  announce(attempt: DeviceReconnecting): void {
    this.#tell('reconnecting', attempt);
  }

  async attempt(signal: AbortSignal): Promise<void> {
    const { connection, negotiated } = await this.#plan.open(signal);
    const onAbort = (): void => {
      connection.close();
    };
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      signal.throwIfAborted();
      assertSameLimits(this.name, this.#plan.limits, negotiated.limits);
      const found = await DeviceIdentity.ask(connection);
      let done;
      try {
        this.#plan.identity.assertSame(this.name, found);
        done = await this.#parts.setUp(connection, found);
      } finally {
        found.close();
      }
      this.#link.renewed(connection);
      const gap = performance.now() - this.#lostAt;
      this.#tell('reconnect', { gap, attempts: this.#reconnection?.attempts ?? 0, ...done });
    } catch (error) {
      connection.close(error instanceof VfioUserError ? error : null);
      throw error;
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }
}
