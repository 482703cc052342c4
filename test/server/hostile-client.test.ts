// SPDX-License-Identifier: MIT
/** What one client may cost a server, in processes of their own with real limits, over dist/. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { constants } from 'node:os';
import path from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { EventFd, Socket, closeFd, createSharedMemory } from '../../lib/native';
import { PciIrq } from '../../lib/pci';
import { RawClient, dmaMap, join, message, setIrqs, u16, u32, until } from './support';

const { EMFILE, ENOMEM } = constants.errno;
const DIST = path.join(__dirname, '..', '..', 'dist');

/** A process that serves two devices, and answers questions. */
class ServerProcess {
  static readonly all: ServerProcess[] = [];
  readonly paths: readonly string[];
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess, paths: readonly string[]) {
    this.#child = child;
    this.paths = paths;
    ServerProcess.all.push(this);
  }

  /** @param maxOpenFiles limit of the process; without, it has that of this one */
  static async start(maxOpenFiles?: number): Promise<ServerProcess> {
    const script = `
      const fs = require('node:fs');
      const { serve, Mapping } = require(${JSON.stringify(path.join(DIST, 'server'))});
      const pci = { vendorId: 1, deviceId: 1, classCode: 0xff0000 };
      const model = { name: 'test', pci, irqs: new Map([[4, 2048]]) };
      const errors = [];
      const held = [];
      const realTimeout = globalThis.setTimeout;
      let tries = 0;
      globalThis.setTimeout = (handler, milliseconds) => {
        if (milliseconds === 100) tries++;
        return realTimeout(handler, milliseconds);
      };
      const questions = {
        mappings: () => Mapping.count,
        memory: () => process.memoryUsage().rss,
        descriptors: () => fs.readdirSync('/proc/self/fd').length - 1,
        errors: () => errors,
        tries: () => tries,
        /** Opens files until so many descriptors are left. */
        leave: (count) => {
          try { for (;;) held.push(fs.openSync('/dev/null')); } catch {}
          for (let i = 0; i < count; i++) fs.closeSync(held.pop());
          return held.length;
        },
        release: () => { for (const fd of held.splice(0)) fs.closeSync(fd); return null; },
      };
      process.on('message', ([name, argument]) => process.send([questions[name](argument)]));
      const paths = ['a', 'b'].map((name) => '@vfio-user-hostile-' + process.pid + name);
      const onError = (error) => void errors.push(String(error));
      const capabilities = { maxDmaMaps: 65535 };
      Promise.all(paths.map((path) => serve(path, model, { onError, capabilities }))).then(() => process.send(paths));`;
    const limit = maxOpenFiles === undefined ? '' : `ulimit -n ${maxOpenFiles} && `;
    const child = spawn('sh', ['-c', `${limit}exec "$0" -e "$1"`, process.execPath, script], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    const [paths] = (await once(child, 'message')) as [string[]];
    return new ServerProcess(child, paths);
  }

  async ask<T>(question: string, argument?: number): Promise<T> {
    const answer = once(this.#child, 'message') as Promise<[[T]]>;
    this.#child.send([question, argument]);
    return (await answer)[0][0];
  }

  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exited = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await exited;
  }
}

afterEach(async () => {
  for (const server of ServerProcess.all.splice(0)) await server.kill();
});

/** Sends many commands, some of them ahead of the replies, whose errnos it counts. None may have a payload. */
async function flood(
  { socket }: RawClient,
  count: number,
  command: (index: number) => Uint8Array,
  fds: number[],
): Promise<Map<number, number>> {
  const errnos = new Map<number, number>();
  const buffer = new Uint8Array(16 * 64);
  const view = new DataView(buffer.buffer);
  for (let sent = 0, received = 0, have = 0; received < count;) {
    while (sent < count && sent - received < 64) {
      const bytes = command(sent);
      if (socket.send(bytes, bytes.length, null, 0, fds) === 0) break;
      sent++;
    }
    const length = socket.receive(buffer, have, buffer.length - have);
    if (length < 0) throw new Error(`the server closed the connection after ${received} replies`);
    if (length === 0) await turn();
    have += length;
    const whole = have - (have % 16);
    for (let at = 0; at < whole; at += 16, received++) {
      const errno = view.getUint32(at + 12, true);
      errnos.set(errno, (errnos.get(errno) ?? 0) + 1);
    }
    buffer.copyWithin(0, whole, have);
    have -= whole;
  }
  return errnos;
}

