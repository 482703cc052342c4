// SPDX-License-Identifier: MIT
import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { connect } from '../../lib/client';
import { closeFd, createSharedMemory } from '../../lib/native';
import { RawClient, dmaMap } from '../server/support';
import { fakeServer } from './fake-server';
import { Scratch, cli, failure, startCli } from './run-cli';

const MIB = 2 ** 20;

let scratch: Scratch;
beforeEach(() => {
  scratch = new Scratch();
});
afterEach(() => {
  scratch.remove();
});

const serveNvme = (...args: string[]): string[] => ['serve', 'nvme', ...args];

test('a directory gets a socket as SPDK wants it; the lines to use it are printed; SIGTERM removes it', async () => {
  const socket = scratch.file('cntrl');
  const running = startCli(
    scratch,
    ...serveNvme(
      '--socket',
      scratch.path,
      '--size',
      '16m',
      '--backend',
      'null',
      '--block-size',
      '4096',
      '--dstrd',
      '2',
      '--queues',
      '3',
    ),
  );
  await running.said('Ctrl-C ends it.');
  const { stdout } = await cli(scratch, 'info', scratch.path, '--json');
  expect(JSON.parse(stdout)).toMatchObject({
    nvme: { version: '1.4', capabilities: { dstrd: 2 }, cc: 0, doorbellsMappable: true },
    pci: {
      header: { classCode: 0x010802 },
      capabilities: { capabilities: [{}, {}, { kind: 'msix', vectors: 4 }] },
    },
  });
  running.kill('SIGTERM');
  const outcome = await running.ended;
  expect(outcome).toMatchObject({ status: 0, signal: null, stderr: '' });
  expect(outcome.stdout.split('\n')).toEqual(
    expect.arrayContaining([
      `Serving an NVMe controller at ${socket}: 16.0MiB, blocks of 4096 bytes, null backend.`,
      `  vfio-user bench ${socket}`,
      `  spdk_nvme_perf -r 'trtype:VFIOUSER traddr:${scratch.path} subnqn:nqn.2019-07.io.spdk:cnode0' -q 32 -o 4096 -w randread -t 3 -g`,
      `    -machine q35,memory-backend=mem -device '{"driver":"vfio-user-pci","socket":{"type":"unix","path":"${socket}"}}'`,
    ]),
  );
  expect(scratch.entries()).toEqual([]);
});

test('a controller that its client has stopped says why', async () => {
  const running = startCli(scratch, ...serveNvme('--socket', scratch.file('nvme.sock'), '--size', '1m'));
  await running.said('Ctrl-C ends it.');
  {
    await using device = await connect(scratch.file('nvme.sock'));
    const bar0 = await device.region('bar0');
    await bar0.write32(0x24, 0x001f_001f);
    await bar0.write32(0x14, 0x0046_0001); // CC.EN, with queues in memory that is not there
    expect(await bar0.read32(0x1c)).toBe(2);
  }
  running.kill('SIGTERM');
  const { stderr } = await running.ended;
  expect(stderr).toMatch(/^vfio-user: The controller stopped .*CSTS\.CFS.*share=on\n$/);
});

test('maps that are refused are told once for each cause, and counted', async () => {
  const socket = scratch.file('nvme.sock');
  const running = startCli(scratch, ...serveNvme('--socket', socket, '--size', '1m'));
  await running.said('Ctrl-C ends it.');
  const raw = await RawClient.connect(socket);
  const fd = createSharedMemory(0x1000);
  // As SPDK's tools do without -g: the range has more bytes than the file.
  for (let i = 0; i < 50; i++) expect(await raw.errnoOf(2, dmaMap(0, 0x2000), [fd])).toBe(6);
  raw.close();
  closeFd(fd);
  running.kill('SIGTERM');
  const { stderr } = await running.ended;
  expect(stderr).toMatch(
    /^vfio-user: a DMA_MAP was refused[^\n]*ENXIO[^\n]*without -g\nvfio-user: 50 DMA_MAPs were refused with ENXIO\n$/,
  );
});

