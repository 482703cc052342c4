// SPDX-License-Identifier: MIT
import { execFileSync } from 'node:child_process';
import { fstatSync, ftruncateSync } from 'node:fs';
import { connect } from '../../../lib/client';
import { Mapping, closeFd } from '../../../lib/native';
import { createBackend } from '../../../lib/nvme/backends';
import { NvmeControllerModel } from '../../../lib/nvme/controller';
import { NvmeController } from '../../../lib/nvme/host';
import { serve, type Server } from '../../../lib/server';
import { RawClient, join, message, openFds, u32, u64, warmUp } from '../../server/support';
import { turns } from '../../support/wait';

const DOORBELLS = 0x1000;
const BAR_BYTES = 0x4000;

let model: NvmeControllerModel;
let server: Server;
let errors: unknown[];
beforeAll(warmUp);
beforeEach(async () => {
  errors = [];
  model = new NvmeControllerModel({ backend: createBackend({ kind: 'memory', size: 1 << 20 }) });
  const onError = (error: unknown): void => void errors.push(error);
  server = await serve(`@vfio-user-doorbell-file-${process.pid}`, model, { onError });
});
afterEach(async () => {
  await server.close();
  model.close();
  expect(errors).toEqual([]);
});

/** The file of the doorbells, as a client gets it; the caller's to close. */
async function doorbellFile(client: RawClient): Promise<number> {
  // struct vfio_region_info: u32 argsz, flags, index, cap_offset, u64 size, offset.
  const { errno, fds } = await client.ask(message(5, join(u32(256, 0, 0, 0), u64(0, 0))));
  expect([errno, fds.length]).toEqual([0, 1]);
  return fds[0] as number;
}

test('a client that has gone does not reach the doorbells of the next with the file that it kept', async () => {
  const former = await RawClient.connect(server.path);
  const fd = await doorbellFile(former);
  using kept = Mapping.map(fd, 0, BAR_BYTES);
  former.close();
  {
    await using device = await connect(server.path);
    const nvme = await NvmeController.attach(device);
    const [namespace] = nvme.namespaces;
    const memory = await device.dma.allocate(4096);
    new Uint8Array(memory.buffer).fill(0x5a);
    await namespace?.write(memory, { lba: 0, blocks: 8 });
    const before = model.statistics;
    // Each submission queue would have two more commands: what its memory holds, never submitted.
    const words = new Uint32Array(kept.buffer);
    for (let at = DOORBELLS; at < BAR_BYTES; at += 8) words[at / 4] = 6;
    await turns();
    // The controller looks at all queues before it completes the read.
    await namespace?.read(memory, { lba: 0, blocks: 8 });
    expect(model.statistics).toEqual({
      ...before,
      readCommands: before.readCommands + 1,
      bytesRead: before.bytesRead + 4096,
      interrupts: model.statistics.interrupts,
    });
    await nvme.close();
  }
  closeFd(fd);
});

test('a client can neither seal nor resize the file of the doorbells, and the next one has another', async () => {
  const former = await RawClient.connect(server.path);
  const fd = await doorbellFile(former);
  for (const size of [0, 4096, 1 << 20]) {
    expect(() => {
      ftruncateSync(fd, size);
    }).toThrow(/EPERM/);
  }
  // F_ADD_SEALS with F_SEAL_FUTURE_WRITE, which would let nobody map the file for writing any more.
  const seal = 'import fcntl; fcntl.fcntl(3, 1033, 0x10)';
  expect(() => execFileSync('python3', ['-c', seal], { stdio: ['ignore', 'ignore', 'pipe', fd] })).toThrow(
    /PermissionError/,
  );
  const again = await doorbellFile(former);
  expect(fstatSync(again).ino).toBe(fstatSync(fd).ino);
  former.close();
  const next = await RawClient.connect(server.path);
  const own = await doorbellFile(next);
  expect(fstatSync(own).ino).not.toBe(fstatSync(fd).ino);
  Mapping.map(own, 0, BAR_BYTES).close();
  next.close();
  for (const each of [fd, again, own]) closeFd(each);
});

test('files of doorbells do not add up over 200 clients', async () => {
  const visit = async (): Promise<void> => {
    const client = await RawClient.connect(server.path);
    closeFd(await doorbellFile(client));
    client.close();
  };
  await visit();
  const connected = await RawClient.connect(server.path);
  const before = [openFds(), Mapping.count];
  connected.close();
  for (let i = 0; i < 200; i++) await visit();
  const last = await RawClient.connect(server.path);
  expect([openFds(), Mapping.count]).toEqual(before);
  last.close();
});
