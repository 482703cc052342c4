// SPDX-License-Identifier: MIT
/** Loaded into a process before its program (`node --expose-gc --require`): tells how much memory it uses when asked. */

/** Collections after which nothing is left that only finalizers hold. */
const COLLECTIONS = 3;

process.on('message', (question) => {
  if (question !== 'memory') return;
  void (async () => {
    for (let i = 0; i < COLLECTIONS; i++) {
      gc?.();
      await new Promise(setImmediate);
    }
    process.send?.(process.memoryUsage());
  })();
});
// The program decides when the process ends.
process.channel?.unref();
