// SPDX-License-Identifier: MIT
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { fakeServer, versionReply, type FakeServer } from './fake-server';
import { Scratch, cli, failure, startCli } from './run-cli';

const scratch = new Scratch();
let server: FakeServer | undefined;
afterEach(async () => {
  await server?.close();
  server = undefined;
});
afterAll(() => {
  scratch.remove();
});

const missing = scratch.file('missing');
const plainFile = scratch.file('plain');
const emptyDirectory = scratch.file('empty');
const socket = scratch.file('socket');

describe.each(['info', 'bench'])('%s', (command) => {
  test('no such path', async () => {
    const line = `no such path: ${missing}. Is the server running, and is this the address that it listens on?`;
    expect(await cli(scratch, command, missing)).toEqual(failure(3, line));
  });

  test('not a socket', async () => {
    writeFileSync(plainFile, '');
    const line = `${plainFile} is not a socket; name the socket that the device's server listens on`;
    // To bench a regular file is a job file.
    const wanted =
      command === 'bench'
        ? failure(
            2,
            `${plainFile} is neither a socket nor a job file with a job, which is a section, such as [reads]`,
          )
        : failure(3, line);
    expect(await cli(scratch, command, plainFile)).toEqual(wanted);
  });

  test('a directory without socket', async () => {
    mkdirSync(emptyDirectory, { recursive: true });
    const { stderr, ...rest } = await cli(scratch, command, emptyDirectory);
    expect(rest).toEqual({ status: 3, signal: null, stdout: '' });
    expect(stderr).toMatch(/^vfio-user: .* is a directory without a socket "cntrl" in it; SPDK [^\n]*\n$/);
  });

  test('an endpoint that accepts and stays silent is busy', async () => {
    server = await fakeServer(socket, () => undefined);
    const option = command === 'info' ? '--timeout' : '--connect-timeout';
    const { stderr, ...rest } = await cli(scratch, command, socket, option, '300ms');
    expect(rest).toEqual({ status: 3, signal: null, stdout: '' });
    expect(stderr).toMatch(
      /^vfio-user: \S+ accepts connections but does not answer: an endpoint serves one client at a time[^\n]*\n$/,
    );
  });

  test('another major version', async () => {
    server = await fakeServer(socket, (client) => {
      client.once('data', (request: Buffer) =>
        client.write(versionReply(request.readUInt16LE(0), 7, 1, '{"capabilities":{}}')),
      );
    });
    const line = `${socket} speaks vfio-user 7.1; this client speaks 0.1 and older minor versions of 0`;
    expect(await cli(scratch, command, socket)).toEqual(failure(3, line));
  });

  test('something that does not speak vfio-user', async () => {
    server = await fakeServer(socket, (client) => {
      client.write('SSH-2.0-OpenSSH_9.6 is not vfio-user, whatever you send\r\n');
    });
    const { stderr, ...rest } = await cli(scratch, command, socket);
    expect(rest).toEqual({ status: 3, signal: null, stdout: '' });
    expect(stderr).toMatch(/^vfio-user: [^\n]+\n$/);
  });

  test('a server that closes the connection at once', async () => {
    server = await fakeServer(socket, (client) => {
      client.once('data', () => client.destroy());
    });
    const { stderr, ...rest } = await cli(scratch, command, socket);
    expect(rest).toEqual({ status: 3, signal: null, stdout: '' });
    expect(stderr).toMatch(/^vfio-user: [^\n]+\n$/);
  });

  const asRoot = process.getuid?.() === 0;
  (asRoot ? test.skip : test)('permission denied', async () => {
    server = await fakeServer(socket, () => undefined);
    chmodSync(socket, 0);
    const { stderr, ...rest } = await cli(scratch, command, socket);
    expect(rest).toEqual({ status: 3, signal: null, stdout: '' });
    expect(stderr).toMatch(/^vfio-user: permission denied: [^\n]+\n$/);
  });
});

test('Ctrl-C while it waits for a busy endpoint', async () => {
  const connected = new Promise<void>((resolve) => {
    void fakeServer(socket, () => {
      resolve();
    }).then((started) => (server = started));
  });
  const running = startCli(scratch, 'bench', socket, '--connect-timeout', '60');
  await connected;
  running.kill('SIGINT');
  expect(await running.ended).toEqual(failure(130, 'interrupted by SIGINT'));
});
