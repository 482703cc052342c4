// SPDX-License-Identifier: MIT
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { connect } from '../../lib/client';
import { ListeningSocket, Socket, closeFd, duplicateFd } from '../../lib/native';
import { serve, type Server } from '../../lib/server';
import {
  RawClient,
  TestModel,
  VERSION,
  gate,
  join,
  message,
  openFds,
  turns,
  u32,
  u64,
  until,
  warmUp,
} from './support';

const directory = mkdtempSync(path.join(tmpdir(), 'vfio-user-server-'));
const endpoint = path.join(directory, 'device.sock');
beforeAll(warmUp);
afterAll(() => {
  rmSync(directory, { recursive: true });
});

let model: TestModel;
let server: Server;
let errors: unknown[];
let fdsBefore: number;
const onError = (error: unknown): void => void errors.push(error);

beforeEach(async () => {
  fdsBefore = openFds();
  model = new TestModel();
  errors = [];
  server = await serve(endpoint, model, { onError, versionTimeout: 100 });
});

afterEach(async () => {
  await server.close();
  model.close();
  expect(openFds()).toBe(fdsBefore);
});

describe('with our own client', () => {
  test('registers, mapped areas, memory by descriptor and by message, interrupts, reset', async () => {
    for (const directDma of [true, false]) {
      const device = await connect(endpoint, { dma: { directDma } });
      expect(device.negotiated).toMatchObject({ minor: 1, server: { maxMsgFds: 16 } });
      expect(await device.info()).toEqual({ resettable: true, regionCount: 9, irqCount: 5 });

      const bar0 = await device.region('bar0');
      await bar0.write32(0x1008, 0xdeadbeef);
      expect(await bar0.read32(0x1008)).toBe(0xdeadbeef);
      const area = bar0.map(0x1000, 0x1000);
      expect(new DataView(area.buffer).getUint32(8, true)).toBe(0xdeadbeef);
      const config = await device.region('config');
      expect(await config.read32(0)).toBe(0x56781234);
      expect((await config.readBytes(0, 4096)).length).toBe(4096);

      const memory = await device.dma.allocate(0x3000);
      const data = new Uint8Array(0x2000).map((_, index) => index % 253);
      const client = server.client;
      expect(client?.memory.place(memory.iova, 8, 'read') !== null).toBe(directDma);
      await client?.memory.write(memory.iova + 0x800, data);
      expect(new Uint8Array(memory.buffer, 0x800, 0x2000)).toEqual(data);
      expect(await client?.memory.read(memory.iova + 0x801, 0x1000)).toEqual(data.subarray(1, 0x1001));

      const msix = await device.irq('msix');
      const seen: number[] = [];
      await msix.enable([0, 1, 2, 3].map((vector) => () => void seen.push(vector)));
      expect(client?.setInterrupt(true, 3)).toBe(true);
      await until(() => seen.length > 0);
      expect(seen).toEqual([3]);
      await msix.disable();
      expect(client?.setInterrupt(true, 3)).toBe(false);

      await device.reset();
      await memory.close();
      expect(client?.memory.ranges).toEqual([]);
      await device.close();
      await until(() => server.client === null);
    }
    expect(errors).toEqual([]);
    expect(model.log.filter((line) => line === 'detach').length).toBe(2);
  });

  test('state outlives clients, memory and descriptors do not, over 100 of them', async () => {
    const open = openFds();
    for (let round = 0; round < 100; round++) {
      const device = await connect(endpoint);
      const bar0 = await device.region('bar0');
      expect(await bar0.read32(0)).toBe(round);
      await bar0.write32(0, round + 1);
      await device.dma.allocate(0x2000);
      await (await device.irq('msix')).enable([() => undefined, () => undefined]);
      const [range] = model.ranges;
      expect(range?.buffer?.byteLength).toBe(0x2000);
      await device.close();
      await until(() => server.client === null);
      expect(range?.buffer).toBeNull();
    }
    await until(() => openFds() === open);
    expect(errors).toEqual([]);
  });

  test('the second client waits for the first, then it is served', async () => {
    const first = await connect(endpoint);
    await expect(connect(endpoint, { connectTimeout: 50 })).rejects.toMatchObject({
      code: 'ERR_VFIO_USER_BUSY',
    });
    const second = connect(endpoint);
    await turns();
    expect(model.log).toEqual(['attach']);
    await (await first.region('bar0')).write32(4, 1);
    await first.close();
    const device = await second;
    expect(await (await device.region('bar0')).read32(4)).toBe(1);
    await device.close();
    expect(errors).toEqual([]);
  });
});

