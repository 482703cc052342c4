// SPDX-License-Identifier: MIT
/** How a server waits for the next message of a client that waits for each answer. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { PciRegion } from '../../lib/pci';
import { serve } from '../../lib/server';
import { loopSleeps } from '../support/wait';
import { RawClient, TestModel, access, openFds, until, warmUp } from './support';

const REGION_READ = 9;
const directory = mkdtempSync(path.join(tmpdir(), 'vfio-user-spin-'));
const endpoint = path.join(directory, 'device.sock');
beforeAll(warmUp);
afterAll(() => {
  rmSync(directory, { recursive: true });
});

test('the event loop looks for the next message for as long as `spin` says, then sleeps', async () => {
  const before = openFds();
  const model = new TestModel();
  const asleep: Promise<boolean>[] = [];
  model.regions.set(PciRegion.bar1, {
    size: 0x1000,
    read: () => {
      asleep.push(loopSleeps());
    },
  });
  const server = await serve(endpoint, model, { spin: 1_000_000 });
  const client = await RawClient.connect(endpoint);
  for (let reads = 0; reads < 2; reads++) {
    expect(await client.errnoOf(REGION_READ, access(PciRegion.bar1, 0, 4))).toBe(0);
    expect(await asleep[reads]).toBe(false);
    await until(loopSleeps);
  }
  client.close();
  await server.close();
  await until(loopSleeps);
  model.close();
  expect(openFds()).toBe(before);
});

test('with `spin` 0 it never looks, and a client that is gone is not looked for', async () => {
  const model = new TestModel();
  for (const spin of [0, 1_000_000]) {
    const server = await serve(endpoint, model, { spin });
    const client = await RawClient.connect(endpoint);
    if (spin === 0) await until(loopSleeps);
    client.close();
    await until(() => server.client === null);
    await until(loopSleeps);
    await server.close();
  }
  model.close();
});