/** The server answers at both sockets. */
async function isWell(server: ServerProcess, client?: RawClient): Promise<void> {
  const clients = client === undefined ? [await RawClient.connect(server.paths[0] ?? '')] : [client];
  clients.push(await RawClient.connect(server.paths[1] ?? ''));
  for (const one of clients) expect(await one.errnoOf(4, u32(16, 0, 0, 0))).toBe(0);
  for (const one of clients) if (one !== client) one.close();
}

test('65,000 DMA_MAPs with descriptors', async () => {
  const server = await ServerProcess.start();
  const before = await server.ask<number>('memory');
  const fd = createSharedMemory(4096);
  const client = await RawClient.connect(server.paths[0] ?? '');
  const errnos = await flood(
    client,
    65_000,
    (index) => message(2, dmaMap(0x10_0000 + index * 0x2000, 0x1000)),
    [fd],
  );
  const mapped = errnos.get(0) ?? 0;
  expect([...errnos.keys()]).toEqual([0, ENOMEM]);
  expect(mapped).toBeLessThanOrEqual(32768);
  expect(await server.ask<number>('mappings')).toBe(mapped);
  // Another client of the process is refused too, but everybody is served.
  const other = await RawClient.connect(server.paths[1] ?? '');
  expect(await other.errnoOf(2, dmaMap(0, 0x1000), [fd])).toBe(ENOMEM);
  expect(await other.errnoOf(2, dmaMap(0, 0x1000))).toBe(0);
  other.close();
  await isWell(server, client);
  expect((await server.ask<number>('memory')) - before).toBeLessThan(256 << 20);
  client.close();
  const next = await RawClient.connect(server.paths[0] ?? '');
  expect(await server.ask<number>('mappings')).toBe(0);
  expect(await next.errnoOf(2, dmaMap(0, 0x1000), [fd])).toBe(0);
  next.close();
  closeFd(fd);
}, 120_000);

test('an eventfd for each of 2,048 vectors, where the process may have 128 descriptors', async () => {
  const server = await ServerProcess.start(128);
  const event = EventFd.create();
  const client = await RawClient.connect(server.paths[0] ?? '');
  const errnos = await flood(client, 2048, (vector) => message(8, setIrqs(4 | 32, PciIrq.req, vector, 1)), [
    event.fd,
  ]);
  expect([...errnos.keys()]).toEqual([0, EMFILE]);
  // There is room for what the process itself wants to open.
  expect(await server.ask<number>('leave', 0)).toBeGreaterThan(20);
  await server.ask('release');
  await isWell(server, client);
  client.close();
  await isWell(server);
  event.close();
});

test('a process without descriptors accepts clients again when it has some', async () => {
  const server = await ServerProcess.start(128);
  await server.ask('leave', 0);
  const client = new RawClient(Socket.connect(server.paths[0] ?? ''));
  while ((await server.ask<number>('tries')) < 3) await turn();
  // It is told once.
  expect(await server.ask<string[]>('errors')).toEqual([expect.stringContaining('EMFILE')]);
  await server.ask('release');
  client.send(message(1, new Uint8Array(4)));
  expect((await client.receive()).errno).toBe(0);
  await isWell(server, client);
  client.close();
});

test.each([1, 2, 3, 4, 5, 6])(
  'no descriptor is lost when a client comes and only %i are left',
  async (count) => {
    const server = await ServerProcess.start(128);
    const descriptors = await server.ask<number>('descriptors');
    await server.ask('leave', count);
    const client = new RawClient(Socket.connect(server.paths[0] ?? ''));
    const json = '{"capabilities":{"max_msg_fds":8,"twin_socket":{"supported":true}}}\0';
    client.send(message(1, join(u16(0, 1), Buffer.from(json))));
    // It is answered, refused or disconnected.
    let told = false;
    const watcher = client.socket.watch(() => {
      told = true;
      watcher.close();
    });
    await until(() => told);
    client.close();
    await server.ask('release');
    while ((await server.ask<number>('descriptors')) !== descriptors) await turn();
    await isWell(server);
  },
);
