// SPDX-License-Identifier: MIT
import { addon, checked } from './addon';

/**
 * Lets the calling thread run on some processors alone (sched_setaffinity(2)).
 *
 * @param processors numbers from 0 to 1023, at least one
 * @throws VfioUserError ERR_VFIO_USER_SYSTEM when the thread may use none of them
 */
export function bindThread(processors: readonly number[]): void {
  const list = processors.join(', ');
  checked(
    addon().bindThread(Int32Array.from(processors)),
    'sched_setaffinity',
    `Binding a thread to processors ${list}`,
  );
}