test('a socket of another name is not for SPDK, and that is said', async () => {
  const running = startCli(scratch, ...serveNvme('--socket', scratch.file('nvme.sock'), '--size', '1m'));
  await running.said('Ctrl-C ends it.');
  running.kill('SIGINT');
  const { stdout, ...rest } = await running.ended;
  expect(rest).toEqual({ status: 0, signal: null, stderr: '' });
  expect(stdout).not.toContain('spdk_nvme_perf');
  expect(stdout).toContain(`serve with --socket ${scratch.path}`);
  expect(scratch.entries()).toEqual([]);
});

test('the file backend keeps what was written', async () => {
  const file = scratch.file('disk');
  const socket = scratch.file('socket');
  const first = startCli(
    scratch,
    ...serveNvme('--socket', socket, '--backend', 'file', '--file', file, '--size', '1m'),
  );
  await first.said('Ctrl-C ends it.');
  const write = await cli(scratch, 'bench', socket, '--rw', 'write', '--verify');
  expect(write).toMatchObject({
    status: 0,
    stderr: `vfio-user: --rw write overwrites all of the first namespace of ${socket}\n`,
  });
  first.kill('SIGINT');
  expect(await first.ended).toMatchObject({ status: 0, stderr: '' });
  expect(statSync(file).size).toBe(MIB);
  expect(
    readFileSync(file)
      .subarray(-64)
      .some((byte) => byte !== 0),
  ).toBe(true);

  // The size of a file that exists need not be given.
  const second = startCli(scratch, ...serveNvme('--socket', socket, '--backend', 'file', '--file', file));
  await second.said('1.00MiB, blocks of 512 bytes, file backend');
  second.kill('SIGTERM');
  expect(await second.ended).toMatchObject({ status: 0, stderr: '' });
  expect(scratch.entries()).toEqual(['disk']);
});

test('the socket gets the permissions and the owner that were asked for', async () => {
  const socket = scratch.file('nvme.sock');
  const [uid, gid] = [process.geteuid?.() ?? 0, process.getegid?.() ?? 0];
  const running = startCli(
    scratch,
    ...serveNvme('--socket', socket, '--size', '1m', '--mode', '0620', '--owner', `${uid}:${gid}`),
  );
  await running.said('Ctrl-C ends it.');
  expect(statSync(socket)).toMatchObject({ uid, gid });
  expect(statSync(socket).mode & 0o777).toBe(0o620);
  running.kill('SIGTERM');
  expect(await running.ended).toMatchObject({ status: 0, stderr: '' });
});

test('an abstract socket has no permissions, and that is said', async () => {
  const socket = `@vfio-user-cli-${process.pid}`;
  const running = startCli(scratch, ...serveNvme('--socket', socket, '--size', '1m', '--idle-timeout', '60'));
  await running.said('Ctrl-C ends it.');
  running.kill('SIGTERM');
  const { stdout, ...rest } = await running.ended;
  expect(rest).toEqual({ status: 0, signal: null, stderr: '' });
  expect(stdout).toContain('An abstract socket has no permissions: only processes of');
});

test('a socket file that a crash has left is replaced', async () => {
  const socket = scratch.file('socket');
  const first = startCli(scratch, ...serveNvme('--socket', socket, '--size', '1m'));
  await first.said('Ctrl-C ends it.');
  first.kill('SIGKILL');
  await first.ended;
  expect(scratch.entries()).toEqual(['socket']);
  const second = startCli(scratch, ...serveNvme('--socket', socket, '--size', '1m'));
  await second.said('Ctrl-C ends it.');
  second.kill('SIGTERM');
  expect(await second.ended).toMatchObject({ status: 0, stderr: '' });
});

test('a path where somebody listens', async () => {
  const other = await fakeServer(scratch.file('taken'), () => undefined);
  try {
    const { stderr, ...rest } = await cli(scratch, ...serveNvme('--socket', scratch.file('taken')));
    expect(rest).toEqual({ status: 1, signal: null, stdout: '' });
    expect(stderr).toMatch(/^vfio-user: Listening at [^\n]*EADDRINUSE[^\n]*\n$/);
  } finally {
    await other.close();
  }
});

