// SPDX-License-Identifier: MIT
import { constants } from 'node:os';
import { Interrupted } from './failure';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/**
 * Runs something that ends in good order when the process is interrupted: by Ctrl-C, a polite kill(1), or the terminal
 * that goes away. A third signal ends the process at once.
 *
 * @param action is given a signal that is aborted at the first interrupt, and one for the second: then it waits for nothing
 * @throws Interrupted when the action gave up for that
 */
export async function interruptible<T>(
  action: (signal: AbortSignal, again: AbortSignal) => Promise<T>,
): Promise<T> {
  const controller = new AbortController();
  const { signal } = controller;
  const second = new AbortController();
  const onSignal = (name: NodeJS.Signals): void => {
    const interrupted = new Interrupted(name, constants.signals[name]);
    if (second.signal.aborted) {
      // By the default action: handlers of the exit might wait for a device that does not answer.
      for (const other of SIGNALS) process.off(other, onSignal);
      process.kill(process.pid, name);
    }
    if (signal.aborted) second.abort(interrupted);
    controller.abort(interrupted);
  };
  for (const name of SIGNALS) process.on(name, onSignal);
  try {
    return await action(signal, second.signal);
  } catch (error) {
    // Node's own functions throw an AbortError with the reason as its cause.
    if (signal.aborted && (error as Error).name === 'AbortError') throw signal.reason;
    // What was closed for the second signal.
    if (second.signal.aborted && (error as { code?: unknown }).code === 'ERR_VFIO_USER_CLOSED')
      throw signal.reason;
    throw error;
  } finally {
    for (const name of SIGNALS) process.off(name, onSignal);
  }
}

/** Resolves when the signal is aborted. */
export function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener(
      'abort',
      () => {
        resolve();
      },
      { once: true },
    );
  });
}
