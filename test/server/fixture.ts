// SPDX-License-Identifier: MIT
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { serve, type Client, type ServeOptions, type Server } from '../../lib/server';
import { RawClient, TestModel, openFds, warmUp } from './support';

/** What a test of {@link useServer} works with. */
export interface Fixture {
  endpoint: string;
  model: TestModel;
  server: Server;
  /** A client that has negotiated; may be replaced. */
  raw: RawClient;
  /** What `onError` was told. */
  errors: { error: unknown; client: Client | null }[];
}

/** Serves a test device to a raw client in each test of the file, and asserts that no descriptor is leaked. */
export function useServer(options: ServeOptions = {}): Fixture {
  const directory = mkdtempSync(path.join(tmpdir(), 'vfio-user-server-'));
  const fixture = { endpoint: path.join(directory, 'device.sock') } as Fixture;
  let fdsBefore = 0;

  beforeAll(warmUp);
  beforeEach(async () => {
    fdsBefore = openFds();
    fixture.model = new TestModel();
    fixture.errors = [];
    const onError = (error: unknown, client: Client | null): void =>
      void fixture.errors.push({ error, client });
    fixture.server = await serve(fixture.endpoint, fixture.model, { ...options, onError });
    fixture.raw = await RawClient.connect(fixture.endpoint);
  });
  afterEach(async () => {
    fixture.raw.close();
    await fixture.server.close();
    fixture.model.close();
    expect(openFds()).toBe(fdsBefore);
  });
  afterAll(() => {
    rmSync(directory, { recursive: true });
  });
  return fixture;
}
