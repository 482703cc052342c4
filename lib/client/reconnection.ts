// SPDX-License-Identifier: MIT
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { VfioUserError, asError, invalidArgument } from '../errors';
import { checkKeys, type Keys } from '../pci/check-keys';
import type { DeviceReconnecting } from '../pci/device';
import { DeadlineTimer, MAX_TIMER } from '../transport/deadline-timer';

/** How a device comes back when its server has gone. Times are in milliseconds. */
export interface ReconnectOptions {
  /** How long to wait before the first attempt; each further wait is twice as long, up to {@link longestDelay}. Default 50. */
  readonly firstDelay?: number;
  /** Longest wait between two attempts. Each wait is between a half and the whole of its time, by chance. Default 1000. */
  readonly longestDelay?: number;
  /** When the device has not come back by this time after the connection was lost, it is closed. Default 60000; Infinity for never. */
  readonly deadline?: number;
}

const OPTIONS: Keys<ReconnectOptions> = {
  firstDelay: 'optional',
  longestDelay: 'optional',
  deadline: 'optional',
};

/**
 * Checks the option `reconnect` of `connect`.
 *
 * @returns null when the device is not to come back
 * @throws TypeError ERR_INVALID_ARG_VALUE
 */
export function checkReconnect(
  option: boolean | ReconnectOptions | undefined,
): Required<ReconnectOptions> | null {
  if (option === undefined || option === false) return null;
  const given = option === true ? {} : option;
  checkKeys('reconnect', given, OPTIONS);
  const { firstDelay = 50, longestDelay = Math.max(1000, firstDelay), deadline = 60_000 } = given;
  for (const [name, value] of Object.entries({ firstDelay, longestDelay, deadline })) {
    if (typeof value !== 'number' || !(value > 0))
      throw invalidArgument(`reconnect: ${name} is ${value}; give milliseconds above 0`);
  }
  for (const [name, value] of Object.entries({ firstDelay, longestDelay })) {
    if (value > MAX_TIMER)
      throw invalidArgument(`reconnect: ${name} is ${value}; give at most ${MAX_TIMER} milliseconds`);
  }
  if (longestDelay < firstDelay)
    throw invalidArgument(
      `reconnect: longestDelay is ${longestDelay}, and firstDelay ${firstDelay} is longer`,
    );
  return { firstDelay, longestDelay, deadline };
}

/** What {@link Reconnection} does for a device. */
export interface ReconnectionTask {
  /** Name of the device, for messages. */
  readonly name: string;
  /** Connects and sets up, unless the signal is aborted. What it throws makes another attempt, but for {@link isFinal}. */
  attempt(signal: AbortSignal): Promise<void>;
  /** An attempt will be made. */
  announce(attempt: DeviceReconnecting): void;
}

/** Attempts to come back to a server that has gone, with growing delays, until one succeeds, the deadline passes, or it is stopped. */
export class Reconnection {
  readonly #options: Required<ReconnectOptions>;
  readonly #task: ReconnectionTask;
  readonly #stop = new AbortController();
  #attempts = 0;

  constructor(options: Required<ReconnectOptions>, task: ReconnectionTask) {
    this.#options = options;
    this.#task = task;
  }

  /** Number of attempts so far. */
  get attempts(): number {
    return this.#attempts;
  }

  /** Ends the attempt that is under way, and makes no more. {@link run} rejects with the reason, if it still runs. */
  stop(reason: VfioUserError): void {
    this.#stop.abort(reason);
  }

  /**
   * Makes attempts.
   *
   * @param lost why there is no connection
   * @throws VfioUserError the reason of {@link stop}; ERR_VFIO_USER_DISCONNECTED when the deadline has passed; the error of an
   *   attempt after which no other makes sense
   */
  async run(lost: VfioUserError): Promise<void> {
    const { firstDelay, longestDelay, deadline } = this.#options;
    const { name } = this.#task;
    const { signal } = this.#stop;
    let error: Error = lost;
    const end = performance.now() + deadline;
    const timer = new DeadlineTimer((now) => {
      if (now < end) return end;
      const text = `${name} did not come back within ${deadline} ms after its server had gone (${error.message})`;
      this.stop(new VfioUserError('ERR_VFIO_USER_DISCONNECTED', text, { cause: error }));
      return Infinity;
    });
    timer.arm(end);
    try {
      for (let longest = firstDelay; ; longest = Math.min(longestDelay, 2 * longest)) {
        signal.throwIfAborted();
        // Clients of one server should not all come at the same moment.
        const delay = longest * (0.5 + Math.random() / 2);
        this.#task.announce({ attempt: this.#attempts + 1, delay, error });
        await sleep(delay, undefined, { signal }).catch(() => undefined);
        signal.throwIfAborted();
        this.#attempts++;
        try {
          await this.#task.attempt(signal);
          return;
        } catch (failure) {
          signal.throwIfAborted();
          error = asError(failure);
          if (isFinal(error)) throw error;
        }
      }
    } finally {
      timer.clear();
    }
  }
}

/** Whether no further attempt makes sense: another device is served, or another version of the protocol is spoken. */
function isFinal(error: Error): boolean {
  if (!(error instanceof VfioUserError)) return false;
  // A server that ends the connection instead of answering VERSION may have been killed.
  return (
    error.code === 'ERR_VFIO_USER_IDENTITY' ||
    (error.code === 'ERR_VFIO_USER_VERSION' && error.cause === undefined)
  );
}
