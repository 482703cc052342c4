// SPDX-License-Identifier: MIT
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, type ConnectOptions, type VfioUserDevice } from '../../lib/client';
import { ProxyModel } from '../../lib/proxy';
import type { ProxyOptions } from '../../lib/proxy/model';
import { serve, type PciDeviceModel, type ServeOptions, type Server } from '../../lib/server';
import { openFds, warmUp } from '../support/resources';

/** A device, a proxy of it, and what they were told; all in this process. */
export interface Chain {
  /** Where the proxy listens. */
  readonly socket: string;
  /** Serves the device itself. */
  readonly upstream: Server;
  /** The proxy's way to the device. */
  readonly device: VfioUserDevice;
  readonly proxy: ProxyModel;
  readonly server: Server;
  /** Messages of errors that the proxy's server told. */
  readonly errors: string[];
}

/** How a {@link Chain} is made. */
export interface ChainOptions {
  readonly proxy?: ProxyOptions;
  /** Of the device's own server. */
  readonly serve?: ServeOptions;
  /** Of the proxy's connection to it. */
  readonly connect?: ConnectOptions;
}

/** Makes chains in tests of the file, ends them and closes their models, and asserts that no descriptor is leaked. */
export function useChains(): (
  model: PciDeviceModel & { close?(): void },
  options?: ChainOptions,
) => Promise<Chain> {
  const directory = mkdtempSync(join(tmpdir(), 'vfio-user-proxy-'));
  const ends: (() => Promise<void>)[] = [];
  let before = 0;
  let count = 0;
  beforeAll(warmUp);
  beforeEach(() => {
    before = openFds();
  });
  afterEach(async () => {
    for (const end of ends.splice(0).reverse()) await end();
    // Fewer, when files of the modules were still open before the first test.
    expect(openFds()).toBeLessThanOrEqual(before);
  });
  afterAll(() => {
    rmSync(directory, { recursive: true });
  });
  return async (model, options = {}) => {
    const name = join(directory, `${++count}`);
    const errors: string[] = [];
    ends.push(() => Promise.resolve(model.close?.()));
    const upstream = await serve(`${name}.device`, model, options.serve);
    ends.push(() => upstream.close());
    const device = await connect(`${name}.device`, options.connect);
    ends.push(() => device.close());
    const proxy = await ProxyModel.of(device, options.proxy);
    const socket = `${name}.proxy`;
    const server = await serve(socket, proxy, {
      capabilities: proxy.capabilities,
      onError: (error) => void errors.push((error as Error).message),
    });
    ends.push(() => server.close());
    return { socket, upstream, device, proxy, server, errors };
  };
}
