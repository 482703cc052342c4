// SPDX-License-Identifier: MIT
import { connect } from '../../lib/client';
import { createBackend } from '../../lib/nvme/backends';
import { NvmeControllerModel } from '../../lib/nvme/controller';
import { NvmeController } from '../../lib/nvme/host';
import { serve, type PciDeviceModel, type Server, type ServeOptions } from '../../lib/server';
import { RawClient, TestModel, VERSION, openFds, turns, u32, until, warmUp } from './support';
import { Socket } from '../../lib/native';

const path = `@vfio-user-idle-client-${process.pid}`;

let server: Server;
let errors: unknown[];
beforeAll(warmUp);

async function start(model: PciDeviceModel, options: ServeOptions): Promise<void> {
  errors = [];
  server = await serve(path, model, { onError: (error) => errors.push(error), ...options });
}

/** Whether a message has come, or the end, without taking it. */
function hasNews(client: RawClient): () => boolean {
  let news = false;
  const watcher = client.socket.watch(() => {
    news = true;
    watcher.close();
  });
  return () => news;
}

test('a client that does nothing gives its place to one that waits, and keeps it while nobody does', async () => {
  const before = openFds();
  const model = new TestModel();
  await start(model, { idleTimeout: 20 });
  const idle = await RawClient.connect(path);
  let asked = 0;
  model.activity = () => {
    asked++;
    return 0;
  };
  // Several intervals go by with nobody waiting.
  await until(() => asked >= 4);
  expect(await idle.errnoOf(4, u32(16, 0, 0, 0))).toBe(0);
  const next = await RawClient.connect(path);
  await idle.end();
  expect(errors).toEqual([
    expect.objectContaining({
      code: 'ERR_VFIO_USER_TIMEOUT',
      message: expect.stringMatching(
        /^client 1 .* did nothing for 20 ms while another client waited/,
      ) as string,
    }),
  ]);
  expect(await next.errnoOf(4, u32(16, 0, 0, 0))).toBe(0);
  idle.close();
  next.close();
  await server.close();
  model.close();
  expect(openFds()).toBe(before);
});

test('a client that has not even negotiated, where that has no time-out', async () => {
  const model = new TestModel();
  await start(model, { idleTimeout: 20, versionTimeout: Infinity });
  const silent = await RawClient.connect(path, false);
  const next = await RawClient.connect(path);
  await silent.end();
  silent.close();
  next.close();
  await server.close();
  model.close();
});

test('a client whose commands come by doorbells that are mapped is not idle', async () => {
  using model = new NvmeControllerModel({ backend: createBackend({ kind: 'memory', size: 1 << 20 }) });
  let asked = 0;
  const activity = model.activity.bind(model);
  model.activity = () => {
    asked++;
    return activity();
  };
  await start(model, { idleTimeout: 300 });
  const device = await connect(path);
  const nvme = await NvmeController.attach(device);
  const memory = await device.dma.allocate(4096);
  const waiting = new RawClient(Socket.connect(path));
  waiting.send(VERSION);
  const answered = hasNews(waiting);
  const messages = device.statistics.messagesSent;
  const first = asked;
  while (asked < first + 4) await nvme.namespaces[0]?.read(memory, { lba: 0, blocks: 8 });
  expect(device.statistics.messagesSent).toBe(messages);
  expect(answered()).toBe(false);
  expect(errors).toEqual([]);
  // Now it is.
  await until(answered);
  expect((await waiting.receive()).errno).toBe(0);
  expect(errors).toMatchObject([{ code: 'ERR_VFIO_USER_TIMEOUT' }]);
  await nvme.close().catch(() => undefined);
  await device.close();
  waiting.close();
  await server.close();
});

test('closing the server disconnects the client that waits', async () => {
  const before = openFds();
  const model = new TestModel();
  await start(model, { idleTimeout: 60_000 });
  const client = await RawClient.connect(path);
  const waiting = await RawClient.connect(path, false);
  await turns(); // The server accepts it, and keeps it.
  await server.close();
  await waiting.end();
  for (const each of [client, waiting]) each.close();
  model.close();
  expect(openFds()).toBe(before);
});
