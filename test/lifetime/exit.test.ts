// SPDX-License-Identifier: MIT
import { cleanEnd, runScript } from './run-script';

test('watchers keep the process alive until they are closed', () => {
  // The first timer holds nothing: it comes only when the watchers outlive the second, which does.
  const outcome = runScript(`
    const all = openAll();
    setTimeout(() => { console.log('still here'); for (const watcher of all.watchers) watcher.close(); }, 50).unref();
    setTimeout(() => {}, 10);
  `);
  expect(outcome).toEqual(cleanEnd('still here'));
});

test('watchers without a reference do not', () => {
  const outcome = runScript(`
    for (const watcher of openAll().watchers) { watcher.ref(); watcher.unref(); watcher.unref(); }
    console.log('done');
  `);
  expect(outcome).toEqual(cleanEnd('done'));
});

test('process.exit with everything open', () => {
  expect(runScript(`openAll(); console.log('bye'); process.exit(0);`)).toEqual(cleanEnd('bye'));
});

test('process.exit from within a handler', () => {
  const outcome = runScript(`
    openAll();
    const event = EventFd.create();
    event.watch(() => { console.log('bye'); process.exit(0); });
    event.signal();
  `);
  expect(outcome).toEqual(cleanEnd('bye'));
});

test('a worker that ends with everything open, by return, by exit in a handler, and by terminate', () => {
  const outcome = runScript(`
    await ended(inWorker((() => { for (const watcher of openAll().watchers) watcher.unref(); }).toString()));
    await ended(inWorker((() => { openAll(); process.exit(); }).toString()));
    await ended(inWorker((() => {
      openAll();
      const event = EventFd.create();
      event.watch(() => process.exit());
      event.signal();
    }).toString()));
    const busy = inWorker((() => { openAll(); worker_threads.parentPort.postMessage('ready'); }).toString());
    await new Promise((resolve) => busy.on('message', resolve));
    await busy.terminate();
    console.log(mappings());
  `);
  expect(outcome).toEqual(cleanEnd('0'));
});

test('the addon survives when the only thread that had loaded it has ended', () => {
  // The library must stay in memory: the SIGBUS handler is part of it.
  const outcome = runScript(`
    await ended(inWorker((() => { openAll().watchers.forEach((watcher) => watcher.close()); }).toString()));
    await ended(inWorker((() => { openAll().watchers.forEach((watcher) => watcher.close()); }).toString()));
    console.log(/vfio[-_]user[^\\n/]*\\.node$/m.test(fs.readFileSync('/proc/self/maps', 'utf8')));
  `);
  expect(outcome).toEqual(cleanEnd('true'));
});

test('an exception in a handler is an uncaught exception', () => {
  const fatal = runScript(`
    const event = EventFd.create(1);
    event.watch(() => { throw new Error('from the handler'); });
  `);
  expect(fatal.status).toBe(1);
  expect(fatal.stderr).toContain('from the handler');

  const caught = runScript(`
    process.on('uncaughtException', (error) => { console.log('caught', error.message); });
    const event = EventFd.create(1);
    let calls = 0;
    event.watch(() => { if (++calls === 2) event.close(); else event.signal(); throw new Error('call ' + calls); });
  `);
  expect(caught).toEqual(cleanEnd('caught call 1\ncaught call 2'));
});

test('an exception in a handler ends a worker, and only the worker', () => {
  const outcome = runScript(`
    const code = await ended(inWorker((() => {
      openAll();
      const event = EventFd.create();
      event.watch(() => { throw new Error('from the handler'); });
      event.signal();
    }).toString()));
    console.log('code', code);
  `);
  expect(outcome).toEqual(cleanEnd('from the handler\ncode 1'));
});

test('AsyncLocalStorage survives garbage collection', () => {
  const outcome = runScript(`
    const { AsyncLocalStorage } = require('node:async_hooks');
    const storage = new AsyncLocalStorage();
    const event = EventFd.create();
    storage.run({ name: 'mine' }, () => event.watch(() => { console.log(storage.getStore()?.name); event.close(); }));
    for (let index = 0; index < 5; index++) { gc(); await turn(); }
    event.signal();
  `);
  expect(outcome).toEqual(cleanEnd('mine'));
});
