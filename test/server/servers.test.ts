// SPDX-License-Identifier: MIT
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { connect } from '../../lib/client';
import { VfioUserError } from '../../lib/errors';
import { serve, type Server } from '../../lib/server';
import { TestModel, gate, openFds, turns, until, warmUp } from './support';

const directory = mkdtempSync(path.join(tmpdir(), 'vfio-user-servers-'));
const socketOf = (name: string): string => path.join(directory, `${name}.sock`);

let models: TestModel[];
let errors: unknown[];
let fdsBefore: number;
const onError = (error: unknown): void => void errors.push(error);

beforeAll(warmUp);
beforeEach(() => {
  fdsBefore = openFds();
  models = Array.from({ length: 4 }, () => new TestModel());
  errors = [];
});
afterEach(() => {
  for (const model of models) model.close();
  expect(openFds()).toBe(fdsBefore);
});
afterAll(() => {
  rmSync(directory, { recursive: true });
});

test('several devices in one process have their own clients, registers, memory, interrupts and pace', async () => {
  const servers = await Promise.all(
    models.map((model, index) => serve(socketOf(`device${index}`), model, { onError })),
  );
  const devices = await Promise.all(servers.map((server) => connect(server.path)));
  const { opened, open } = gate();
  const [slow] = models as [TestModel];
  slow.gate = opened;
  let wasReset = false;
  const reset = devices[0]?.reset().then(() => {
    wasReset = true;
  });
  await until(() => slow.log.includes('reset'));
  const signalled = models.map(() => 0);
  // The first is being reset all the time; the others do not notice.
  await Promise.all(
    devices.map(async (device, index) => {
      if (index === 0) return;
      const bar0 = await device.region('bar0');
      await bar0.write32(0, 100 + index);
      const memory = await device.dma.allocate(0x1000);
      await models[index]?.client?.memory.write(memory.iova, Uint8Array.of(index));
      expect(new Uint8Array(memory.buffer)[0]).toBe(index);
      await (
        await device.irq('msix')
      ).enable([
        () => {
          signalled[index]!++;
        },
      ]);
      expect(await bar0.read32(0)).toBe(100 + index);
    }),
  );
  expect(models.map((model) => model.ranges.length)).toEqual([0, 1, 1, 1]);
  expect(models.map((model) => model.bar0[0])).toEqual([0, 101, 102, 103]);
  expect(models.map((model) => model.client?.setInterrupt(true, 0))).toEqual([false, true, true, true]);
  await until(() => signalled.join() === '0,1,1,1');
  // One that closes takes no other with it.
  await servers[2]?.close();
  expect(await (await devices[1]!.region('bar0')).read32(0)).toBe(101);
  await expect((await devices[3]!.region('bar0')).read32(0)).resolves.toBe(103);
  await expect(devices[2]!.info()).rejects.toMatchObject({ code: 'ERR_VFIO_USER_DISCONNECTED' });
  expect(wasReset).toBe(false);
  open();
  await reset;
  for (const device of devices) await device.close();
  for (const server of servers) await server.close();
  expect(errors).toEqual([]);
});

test('a server that is closed and started again at its path while clients come and go', async () => {
  const [model] = models as [TestModel];
  const endpoint = socketOf('restarted');
  let server: Server = await serve(endpoint, model, { onError });
  let finished = false;
  let served = 0;
  const refused = new Map<string, number>();
  const client = async (counter: number): Promise<void> => {
    while (!finished) {
      try {
        await using device = await connect(endpoint, { connectTimeout: 200 });
        const bar0 = await device.region('bar0');
        const value = await bar0.read32(4 * counter);
        await device.dma.allocate(0x2000);
        await (await device.irq('msix')).enable([() => undefined]);
        await bar0.write32(4 * counter, value + 1);
        served++;
      } catch (error) {
        if (!(error instanceof VfioUserError)) throw error;
        refused.set(error.code, (refused.get(error.code) ?? 0) + 1);
        await turns(1);
      }
    }
  };
  const clients = [0, 1, 2].map(client);
  try {
    for (let round = 0; round < 25; round++) {
      const before = served;
      await until(() => served > before);
      // At any point of what a client does.
      await turns(3 * (round % 5));
      await server.close();
      expect([server.client, model.client, model.ranges.length]).toEqual([null, null, 0]);
      expect(existsSync(endpoint)).toBe(false);
      server = await serve(endpoint, model, { onError });
    }
    const before = served;
    await until(() => served > before);
  } finally {
    finished = true;
    await Promise.all(clients);
    await server.close();
  }
  // Every client that was told that its write is done finds it: the registers outlive clients and servers.
  const counters = new Uint32Array(model.bar0.slice(0, 12).buffer);
  expect(counters[0]! + counters[1]! + counters[2]!).toBeGreaterThanOrEqual(served);
  // VERSION: the listening socket was closed with the client in its backlog.
  const expected = ['CONNECT', 'BUSY', 'DISCONNECTED', 'VERSION'].map((name) => `ERR_VFIO_USER_${name}`);
  expect([...refused.keys()].filter((code) => !expected.includes(code))).toEqual([]);
  expect(model.log.filter((line) => line === 'attach').length).toBe(
    model.log.filter((line) => line === 'detach').length,
  );
  expect(errors).toEqual([]);
}, 60_000);
