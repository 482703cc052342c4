// SPDX-License-Identifier: MIT
/** A worker that ends without closing anything: nothing of it stays in the process, and its peers learn of it. */
import { cleanEnd, runScript, type Outcome } from './run-script';

/** Serves a device with memory that clients may map. */
const serve = `(path) => {
  const { PciIrq } = load('pci');
  const { serve } = load('server');
  const shared = { fd: createSharedMemory(4096), offset: 0, areas: [{ offset: 0, size: 4096 }] };
  const bars = { 0: { kind: 'memory32', size: 4096, shared } };
  const pci = { vendorId: 1, deviceId: 2, classCode: 0xff0000, bars };
  return serve(path, { name: 'device', pci, irqs: new Map([[PciIrq.req, 2]]) });
}`;

/** Connects to it with one of everything: a mapped region, interrupts, memory for the device. */
const drive = `async (path) => {
  const device = await load('client').connect(path);
  (await device.region('bar0')).map(0, 4096);
  await (await device.irq('req')).enable(2);
  await device.dma.allocate(4096);
  return device;
}`;

/** Runs a script that can start workers which do something, leave it open, and end as they are told to. */
function withWorkers(body: string): Outcome {
  return runScript(`
    const serve = ${serve};
    const drive = ${drive};
    const path = require('node:os').tmpdir() + '/worker-end-' + process.pid;
    const main = (does) => \`async (data) => {
      globalThis.kept = await (\${does})(data);
      worker_threads.parentPort.on('message', (how) => { if (how === 'throw') throw new Error('thrown'); process.exit(); });
      worker_threads.parentPort.postMessage(globalThis.told);
    }\`;
    /** The worker, and what it told. */
    const start = async (does, data) => {
      const worker = inWorker(main(does), data);
      return [worker, await new Promise((resolve) => worker.once('message', resolve))];
    };
    const end = (worker, how) => {
      const gone = ended(worker);
      if (how === 'terminate') worker.terminate();
      else worker.postMessage(how);
      return gone;
    };
    const open = (fd) => { try { return fs.fstatSync(fd).nlink >= 0; } catch { return false; } };
    /** Waits until no more descriptors are open after a round than after the first one. */
    const afterEveryEnd = async (round) => {
      await round('exit');
      await turn();
      const before = openFds();
      for (const how of ['exit', 'throw', 'terminate']) {
        await round(how);
        while (openFds() > before) await turn();
        console.log(how);
      }
    };
    ${body}`);
}

/** What \`afterEveryEnd\` prints, with the exception of the worker. */
const EVERY_END = cleanEnd('exit\nthrown\nthrow\nterminate');

test('a client: the server serves the next one', () => {
  const outcome = withWorkers(`
    const server = await serve(path);
    await afterEveryEnd(async (how) => {
      const [worker] = await start(String(drive), path);
      await end(worker, how);
      await (await drive(path)).close();
      while (server.client !== null) await turn();
    });
    await server.close();
  `);
  expect(outcome).toEqual(EVERY_END);
});

test('a server with a client: the client is told, and another server takes its place', () => {
  const outcome = withWorkers(`
    await afterEveryEnd(async (how) => {
      const [worker] = await start(String(serve), path);
      const device = await drive(path);
      const closed = new Promise((resolve) => device.once('close', resolve));
      await end(worker, how);
      await closed;
      await device.close();
    });
    fs.rmSync(path);
  `);
  expect(outcome).toEqual(EVERY_END);
});

test('descriptors of every kind, also received ones that nobody took', () => {
  const outcome = withWorkers(`
    const hoard = () => {
      const all = openAll();
      all.near.send(new Uint8Array(1), 1, null, 0, [all.fd, all.fd]);
      all.far.receive(new Uint8Array(1), 0, 1);
      const taken = all.far.takeFds();
      all.near.send(new Uint8Array(1), 1, null, 0, [all.fd, all.fd]);
      all.far.receive(new Uint8Array(1), 0, 1);
      const client = Socket.connect(all.listener.path);
      return [all, taken, client, all.listener.accept(), native.duplicateFd(all.fd)];
    };
    await afterEveryEnd(async (how) => {
      const [worker] = await start(String(hoard));
      await end(worker, how);
    });
  `);
  expect(outcome).toEqual(EVERY_END);
});

test('a descriptor that was handed to a worker belongs to the worker', () => {
  const outcome = withWorkers(`
    const event = EventFd.create();
    const copy = native.duplicateFd(event.fd);
    const [worker] = await start('(fd) => EventFd.fromFd(fd)', copy);
    try { closeFd(copy); } catch (error) { console.log(error.errnoName, open(copy)); }
    await end(worker, 'exit');
    console.log(open(copy), event.read());
  `);
  expect(outcome).toEqual(cleanEnd('EBADF true\nfalse 0'));
});

test('a number that names another file by now is left alone', () => {
  const outcome = withWorkers(`
    const fd = createSharedMemory(4096);
    closeFd(fd);
    console.log(fs.openSync('/dev/null') === fd);
    try { closeFd(fd); } catch (error) { console.log(error.errnoName, open(fd)); }

    const [worker, number] = await start('() => { globalThis.told = createSharedMemory(4096); }');
    fs.closeSync(number);
    console.log(fs.openSync('/dev/null') === number);
    await end(worker, 'exit');
    console.log(open(number));
  `);
  expect(outcome).toEqual(cleanEnd('true\nEBADF true\ntrue\ntrue'));
});
