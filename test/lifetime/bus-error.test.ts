// SPDX-License-Identifier: MIT
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PreloadedLibrary, testWithCompiler } from './preloaded-library';
import { cleanEnd, runScript } from './run-script';

test('a truncated file reads as zero, and is told', () => {
  const outcome = runScript(`
    const { fd, mapping, watchers } = openAll();
    for (const watcher of watchers) watcher.close();
    mapping.onLost = (which) => { console.log('lost', which === mapping, which.lost); };
    new Uint8Array(mapping.buffer).fill(1);
    fs.ftruncateSync(fd, 0);
    console.log(new Uint8Array(mapping.buffer)[4096]);
    await turn();
    await turn();
  `);
  expect(outcome).toEqual(cleanEnd('0\nlost true true'));
});

test('a loss is told of a mapping of which nobody has kept more than its buffer', () => {
  const outcome = runScript(`
    const fd = createSharedMemory(8192, { sealed: false });
    let collected = 0;
    const registry = new FinalizationRegistry(() => { collected++; });
    const view = (() => {
      const mapping = Mapping.map(fd, 0, 8192);
      mapping.onLost = (which) => { console.log('lost', which.lost, which.buffer === view.buffer); };
      return new Uint8Array(mapping.buffer);
    })();
    (() => registry.register(Mapping.map(fd, 0, 4096)))();
    while (collected === 0) { gc(); await turn(); }
    fs.ftruncateSync(fd, 0);
    console.log(view[4096]);
    await turn();
    await turn();
  `);
  expect(outcome).toEqual(cleanEnd('0\nlost true true'));
});

test('a hostile peer cannot exhaust the mappings of the process', () => {
  // Repairing single pages would leave a mapping in as many pieces, and vm.max_map_count ends that.
  const outcome = runScript(`
    const size = 1000 * 8192;
    const fd = createSharedMemory(size, { sealed: false });
    const mapping = Mapping.map(fd, 0, size);
    fs.ftruncateSync(fd, 0);
    const view = new Uint8Array(mapping.buffer);
    let sum = 0;
    for (let offset = size - 4096; offset >= 0; offset -= 8192) {
      fs.ftruncateSync(fd, offset + 4096);
      sum += view[offset];
      fs.ftruncateSync(fd, 0);
    }
    console.log(sum, mappings());
  `);
  expect(outcome).toEqual(cleanEnd('0 1'));
});

test('two workers map the same descriptor, see each other, and each learns of its own loss', () => {
  const outcome = runScript(`
    const fd = createSharedMemory(8192, { sealed: false });
    const body = ((data) => {
      const mapping = Mapping.map(data.fd, 0, 8192);
      const words = new Int32Array(mapping.buffer);
      Atomics.store(words, data.own, 1);
      while (Atomics.load(words, data.other) === 0);
      mapping.onLost = (which) => { worker_threads.parentPort.postMessage('lost ' + which.lost); worker_threads.parentPort.close(); };
      worker_threads.parentPort.on('message', () => { new Int32Array(mapping.buffer)[1024] += 1; });
      worker_threads.parentPort.postMessage('met');
    }).toString();
    const workers = [inWorker(body, { fd, own: 0, other: 1 }), inWorker(body, { fd, own: 1, other: 0 })];
    const heard = [];
    const next = (worker) => new Promise((resolve) => worker.once('message', resolve));
    console.log((await Promise.all(workers.map(next))).join());
    fs.ftruncateSync(fd, 0);
    const told = workers.map(next);
    for (const worker of workers) worker.postMessage('go');
    console.log((await Promise.all(told)).join());
    await Promise.all(workers.map(ended));
  `);
  expect(outcome).toEqual(cleanEnd('met,met\nlost true,lost true'));
});

// The timers end processes that have survived what should have killed them.
test('SIGBUS that is sent still kills', () => {
  const outcome = runScript(`
    openAll();
    process.kill(process.pid, 'SIGBUS');
    setTimeout(() => { console.log('survived'); process.exit(); }, 2000);
  `);
  expect(outcome).toMatchObject({ status: null, signal: 'SIGBUS', stdout: '' });
});

testWithCompiler('a fault outside our mappings still kills', () => {
  using library = new PreloadedLibrary(`
    #define _GNU_SOURCE
    #include <fcntl.h>
    #include <pthread.h>
    #include <stdlib.h>
    #include <sys/mman.h>
    #include <unistd.h>
    static void* fault(void* page) {
      while (access(getenv("FAULT_WHEN"), F_OK) != 0) usleep(1000);
      return (void*)(long)*(volatile char*)page;
    }
    __attribute__((constructor)) static void start(void) {
      pthread_t thread;
      int fd = memfd_create("foreign", 0);
      pthread_create(&thread, 0, fault, mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0));
    }`);
  const scratch = mkdtempSync(join(tmpdir(), 'vfio-user-'));
  try {
    const environment = { ...library.environment, FAULT_WHEN: join(scratch, 'now') };
    const body = `
      const { fd, mapping } = openAll();
      fs.ftruncateSync(fd, 0);
      console.log('own', new Uint8Array(mapping.buffer)[0]);
      fs.writeFileSync(process.env.FAULT_WHEN, '');
      setTimeout(() => { console.log('survived'); process.exit(); }, 3000);`;
    expect(runScript(body, environment)).toMatchObject({ signal: 'SIGBUS', stdout: 'own 0' });
  } finally {
    rmSync(scratch, { recursive: true });
  }
});
