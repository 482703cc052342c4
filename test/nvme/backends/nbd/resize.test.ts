// SPDX-License-Identifier: MIT
/** Exports of nbdkit whose size changes, while a controller serves them and while the connection is lost. */
import { statSync, truncateSync, writeFileSync } from 'node:fs';
import { NbdBackend } from '../../../../lib/nvme/backends';
import { until } from '../../../support/wait';
import { Address, Host, type HostQueue } from '../../controller/support';
import { NbdPeer, testWithNbdkit } from './nbd-peer';

const MIB = 1 << 20;
const BLOCK = 512;
const [FLUSH, WRITE, READ] = [0, 1, 2];
const OK = '00/00';

let peer: NbdPeer;
let disk: string;
let host: Host;
let queue: HostQueue;
let lines: string[];

beforeEach(() => {
  peer = new NbdPeer();
  disk = peer.file('disk');
  lines = [];
});
afterEach(async () => {
  // A test that was skipped has none.
  (host as Host | undefined)?.close();
  await peer.remove();
});

/** Serves the file, and a controller of the export. */
async function begin(): Promise<void> {
  writeFileSync(disk, '');
  truncateSync(disk, 16 * MIB);
  await peer.nbdkit('file', disk);
  host = new Host({
    backend: await NbdBackend.connect(peer.uri, { timeout: 5000, onState: (line) => lines.push(line) }),
  });
  host.enable();
  queue = await host.createQueues();
}

async function run(opcode: number, offset = 0): Promise<string> {
  const command = { opcode, nsid: 1, prp1: Address.data, cdw10: offset / BLOCK };
  return (await host.run(queue, command)).status;
}

async function write(offset: number, byte: number): Promise<string> {
  host.memory.bytes(Address.data, BLOCK).fill(byte);
  return run(WRITE, offset);
}

/** The byte that a block is full of. */
async function read(offset: number): Promise<number | undefined> {
  const bytes = host.memory.bytes(Address.data, BLOCK).fill(0xee);
  expect(await run(READ, offset)).toBe(OK);
  expect(new Set(bytes).size).toBe(1);
  return bytes[0];
}

function size(): number | undefined {
  return host.controller.namespaces[0]?.size;
}

testWithNbdkit('a file that has grown, and then shrunk, is taken over when that is asked for', async () => {
  await begin();
  expect(await write(0, 3)).toBe(OK);
  truncateSync(disk, 32 * MIB);
  expect(await run(READ, 32 * MIB - BLOCK)).toBe('00/80 DNR');
  await host.controller.resizeNamespace(1);
  expect(size()).toBe(32 * MIB);
  expect(await read(32 * MIB - BLOCK)).toBe(0);
  expect(await write(32 * MIB - BLOCK, 4)).toBe(OK);
  expect(await run(FLUSH)).toBe(OK);
  expect([await read(0), await read(32 * MIB - BLOCK)]).toEqual([3, 4]);
  await expect(host.controller.resizeNamespace(1, 64 * MIB)).rejects.toThrow(
    /has 33554432 bytes, fewer than/,
  );
  truncateSync(disk, 8 * MIB);
  await host.controller.resizeNamespace(1);
  expect(size()).toBe(8 * MIB);
  expect(await run(READ, 8 * MIB)).toBe('00/80 DNR');
  expect(await read(0)).toBe(3);
  expect(await run(FLUSH)).toBe(OK);
  expect(statSync(disk).size).toBe(8 * MIB);
  expect(lines).toEqual([]);
});

testWithNbdkit(
  'a server that is there again with another size is used on, and the host is told',
  async () => {
    await begin();
    expect((await host.adminCommand({ opcode: 9, cdw10: 0x0b, cdw11: 0x100 })).status).toBe(OK);
    for (const mebibytes of [32, 24]) {
      const event = host.push(host.admin, { opcode: 0x0c });
      host.ring(host.admin);
      expect(await write(0, mebibytes)).toBe(OK);
      expect(await run(FLUSH)).toBe(OK);
      await peer.stop();
      await until(() => lines.at(-1)?.includes('is lost') === true, 'the loss is noticed');
      truncateSync(disk, mebibytes * MIB);
      const waiting = read(0);
      await peer.nbdkit('file', disk);
      // Which of the two comes first does not matter.
      const told = await host.completion(host.admin);
      expect(told).toMatchObject({ cid: event, status: OK, dw0: 0x0004_0002 });
      expect(await waiting).toBe(mebibytes);
      expect((await host.adminCommand({ opcode: 2, cdw10: 0x03ff_0004 })).status).toBe(OK);
      expect(size()).toBe(mebibytes * MIB);
      expect(await write(mebibytes * MIB - BLOCK, 5)).toBe(OK);
      expect(await run(READ, mebibytes * MIB)).toBe('00/80 DNR');
      expect(lines.at(-1)).toBe(`Connected to ${peer.uri} again`);
    }
  },
);

testWithNbdkit(
  'a server whose export cannot be a namespace any more is not used, until it can be',
  async () => {
    await begin();
    expect(await write(0, 3)).toBe(OK);
    expect(await run(FLUSH)).toBe(OK);
    await peer.stop();
    await peer.nbdkit('null', '511');
    await until(() => lines.length === 2, 'the other export is noticed');
    expect(lines[1]).toMatch(
      /again: it is not the export that it was: its (size was 16777216 bytes and is 511|flags)/,
    );
    const waiting = read(0);
    await peer.stop();
    await peer.nbdkit('file', disk);
    expect(await waiting).toBe(3);
    expect(size()).toBe(16 * MIB);
  },
);
