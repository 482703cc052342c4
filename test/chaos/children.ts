// SPDX-License-Identifier: MIT
import type { ChildProcess } from 'node:child_process';
import { constants } from 'node:os';

const running = new Set<ChildProcess>();
const cleanups = new Set<() => void>();

/** Ends a process with this one, however this one ends. */
export function adopt(child: ChildProcess): void {
  running.add(child);
  child.once('exit', () => running.delete(child));
}

/** Calls a function when this process ends, unless it was called before by the function that this returns. */
export function atEnd(cleanup: () => void): () => void {
  cleanups.add(cleanup);
  return () => {
    if (cleanups.delete(cleanup)) cleanup();
  };
}

process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL');
  for (const cleanup of cleanups) cleanup();
});
let ending = false;

/** Whether a signal asked for an early end. A run looks between two steps. */
export const endWanted = (): boolean => ending;

for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(name, () => {
    if (ending) process.exit(128 + constants.signals[name]);
    ending = true;
    console.log('ends after what is under way; a second signal ends at once');
  });
}
