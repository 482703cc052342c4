// SPDX-License-Identifier: MIT
import { execFileSync } from 'node:child_process';
import { statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { BackendResult, NbdBackend } from '../../../../lib/nvme/backends';
import { failure } from '../../../support/errors';
import { until } from '../../../support/wait';
import { Address, Host } from '../../controller/support';
import { NBDKIT, NbdPeer, QEMU_NBD, program, testWithNbdkit } from './nbd-peer';

const { success, mediumError, unavailable } = BackendResult;
const MIB = 1 << 20;

const OPENSSL = program('OPENSSL', 'openssl');

const withQemu = QEMU_NBD === null ? test.skip : test;
const withTls = NBDKIT === null || OPENSSL === null ? test.skip : test;

let peer: NbdPeer;
let folder: string;
let socket: string;
let backend: NbdBackend | undefined;
let lines: string[];
beforeEach(() => {
  peer = new NbdPeer();
  ({ folder, socket } = peer);
  lines = [];
});
afterEach(async () => {
  backend?.close();
  backend = undefined;
  await peer.remove();
});

const nbdkit = (...args: string[]): Promise<void> => peer.nbdkit(...args);

async function open(uri = peer.uri, timeout = 5000): Promise<NbdBackend> {
  backend = await NbdBackend.connect(uri, { timeout, onState: (line) => lines.push(line) });
  return backend;
}

/** Writes, reads, zeroes and trims at places where requests are split. */
async function exercise(nbd: NbdBackend): Promise<void> {
  const data = Uint8Array.from({ length: 3 * MIB }, (_, i) => (i * 31 + (i >> 9)) & 0xff);
  expect(await nbd.write(MIB - 512, data, 0, data.length)).toBe(success);
  const back = new Uint8Array(data.length);
  expect(await nbd.read(MIB - 512, back, 0, back.length)).toBe(success);
  expect(Buffer.compare(back, data)).toBe(0);
  expect(await nbd.zero(2 * MIB, 4096, false)).toBe(success);
  expect(await nbd.zero(2 * MIB + 8192, 65_536, true)).toBe(success);
  expect(await nbd.deallocate(3 * MIB, 65_536)).toBe(success);
  const block = new Uint8Array(512);
  for (const offset of [2 * MIB, 2 * MIB + 8192 + 65_024, 8 * MIB]) {
    block.fill(1);
    expect(await nbd.read(offset, block, 0, 512)).toBe(success);
    expect(block.every((byte) => byte === 0)).toBe(true);
  }
  expect(await nbd.read(2 * MIB + 4096, block, 0, 512)).toBe(success);
  expect(block).toEqual(data.slice(MIB + 512 + 4096, MIB + 512 + 4096 + 512));
  await nbd.flush();
}

testWithNbdkit.each([[[]], [['--no-sr']]])('nbdkit, memory %p', async (options) => {
  await nbdkit(...options, 'memory', '16M');
  const nbd = await open();
  expect(nbd.size).toBe(16 * MIB);
  await exercise(nbd);
  expect(lines).toEqual([]);
});

testWithNbdkit('nbdkit, a file: storage is given back', async () => {
  const disk = join(folder, 'disk');
  writeFileSync(disk, new Uint8Array(16 * MIB).fill(7));
  await nbdkit('file', disk);
  const nbd = await open();
  const before = statSync(disk).blocks;
  expect(await nbd.deallocate(4 * MIB, 8 * MIB)).toBe(success);
  await nbd.flush();
  expect(statSync(disk).blocks).toBe(before - (8 * MIB) / 512);
});

testWithNbdkit('nbdkit, errors and delays that it makes', async () => {
  await nbdkit(
    '--filter=error',
    'memory',
    '16M',
    'error-rate=100%',
    'error-pread=EIO',
    'error-pwrite=ENOSPC',
  );
  const nbd = await open();
  const block = new Uint8Array(512);
  expect(await nbd.read(0, block, 0, 512)).toBe(mediumError);
  expect(await nbd.write(0, block, 0, 512)).toBe(BackendResult.outOfSpace);
  nbd.close();
  await peer.stop();
  await nbdkit('--threads=64', '--filter=delay', 'memory', '16M', 'rdelay=60', 'wdelay=300ms');
  const slow = await open(undefined, 1000);
  // Side by side, or it would take longer than the test.
  const writes = Array.from({ length: 64 }, (_, i) => slow.write(i * 512, block, 0, 512));
  expect(new Set(await Promise.all(writes))).toEqual(new Set([success]));
  expect(await slow.read(0, block, 0, 512)).toBe(unavailable);
  expect(lines[0]).toMatch(/has not answered a request within 1000 ms/);
});

testWithNbdkit('nbdkit, blocks of 4096 bytes, and an export that is read-only', async () => {
  await nbdkit(
    '--filter=blocksize-policy',
    'memory',
    '16M',
    'blocksize-minimum=4096',
    'blocksize-error-policy=error',
  );
  expect((await open()).blockSize).toBe(4096);
  backend?.close();
  await peer.stop();
  await nbdkit('-r', 'memory', '16M');
  await expect(open()).rejects.toMatchObject(failure('ERR_VFIO_USER_UNSUPPORTED', 'the export is read-only'));
});

withQemu('qemu-nbd, an export with a name', async () => {
  const disk = join(folder, 'disk');
  writeFileSync(disk, '');
  truncateSync(disk, 16 * MIB);
  await peer.start(QEMU_NBD, ['-k', socket, '-f', 'raw', '-t', '-x', 'a disk', '--discard=unmap', disk]);
  const uri = `nbd+unix:///a%20disk?socket=${socket}`;
  await exercise(await open(uri));
  backend?.close(); // It serves one at a time.
  await expect(NbdBackend.connect(`nbd+unix:///other?socket=${socket}`)).rejects.toMatchObject(
    failure('ERR_VFIO_USER_CONNECT', /no such export/),
  );
});

testWithNbdkit('a controller goes on when nbdkit was killed and is there again', async () => {
  const disk = join(folder, 'disk');
  writeFileSync(disk, new Uint8Array(16 * MIB));
  await nbdkit('file', disk);
  const host = new Host({ backend: await open() });
  host.enable();
  const queue = await host.createQueues();
  const run = async (opcode: number, lba = 0): Promise<string> =>
    (await host.run(queue, { opcode, nsid: 1, prp1: Address.data, cdw10: lba })).status;
  host.memory.bytes(Address.data, 512).fill(3);
  expect(await run(1, 7)).toBe('00/00');
  expect(await run(0)).toBe('00/00');
  expect(await run(1, 8)).toBe('00/00');
  await peer.stop();
  await until(() => lines.length > 0);
  const waiting = run(2, 7);
  await nbdkit('file', disk);
  expect(await waiting).toBe('00/00');
  expect(host.memory.bytes(Address.data, 512).every((byte) => byte === 3)).toBe(true);
  // Block 8 was acknowledged and not flushed: it may be lost until it is written again.
  expect(await run(0)).toBe('02/80');
  expect(await run(1, 8)).toBe('00/00');
  expect(await run(0)).toBe('00/00');
  host.close();
});

describe('TLS', () => {
  function openssl(...args: string[]): void {
    execFileSync(OPENSSL!, args, { cwd: folder, stdio: 'pipe' });
  }

  /** An authority, and a certificate for localhost. */
  function certificates(): void {
    const key = ['-newkey', 'rsa:2048', '-nodes'];
    openssl(
      'req',
      '-x509',
      ...key,
      '-keyout',
      'ca-key.pem',
      '-out',
      'ca-cert.pem',
      '-subj',
      '/CN=test',
      '-days',
      '2',
    );
    openssl('req', ...key, '-keyout', 'server-key.pem', '-out', 'server.csr', '-subj', '/CN=localhost');
    writeFileSync(join(folder, 'ext'), 'subjectAltName=DNS:localhost');
    const by = [
      '-CA',
      'ca-cert.pem',
      '-CAkey',
      'ca-key.pem',
      '-CAcreateserial',
      '-days',
      '2',
      '-extfile',
      'ext',
    ];
    openssl('x509', '-req', '-in', 'server.csr', ...by, '-out', 'server-cert.pem');
  }

  withTls('nbdkit, with a certificate that is checked', async () => {
    certificates();
    await nbdkit('--tls=require', `--tls-certificates=${folder}`, 'memory', '16M');
    const uri = (more: string): string => `nbds+unix:///?socket=${socket}${more}`;
    await exercise(await open(uri(`&tls-hostname=localhost&tls-certificates=${folder}`)));
    backend?.close();
    await exercise(await open(uri('&tls-verify-peer=0')));
    backend?.close();
    await expect(open()).rejects.toThrow(/it wants TLS: begin the URI with nbds/);
    await expect(open(uri('&tls-hostname=localhost'))).rejects.toMatchObject(
      failure('ERR_VFIO_USER_CONNECT', /certificate/),
    );
    await expect(open(uri(`&tls-hostname=elsewhere&tls-certificates=${folder}`))).rejects.toThrow(
      /elsewhere/,
    );
    await expect(open(uri('&tls-hostname=localhost&tls-certificates=/no/such'))).rejects.toThrow(/ENOENT/);
  });

  testWithNbdkit('nbdkit without TLS', async () => {
    await nbdkit('--tls=off', 'memory', '16M');
    await expect(open(`nbds+unix:///?socket=${socket}&tls-verify-peer=0`)).rejects.toThrow(
      /does not allow TLS/,
    );
  });
});