describe('serve and close', () => {
  test('the socket file: mode, a stale one, one that is in use, one that is no socket', async () => {
    const other = path.join(directory, 'other.sock');
    const crashed = ListeningSocket.listen(other);
    const copy = duplicateFd(crashed.fd);
    closeFd(copy);
    await expect(serve(other, model)).rejects.toMatchObject({ errnoName: 'EADDRINUSE' });
    crashed.close();
    const fresh = await serve(other, model, { mode: 0o600 });
    expect(statSync(other).mode & 0o777).toBe(0o600);
    await fresh.close();
    expect(existsSync(other)).toBe(false);
    writeFileSync(other, 'precious');
    await expect(serve(other, model)).rejects.toMatchObject({ errnoName: 'EADDRINUSE' });
  });

  test('closing disconnects, detaches and can be repeated', async () => {
    const device = await connect(endpoint);
    const bar0 = await device.region('bar0');
    await Promise.all([server.close(), server.close()]);
    expect(model.log.at(-1)).toBe('detach');
    expect(server.client).toBeNull();
    expect(existsSync(endpoint)).toBe(false);
    await expect(bar0.read32(0)).rejects.toMatchObject({ code: 'ERR_VFIO_USER_DISCONNECTED' });
    await device.close();
  });

  test('closing waits for the command that the model serves', async () => {
    const raw = await RawClient.connect(endpoint);
    const { opened, open } = gate();
    model.gate = opened;
    raw.send(message(13));
    await until(() => model.log.includes('reset'));
    let closed = false;
    const closing = server.close().then(() => {
      closed = true;
    });
    await turns();
    expect(closed).toBe(false);
    open();
    await closing;
    raw.close();
  });

  test('a signal closes; one that has fired does not even listen', async () => {
    const controller = new AbortController();
    const other = path.join(directory, 'abort.sock');
    await serve(other, model, { signal: controller.signal });
    expect(existsSync(other)).toBe(true);
    controller.abort();
    expect(existsSync(other)).toBe(false);
    await expect(serve(other, model, { signal: controller.signal })).rejects.toMatchObject({
      name: 'AbortError',
    });
    expect(existsSync(other)).toBe(false);
  });

  test('a connected descriptor, for one client', async () => {
    const [near, far] = Socket.pair();
    const fd = duplicateFd(far.fd);
    far.close();
    const other = await serve({ fd }, model, { onError });
    expect(other.path).toBe(`fd ${fd}`);
    const raw = new RawClient(near);
    expect((await raw.ask(VERSION)).errno).toBe(0);
    expect(other.client).not.toBeNull();
    raw.close();
    await until(() => other.client === null);
    // Nobody else can come.
    await other.ended;
    await other.close();
  });

  test('a descriptor that listens, for one client after the other', async () => {
    const listener = ListeningSocket.listen('@vfio-user-test-activated');
    const other = await serve({ fd: duplicateFd(listener.fd) }, model, { onError });
    let ended = false;
    void other.ended.then(() => (ended = true));
    for (let i = 0; i < 2; i++) {
      const raw = await RawClient.connect('@vfio-user-test-activated');
      expect(other.client).not.toBeNull();
      raw.close();
      await until(() => other.client === null);
    }
    expect(ended).toBe(false);
    await other.close();
    await other.ended;
    listener.close();
  });

  test('capabilities that are announced are kept', async () => {
    const other = path.join(directory, 'small.sock');
    await using small = await serve(other, model, {
      capabilities: { maxDataXferSize: 64, maxDmaMaps: 1, writeMultiple: true },
    });
    const device = await connect(other);
    expect(device.negotiated.server).toMatchObject({
      maxDataXferSize: 64,
      maxDmaMaps: 1,
      writeMultiple: true,
    });
    await device.close();
    await until(() => small.client === null);
    const raw = await RawClient.connect(other);
    expect(await raw.errnoOf(9, join(u64(0), u32(0, 65)))).toBe(22);
    expect(await raw.errnoOf(2, join(u32(32, 3), u64(0, 0, 0x1000)))).toBe(0);
    expect(await raw.errnoOf(2, join(u32(32, 3), u64(0, 0x1000, 0x1000)))).toBe(28);
    raw.close();
  });

  test('a model whose detach or attach throws', async () => {
    const failure = new Error('a defect of the model');
    jest.spyOn(model, 'attach').mockImplementationOnce(() => {
      throw failure;
    });
    const refused = await RawClient.connect(endpoint, false);
    expect((await refused.ask(VERSION)).errno).toBe(5);
    await refused.end();
    refused.close();
    jest.spyOn(model, 'detach').mockImplementationOnce(() => {
      throw failure;
    });
    const raw = await RawClient.connect(endpoint);
    raw.close();
    await until(() => errors.length === 2);
    expect(errors).toEqual([failure, failure]);
    await (await connect(endpoint)).close();
  });

  test('without onError, a failure of the model is a process warning', async () => {
    const other = path.join(directory, 'warn.sock');
    await using quiet = await serve(other, model);
    const warning = jest.spyOn(process, 'emitWarning').mockImplementation(() => undefined);
    const raw = await RawClient.connect(quiet.path);
    model.failure = new Error('a defect of the model');
    expect(await raw.errnoOf(13)).toBe(5);
    expect(warning).toHaveBeenCalledWith(expect.stringContaining('a defect of the model'), 'VfioUserWarning');
    warning.mockRestore();
    raw.close();
  });

  test.each([
    ['a negative size', (m: TestModel) => m.regions.set(1, { size: -1 })],
    ['an index beyond reason', (m: TestModel) => m.regions.set(1e6, { size: 1 })],
    [
      'an area beyond the end',
      (m: TestModel) =>
        m.regions.set(1, {
          size: 0x1000,
          shared: { fd: 0, offset: 0, areas: [{ offset: 0, size: 0x2000 }] },
        }),
    ],
    [
      'an area of half a page',
      (m: TestModel) =>
        m.regions.set(1, { size: 0x1000, shared: { fd: 0, offset: 0, areas: [{ offset: 0, size: 0x800 }] } }),
    ],
    ['half a vector', (m: TestModel) => m.irqs.set(4, 0.5)],
    ['INTx that is declared twice', (m: TestModel) => m.irqs.set(0, 1)],
    ['a BAR that is declared twice', (m: TestModel) => m.regions.set(4, { size: 0x2000 })],
  ])('a model with %s is refused', async (_name, spoil) => {
    const bad = new TestModel();
    spoil(bad);
    const other = path.join(directory, 'bad.sock');
    await expect(serve(other, bad)).rejects.toMatchObject({ code: 'ERR_INVALID_ARG_VALUE' });
    expect(existsSync(other)).toBe(false);
    bad.close();
  });

  test('options that make no sense are refused', async () => {
    const other = path.join(directory, 'bad.sock');
    await expect(serve(other, model, { versionTimeout: 0 })).rejects.toThrow('versionTimeout');
    await expect(serve(other, model, { messageTimeout: NaN })).rejects.toThrow('messageTimeout');
    await expect(serve(other, model, { capabilities: { maxDataXferSize: 0 } })).rejects.toThrow(RangeError);
  });
});
