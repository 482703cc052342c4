// SPDX-License-Identifier: MIT
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { connect } from '../../lib/client';
import { NvmeController } from '../../lib/nvme/host';
import { FakeServer, simple } from '../nvme/backends/nbd/fake-server';
import { Scratch, cli, startCli } from './run-cli';

const EXAMPLE = join(__dirname, '..', '..', 'examples', 'encrypted-backend.mjs');

let scratch: Scratch;
beforeEach(() => {
  scratch = new Scratch();
});
afterEach(() => {
  scratch.remove();
});

function serveNvme(backend: string, ...args: string[]): string[] {
  return ['serve', 'nvme', '--socket', scratch.file('s'), '--backend', backend, ...args];
}

function moduleOf(text: string): string {
  const path = scratch.file('own.mjs');
  writeFileSync(path, text);
  return path;
}

/** Writes a block by a client, and reads it back. Returns the status of a failure. */
async function writeAndRead(value: number): Promise<void> {
  await using device = await connect(scratch.file('s'));
  await using nvme = await NvmeController.attach(device);
  const namespace = nvme.namespace(1);
  const memory = await device.dma.allocate(8192);
  const bytes = new Uint8Array(memory.buffer);
  bytes.fill(value, 0, 4096);
  await namespace.write(memory, { lba: 8, blocks: 8 });
  await namespace.flush();
  await namespace.read(memory, { lba: 8, blocks: 8, offset: 4096 });
  expect(bytes.subarray(4096).every((byte) => byte === value)).toBe(true);
}

test('the example keeps its data encrypted', async () => {
  const [disk, key] = [scratch.file('disk.img'), scratch.file('disk.key')];
  writeFileSync(disk, new Uint8Array(1 << 20));
  writeFileSync(key, randomBytes(64));
  const running = startCli(scratch, ...serveNvme(`${EXAMPLE},file=${disk},key=${key}`));
  await running.said('1.00MiB, blocks of 512 bytes, encrypted backend');
  await running.said('Ctrl-C ends it.');
  await writeAndRead(0x5a);
  running.kill('SIGINT');
  expect(await running.ended).toMatchObject({ status: 0, stderr: '' });
  const stored = readFileSync(disk).subarray(4096, 8192);
  expect(stored.filter((byte) => byte === 0x5a).length).toBeLessThan(100);
  // Sectors with the same data differ.
  expect(stored.subarray(0, 512)).not.toEqual(stored.subarray(512, 1024));
});

test('what a backend throws ends the command, is told once, and the server goes on', async () => {
  const path = moduleOf(`export default ({ size }) => ({
    size: Number(size),
    read() { throw new Error('a defect'); },
    async write() { await null; throw Object.assign(new Error('no room'), { errno: -28 }); },
  });`);
  const running = startCli(scratch, ...serveNvme(`${path},size=65536`));
  await running.said('Ctrl-C ends it.');
  for (let i = 0; i < 2; i++) await expect(writeAndRead(1)).rejects.toThrow(/00\/81/);
  running.kill('SIGINT');
  expect(await running.ended).toMatchObject({
    status: 0,
    stderr:
      `vfio-user: The backend ${path} failed: Error: no room\n` +
      `vfio-user: The backend ${path} failed: Error: no room (1 more such reports since the last one)\n`,
  });
});

test.each<[string, string, string]>([
  ['no default export', 'export const a = 1;', 'it has no default export'],
  ['a syntax error', 'export default {', 'Unexpected end of input'],
  ['no write', 'export default { size: 512, read() {} };', 'A backend has no write()'],
  [
    'a size in text',
    'export default () => ({ size: "1g" });',
    'size of a backend is a number of bytes, got string',
  ],
  ['an error while it is made', 'export default async () => { throw new Error("no key"); };', 'no key'],
  ['nothing', 'export default () => null;', 'A backend is an object with size, read and write, got null'],
  ['a promise for ever', 'export default () => new Promise(() => {});', 'it is not ready within 10 s'],
])('a module with %s is refused before anything is served', async (_, text, problem) => {
  const path = moduleOf(text);
  const { status, stdout, stderr } = await cli(scratch, ...serveNvme(path));
  expect({ status, stdout, stderr }).toEqual({
    status: 2,
    stdout: '',
    stderr: `vfio-user: The backend ${path} cannot be used: ${problem}\n`,
  });
});

test('a module that is not there', async () => {
  const { status, stderr } = await cli(scratch, ...serveNvme('/no/such/backend.mjs'));
  expect(status).toBe(2);
  expect(stderr).toMatch(
    /^vfio-user: The backend \/no\/such\/backend\.mjs cannot be used: Cannot find module[^\n]*\n$/,
  );
});

test('an NBD server, which dies and comes back', async () => {
  using server = new FakeServer();
  const disk = Buffer.alloc(1 << 20);
  await server.listen(async (peer, index) => {
    await peer.handshake();
    for (;;) {
      const request = await peer.request();
      if (index === 0 && request.type === 3) {
        peer.socket.destroy();
        return;
      }
      request.data.copy(disk, request.offset);
      const { offset, length } = request;
      peer.send(simple(request, 0, request.type === 0 ? disk.subarray(offset, offset + length) : undefined));
    }
  });
  const running = startCli(scratch, ...serveNvme(server.uri));
  await running.said('1.00MiB, blocks of 512 bytes, nbd backend');
  await running.said('Ctrl-C ends it.');
  await expect(writeAndRead(7)).rejects.toThrow(/02\/80/);
  await writeAndRead(8);
  running.kill('SIGINT');
  const { status, stderr } = await running.ended;
  expect(status).toBe(0);
  expect(stderr).toBe(
    `vfio-user: The connection to ${server.uri} is lost: the server closed the connection; connecting again\n` +
      `vfio-user: Namespace 1 was not made durable: Flushing ${server.uri}: the connection to the server is lost\n` +
      `vfio-user: Connected to ${server.uri} again\n` +
      `vfio-user: What was written is not durable at shutdown: Flushing ${server.uri}, of which 8 blocks of 512 bytes that an earlier flush may have lost were not written again\n`,
  );
});

test('an NBD server that is not there, and a URI that makes no sense, are one line', async () => {
  const uri = `nbd+unix:///?socket=${scratch.file('nothing')}`;
  const missing = await cli(scratch, ...serveNvme(uri));
  expect(missing).toMatchObject({
    stdout: '',
    stderr: expect.stringMatching(/^vfio-user: Connecting to [^\n]*ENOENT[^\n]*\n$/),
  });
  expect(missing.status).not.toBe(0);
  expect(await cli(scratch, ...serveNvme('nbd://host/?a=b'))).toMatchObject({
    status: 2,
    stdout: '',
    stderr: 'vfio-user: The NBD URI nbd://host/?a=b makes no sense: the parameter a is not known\n',
  });
});
