// SPDX-License-Identifier: MIT
import { cleanEnd, runScript } from './run-script';

test('a watcher that spins keeps the process alive like any other, and not without a reference', () => {
  // The timer itself holds nothing: it comes only when the watcher does.
  const outcome = runScript(`
    const event = EventFd.create();
    const watcher = event.watch(() => {}, { spin: Infinity });
    setTimeout(() => { console.log('still here'); watcher.unref(); }, 50).unref();
  `);
  expect(outcome).toEqual(cleanEnd('still here'));
});

test('a worker and a process that end while a watcher spins', () => {
  // They end from timers, as a watcher looks for signals only while the event loop has nothing to do but wait.
  const outcome = runScript(`
    const spin = (() => { EventFd.create().watch(() => {}, { spin: Infinity }); });
    await ended(inWorker('() => { (' + spin + ')(); setTimeout(() => process.exit(), 20); }'));
    const busy = inWorker('() => { (' + spin + ')(); worker_threads.parentPort.postMessage(0); }');
    await new Promise((resolve) => busy.on('message', resolve));
    await busy.terminate();
    spin();
    setTimeout(() => { console.log('bye'); process.exit(0); }, 20);
  `);
  expect(outcome).toEqual(cleanEnd('bye'));
});