describe('wrong usage', () => {
  test.each<[string, string[], string]>([
    ['no socket', [], 'Missing --socket: the path to listen at, or a directory for it; or --fd'],
    ['an empty socket', ['--socket', ''], '--socket: The path of a unix socket is empty'],
    [
      'a socket with a long path',
      ['--socket', `/tmp/${'s'.repeat(103)}`],
      `--socket: The path of a unix socket has at most 107 bytes, this has 108: /tmp/${'s'.repeat(103)}. Use a shorter or a relative path.`,
    ],
    [
      'a control socket with a long path',
      ['--socket', 's', '--control', `/tmp/${'c'.repeat(103)}`],
      `--control: The path of a unix socket has at most 107 bytes, this has 108: /tmp/${'c'.repeat(103)}. Use a shorter or a relative path.`,
    ],
    ['empty metrics', ['--socket', 's', '--metrics', ''], '--metrics: The path of a unix socket is empty'],
    [
      'a file without file backend',
      ['--socket', 's', '--file', 'f'],
      '--file goes with --backend file, not with --backend memory',
    ],
    [
      'a file backend without file',
      ['--socket', 's', '--backend', 'file'],
      'The file backend needs a path: file=PATH, or --file PATH',
    ],
    [
      'a missing file without size',
      ['--socket', 's', '--backend', 'file', '--file', '/no/such/file'],
      'There is no file /no/such/file; give its size to create it',
    ],
    [
      'a file below a file',
      ['--socket', 's', '--backend', 'file', '--file', '/etc/passwd/file'],
      'There is no file /etc/passwd/file; give its size to create it',
    ],
    [
      'size 0',
      ['--socket', 's', '--size', '0'],
      "Option --size does not accept '0'; it takes a size such as 512, 4k or 1m, at least 512 bytes",
    ],
    [
      'half a block',
      ['--socket', 's', '--size', '1000'],
      'A --size of 1000 bytes is no multiple of the block size, 512',
    ],
    [
      'half a large block',
      ['--socket', 's', '--size', '512', '--block-size', '4096'],
      'A --size of 512 bytes is no multiple of the block size, 4096',
    ],
    [
      'another block size',
      ['--socket', 's', '--block-size', '1024'],
      "Option --block-size does not accept '1024'; it takes one of 512, 4096",
    ],
    [
      'no queues',
      ['--socket', 's', '--queues', '0'],
      "Option --queues does not accept '0'; it takes a whole number, from 1 to 64",
    ],
    [
      'no octal mode',
      ['--socket', 's', '--mode', '0968'],
      "Option --mode does not accept '0968'; it takes three octal digits, such as 0660",
    ],
    [
      'half an owner',
      ['--socket', 's', '--owner', 'root:'],
      "Option --owner does not accept 'root:'; it takes a user, or USER:GROUP",
    ],
    [
      'an unknown user',
      ['--socket', 's', '--owner', 'no-such-user'],
      "Option --owner: there is no user 'no-such-user'",
    ],
    [
      'an unknown group',
      ['--socket', 's', '--owner', 'root:no-such-group'],
      "Option --owner: there is no group 'no-such-group'",
    ],
    [
      'permissions of an abstract socket',
      ['--socket', '@s', '--mode', '0600'],
      '--mode and --owner are for socket files; the abstract socket @s has no permissions',
    ],
    [
      'a namespace beside a backend',
      ['--socket', 's', '--namespace', 'memory', '--size', '1m'],
      '--size is for a single namespace; with --namespace it is part of that',
    ],
    [
      'a namespace of nothing that is known',
      ['--socket', 's', '--namespace', 'disk.img'],
      'A backend is null, memory, file=PATH, a URI of NBD (nbd://, nbds://, nbd+unix://), or the path of a module (.mjs, .js), with ,KEY=VALUE behind; got disk.img',
    ],
    [
      'a namespace with half a block',
      ['--socket', 's', '--namespace', 'memory,size=1000'],
      'A size of 1000 bytes is no multiple of the block size, 512',
    ],
    [
      'a namespace with a key that is not known',
      ['--socket', 's', '--namespace', 'memory,sise=1m'],
      'sise is no key of a memory backend: memory,sise=1m',
    ],
    [
      'a key twice',
      ['--socket', 's', '--namespace', 'memory,bs=512,bs=4096'],
      'bs comes twice in memory,bs=512,bs=4096',
    ],
    [
      'a block size of a namespace that is not known',
      ['--socket', 's', '--namespace', 'memory,bs=520'],
      "bs of memory,bs=520 does not accept '520'; it takes one of 512, 4096",
    ],
    [
      'half a UUID',
      ['--socket', 's', '--namespace', 'memory,uuid=0123'],
      "uuid of memory,uuid=0123 does not accept '0123'; it takes a UUID, 32 hexadecimal digits, with or without dashes",
    ],
    [
      'a namespace id twice',
      ['--socket', 's', '--namespace', 'memory,size=1m,nsid=2', '--namespace', 'memory,size=1m,nsid=2'],
      'There is a namespace 2 already',
    ],
    [
      'a namespace id above the limit',
      ['--socket', 's', '--namespace', 'memory,size=1m,nsid=9', '--max-namespaces', '8'],
      'nsid is an integer from 1 to 8 (maxNamespaces), got 9',
    ],
    [
      'a serial number that is too long',
      ['--socket', 's', '--serial', 'x'.repeat(21)],
      `serial is 1 to 20 printable ASCII characters, got "${'x'.repeat(21)}"`,
    ],
    [
      'no NQN',
      ['--socket', 's', '--nqn', 'disk'],
      'nqn is at most 223 bytes such as nqn.2026-01.org.example:disk1, got "disk"',
    ],
    [
      'an MDTS that is no power of two',
      ['--socket', 's', '--mdts', '12k'],
      'An --mdts of 12288 bytes is no power of two',
    ],
    [
      'an MDTS of too much',
      ['--socket', 's', '--mdts', '2m'],
      "Option --mdts does not accept '2m'; it takes a size such as 512, 4k or 1m, from 4096 to 1048576 bytes",
    ],
    ['one socket for two controllers', ['--socket', '@s', '--socket', '@s'], 'Two sockets cannot be at @s'],
    [
      'metrics at two places',
      ['--socket', '@s', '--metrics', '1', '--socket', '@t', '--metrics', '2'],
      'Give --metrics once: it is for all controllers',
    ],
    [
      'a port that there is not',
      ['--socket', '@s', '--metrics', '70000'],
      "Option --metrics does not accept '70000'; it takes a port from 1 to 65535, or a path",
    ],
    [
      'an option twice for one controller',
      ['--size', '1m', '--socket', '@s', '--socket', '@t', '--size', '2m'],
      "Option --size is given twice, as '1m' and as '2m'; give it once",
    ],
    [
      'an argument',
      ['--socket', 's', 'more'],
      "Unexpected argument 'more'. Usage: vfio-user serve nvme [options]",
    ],
  ])('%s', async (_, args, line) => {
    expect(await cli(scratch, ...serveNvme(...args))).toEqual(failure(2, line));
  });
});

test('a directory as file', async () => {
  mkdirSync(scratch.file('directory'));
  const { stderr, ...rest } = await cli(
    scratch,
    ...serveNvme(
      '--socket',
      scratch.file('s'),
      '--backend',
      'file',
      '--file',
      scratch.file('directory'),
      '--size',
      '1m',
    ),
  );
  expect(rest).toEqual({ status: 1, signal: null, stdout: '' });
  expect(stderr).toMatch(/^vfio-user: [^\n]*EISDIR[^\n]*\n$/);
});

test('a file that is empty', async () => {
  writeFileSync(scratch.file('empty'), '');
  const { stderr, status } = await cli(
    scratch,
    ...serveNvme('--socket', scratch.file('s'), '--backend', 'file', '--file', scratch.file('empty')),
  );
  expect(status).toBe(2);
  expect(stderr).toMatch(/^vfio-user: [^\n]+\n$/);
});
