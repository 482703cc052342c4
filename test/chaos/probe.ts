// SPDX-License-Identifier: MIT
/** Loaded into a process before its program (`node --expose-gc --require`): tells what it holds when asked. */

import { ownFootprint } from './footprint';

process.on('message', (question) => {
  if (question !== 'footprint') return;
  void ownFootprint().then((footprint) => process.send?.(footprint));
});
// The program decides when the process ends, or the end of its parent.
process.channel?.unref();
process.on('disconnect', () => process.exit());
