// SPDX-License-Identifier: MIT
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect } from '../../../lib/client';
import { createBackend } from '../../../lib/nvme/backends';
import { NvmeControllerModel, type NvmeControllerOptions } from '../../../lib/nvme/controller';
import { NvmeController } from '../../../lib/nvme/host';
import { serve } from '../../../lib/server';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'nvme-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true });
});

test.each<[string, Partial<NvmeControllerOptions>]>([
  ['doorbells that are mapped', {}],
  ['doorbells 64 bytes apart', { dstrd: 4 }],
  ['a file, and blocks of 4096 bytes', { blockSize: 4096 }],
])('the driver of this package drives it over a socket: %s', async (what, options) => {
  const path = join(folder, 'socket');
  const size = 8 << 20;
  const backend = what.startsWith('a file')
    ? createBackend({ kind: 'file', path: join(folder, 'disk'), size })
    : createBackend({ kind: 'memory', size });
  const errors: unknown[] = [];
  using model = new NvmeControllerModel({ backend, serial: 'SERVED', ...options });
  await using server = await serve(path, model, { onError: (error) => errors.push(error) });
  expect(server.path).toBe(path);
  for (let round = 0; round < 2; round++) {
    await using device = await connect(path);
    const nvme = await NvmeController.attach(device);
    const [namespace] = nvme.namespaces;
    const memory = await device.dma.allocate(131072);
    const bytes = new Uint8Array(memory.buffer);
    bytes.forEach((_, i) => (bytes[i] = (i * 13 + (i >> 9) + round) & 0xff));
    const expected = bytes.slice();
    const blocks = 131072 / (options.blockSize ?? 512);
    await namespace?.write(memory, { lba: 4, blocks });
    bytes.fill(0);
    await namespace?.read(memory, { lba: 4, blocks });
    expect(Buffer.compare(bytes, expected)).toBe(0);
    await namespace?.flush();
    await nvme.close();
  }
  expect(errors).toEqual([]);
  expect(model.statistics).toMatchObject({ readCommands: 2, writeCommands: 2, errors: 0 });
});
