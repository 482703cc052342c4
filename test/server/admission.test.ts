// SPDX-License-Identifier: MIT
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Socket } from '../../lib/native';
import { serve, type PeerCredentials, type Server, type ServeOptions } from '../../lib/server';
import { Admission } from '../../lib/server/admission';
import { RawClient, TestModel, openFds, turns, warmUp } from './support';

const NOBODY = 65534;
const isRoot = process.geteuid?.() === 0;
const abstract = `@vfio-user-admission-${process.pid}`;

let folder: string;
let model: TestModel;
let errors: unknown[];
let fdsBefore: number;
beforeAll(warmUp);
beforeEach(() => {
  fdsBefore = openFds();
  folder = mkdtempSync(join(tmpdir(), 'vfio-user-admission-'));
  model = new TestModel();
  errors = [];
});
afterEach(() => {
  model.close();
  rmSync(folder, { recursive: true });
  expect(openFds()).toBe(fdsBefore);
});

const start = (path: string, options: ServeOptions = {}): Promise<Server> =>
  serve(path, model, { onError: (error) => errors.push(error), ...options });

/** Connects and is disconnected. */
async function isRefused(path: string): Promise<void> {
  const client = await RawClient.connect(path, false);
  await client.end();
  client.close();
}

describe('accept', () => {
  test('is told who connects, and refuses; the next one is served', async () => {
    const peers: PeerCredentials[] = [];
    await using server = await start(join(folder, 's'), {
      accept: (peer) => peers.push(peer) > 2,
    });
    await isRefused(server.path);
    await isRefused(server.path);
    const client = await RawClient.connect(server.path);
    expect(server.client?.name).toMatch(/^client 1 /);
    client.close();
    const own = { pid: process.pid, uid: process.geteuid?.(), gid: process.getegid?.() };
    expect(peers).toEqual([own, own, own]);
    expect(errors).toEqual([]);
  });

  test('refuses when it throws, which is reported, and when it returns a promise', async () => {
    const answers = [
      () => {
        throw new Error('no list of users');
      },
      () => Promise.resolve(true) as unknown as boolean,
      () => true,
    ];
    await using server = await start(abstract, { accept: () => answers.shift()?.() ?? false });
    await isRefused(server.path);
    await isRefused(server.path);
    (await RawClient.connect(server.path)).close();
    expect(errors).toEqual([expect.objectContaining({ message: 'no list of users' })]);
  });
});

describe('an abstract socket', () => {
  /** Whether a peer with a user id is admitted without `accept`. */
  const admits = (path: string, uid: number, reports: unknown[] = []): boolean => {
    const admission = new Admission(path, undefined, (error) => reports.push(error));
    let closed = 0;
    const socket = { peerCredentials: () => ({ pid: 7, uid, gid: uid }), close: () => (closed += 1) };
    const [first, second] = [0, 1].map(() => admission.admits(socket as unknown as Socket));
    expect(second).toBe(first);
    expect(closed).toBe(first ? 0 : 2);
    return first as boolean;
  };

  test("serves the server's own user and root alone; a refused user is reported once", () => {
    const own = process.geteuid?.() as number;
    const reports: unknown[] = [];
    expect([own, 0, own + 1, NOBODY].map((uid) => admits('@name', uid))).toEqual([true, true, false, false]);
    expect(admits('\0name', own + 1, reports)).toBe(false);
    expect(reports).toEqual([
      expect.objectContaining({
        code: 'ERR_VFIO_USER_CONNECT',
        message: expect.stringContaining(`Process 7 of user ${own + 1} was refused`) as string,
      }),
    ]);
    expect(admits('/run/name', NOBODY)).toBe(true);
  });

  (isRoot ? test : test.skip)('a process of another user is disconnected (skipped unless root)', async () => {
    await using server = await start(abstract);
    const script = `import socket
s = socket.socket(socket.AF_UNIX)
s.connect('\\0${server.path.slice(1)}')
print(s.recv(1))`;
    const { stdout } = await promisify(execFile)('python3', ['-c', script], {
      uid: NOBODY,
      gid: NOBODY,
      cwd: '/',
    });
    expect(stdout).toBe("b''\n");
    expect(errors).toEqual([
      expect.objectContaining({
        message: expect.stringContaining(`of user ${NOBODY} was refused`) as string,
      }),
    ]);
    (await RawClient.connect(server.path)).close();
  });

  test.each<[string, ServeOptions]>([
    ['mode', { mode: 0o660 }],
    ['owner', { owner: { uid: 1 } }],
  ])('has no %s', async (_, options) => {
    await expect(start(abstract, options)).rejects.toThrow(/^mode and owner are those of a socket file/);
  });
});

describe('a socket file', () => {
  test('gets its permissions and its owner', async () => {
    const [uid, gid] = isRoot ? [NOBODY, 12345] : [process.geteuid?.(), process.getegid?.()];
    const path = join(folder, 's');
    await using server = await start(path, {
      mode: 0o620,
      owner: { uid: uid as number, gid: gid as number },
    });
    expect(statSync(server.path)).toMatchObject({ uid, gid });
    expect(statSync(server.path).mode & 0o777).toBe(0o620);
  });

  test('keeps its group when only a user is given', async () => {
    await using server = await start(join(folder, 's'), { owner: { uid: process.geteuid?.() as number } });
    expect(statSync(server.path).gid).toBe(statSync(folder).gid);
  });

  (isRoot ? test.skip : test)('of which nobody may be robbed (skipped for root)', async () => {
    const path = join(folder, 's');
    await expect(start(path, { owner: { uid: 0 } })).rejects.toMatchObject({
      code: 'ERR_VFIO_USER_SYSTEM',
      message: `Giving the socket ${path} to user 0: chown failed with EPERM`,
    });
    expect(() => statSync(path)).toThrow(/ENOENT/);
  });

  test.each<[object, RegExp]>([
    [{ owner: { user: 1 } }, /^owner of serve: unknown key "user"; known are uid, gid/],
    [{ owner: 1 }, /^owner of serve: 1 is no object/],
    [{ owner: { uid: -2 } }, /uid/],
    [{ owner: { uid: 'me' } }, /uid/],
    [{ spin: -1 }, /^spin is from 0 to 1000000 microseconds, got -1/],
    [{ spin: Infinity }, /^spin is from 0 to 1000000 microseconds, got Infinity/],
    [{ idleTimeout: 0 }, /^idleTimeout is 0; give milliseconds above 0, or Infinity for none/],
  ])('%j is refused, and no file is left', async (options, message) => {
    await expect(start(join(folder, 's'), options)).rejects.toThrow(message);
    await turns(1);
    expect(() => statSync(join(folder, 's'))).toThrow(/ENOENT/);
  });
});
