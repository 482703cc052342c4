// SPDX-License-Identifier: MIT
import { VfioUserError } from '../../errors';

/** A step that undoes a part of bringing a controller up. */
export interface UndoStep {
  /** Whether it waits for an answer of the device. */
  readonly asksDevice: boolean;
  readonly run: () => unknown;
}

/**
 * Runs all steps, whatever becomes of the others, and tells the first error. A device that has not answered a message in time
 * is not asked again: each step would take its whole time-out.
 *
 * @param before the error that led here
 */
export async function runAll(steps: readonly UndoStep[], before?: unknown): Promise<unknown> {
  let first = before;
  let silent = isUnanswered(before);
  for (const { asksDevice, run } of steps) {
    if (asksDevice && silent) continue;
    try {
      await run();
    } catch (error) {
      first ??= error;
      silent ||= isUnanswered(error);
    }
  }
  return first;
}

/** True for a message without an answer. A command that the controller has not completed says nothing about the device's server. */
function isUnanswered(error: unknown): boolean {
  return (
    error instanceof VfioUserError && error.code === 'ERR_VFIO_USER_TIMEOUT' && error.command !== undefined
  );
}
