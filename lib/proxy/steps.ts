// SPDX-License-Identifier: MIT
import { VfioUserError } from '../errors';
import type { SetIrqsRequest } from '../protocol';
import { CommandError, Errno, type ClientRange } from '../server';

/** Something that went through a proxy. Offsets, addresses and sizes are in bytes. */
export type ProxyStep =
  | { readonly kind: 'attach' | 'detach'; readonly client: string }
  | {
      readonly kind: 'read' | 'write';
      readonly region: number;
      readonly offset: number;
      readonly data: Uint8Array;
    }
  | { readonly kind: 'map'; readonly range: ClientRange; readonly hasFile: boolean }
  | { readonly kind: 'unmap'; readonly range: ClientRange }
  /** A message of the device's about the client's memory. */
  | { readonly kind: 'dma-read' | 'dma-write'; readonly iova: bigint; readonly length: number }
  | { readonly kind: 'set-irqs'; readonly request: Readonly<SetIrqsRequest>; readonly eventFds: number }
  | { readonly kind: 'signal'; readonly index: number; readonly vector: number; readonly signals: number }
  | { readonly kind: 'reset' }
  | { readonly kind: 'feature'; readonly feature: number; readonly operation: string }
  | { readonly kind: 'migration-read' | 'migration-write'; readonly length: number };

/**
 * Told of what goes through a proxy: of a read when it is done, of everything else before the device is, so that what the device does
 * then comes behind it. With an error, once more.
 */
export type StepObserver = (step: ProxyStep, error: CommandError | null) => void;

/** Hands through what a client asks for: whoever watches is told, and what the device refuses becomes an errno for the client. */
export class Steps {
  readonly observer: StepObserver | null;

  /** @param observer null for none, which costs nothing then */
  constructor(observer: StepObserver | null) {
    this.observer = observer;
  }

  /** Has the device act. */
  async act<T>(step: ProxyStep, call: () => Promise<T>): Promise<T> {
    this.observer?.(step, null);
    return this.#refusing(step, call);
  }

  /** Has the device answer; `step` is filled by then. */
  async ask<T>(step: ProxyStep, call: () => Promise<T>): Promise<T> {
    const answer = await this.#refusing(step, call);
    this.observer?.(step, null);
    return answer;
  }

  async #refusing<T>(step: ProxyStep, call: () => Promise<T>): Promise<T> {
    try {
      return await call();
    } catch (error) {
      const refusal = refusalOf(error);
      if (refusal === null) throw error;
      this.observer?.(step, refusal);
      throw refusal;
    }
  }
}

/** What a client is told where an error of the device's has no errno. */
const ERRNO_OF_CODE: Readonly<Record<string, number>> = {
  ERR_VFIO_USER_TIMEOUT: Errno.ETIMEDOUT,
  ERR_VFIO_USER_DISCONNECTED: Errno.ENODEV,
  ERR_VFIO_USER_CLOSED: Errno.ENODEV,
  ERR_VFIO_USER_REMOTE: Errno.EIO,
  ERR_VFIO_USER_PROTOCOL: Errno.EIO,
  ERR_VFIO_USER_UNSUPPORTED: Errno.ENOTSUP,
  ERR_VFIO_USER_DMA: Errno.EINVAL,
  ERR_OUT_OF_RANGE: Errno.EINVAL,
  ERR_INVALID_ARG_VALUE: Errno.EINVAL,
};

/** What becomes of an error for the client; null for one that is a fault of this program. */
function refusalOf(error: unknown): CommandError | null {
  if (error instanceof CommandError) return error;
  const { code, message } = error as { readonly code?: unknown; readonly message?: unknown };
  const told = error instanceof VfioUserError && error.errno !== 0 ? error.errno : undefined;
  const errno = told ?? ERRNO_OF_CODE[String(code)];
  return errno === undefined ? null : new CommandError(errno, String(message));
}
