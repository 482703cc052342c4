// SPDX-License-Identifier: MIT
/** The protocol of the control socket: lines of JSON, and clients that break the rules. */
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MAX_LINE } from '../../lib/cli/control-client';
import type { ControlCommand } from '../../lib/cli/control-request';
import { ControlServer } from '../../lib/cli/control-server';
import { gate, type Gate } from '../support/gate';
import { openFds, warmUp } from '../support/resources';
import { turns, until } from '../support/wait';

const directory = mkdtempSync(join(tmpdir(), 'control-'));
const path = join(directory, 'ctl.sock');
let server: ControlServer;
let slow: Gate;
const done: unknown[] = [];
const peers: Peer[] = [];

const commands: Record<string, ControlCommand> = {
  echo: { help: '', run: (argument) => (done.push(argument), argument) },
  fail: {
    help: '',
    run: () => {
      throw new Error('it went wrong');
    },
  },
  slow: { help: '', run: () => slow.opened.then(() => 'at last') },
  slowly: { help: '', run: () => slow.opened.then(() => Promise.reject(new Error('in vain'))) },
};

/** A client that sends what it is told. */
class Peer {
  readonly socket: Socket = connect(path);
  received = '';
  ended = false;

  constructor() {
    this.socket.setEncoding('utf8');
    this.socket.on('data', (text: string) => (this.received += text));
    this.socket.on('error', () => undefined);
    this.socket.on('close', () => (this.ended = true));
    peers.push(this);
  }

  get lines(): unknown[] {
    return this.received
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line) as unknown);
  }

  async answers(count: number): Promise<unknown[]> {
    await until(() => this.lines.length >= count, `${count} answers`);
    expect(this.lines).toHaveLength(count);
    return this.lines;
  }

  async ask(line: string): Promise<unknown> {
    const before = this.lines.length;
    this.socket.write(`${line}\n`);
    return (await this.answers(before + 1)).at(-1);
  }
}

/** Nobody is told of clients that cannot be taken. */
const silent = { report: () => undefined };
let fdsBefore = 0;
beforeAll(warmUp);
beforeEach(() => {
  fdsBefore = openFds();
  done.length = 0;
  slow = gate();
  server = new ControlServer(
    path,
    { mode: 0o620, owner: undefined },
    new Map(Object.entries(commands)),
    silent,
  );
});
afterEach(async () => {
  server.close();
  for (const { socket } of peers) socket.destroy();
  await until(() => peers.splice(0).every(({ ended }) => ended) && openFds() === fdsBefore, 'all is closed');
  expect(() => statSync(path)).toThrow('ENOENT');
});
afterAll(() => {
  rmSync(directory, { recursive: true });
});

test('the socket has the permissions that were asked for', () => {
  expect(statSync(path).mode & 0o777).toBe(0o620);
});

test.each([
  ['{"id":1,"command":"echo","argument":{"a":[1]}}', { id: 1, result: { a: [1] } }],
  ['{"id":"x","command":"echo"}', { id: 'x', result: null }],
  ['{"command":"echo","argument":"ü\\n"}', { id: null, result: 'ü\n' }],
  ['{"id":[2],"command":"fail"}', { id: [2], error: 'it went wrong' }],
  ['{"id":3,"command":"ehco"}', { id: 3, error: "there is no command 'ehco'; did you mean echo?" }],
  [
    '{"id":3,"command":"zzz"}',
    { id: 3, error: "there is no command 'zzz'; it is one of echo, fail, slow, slowly" },
  ],
  [
    '{"id":3,"command":"toString"}',
    { id: 3, error: expect.stringContaining("there is no command 'toString'") },
  ],
  ['{"id":4}', { id: 4, error: 'command is one of echo, fail, slow, slowly' }],
  [
    '{"id":5,"command":"echo","argumnt":1}',
    { id: 5, error: "'argumnt' is no part of a request; it has id, command, argument" },
  ],
  ['[1]', { id: null, error: 'a line is one object of JSON, such as {"id": 1, "command": "help"}' }],
  ['null', { id: null, error: expect.stringContaining('one object of JSON') }],
  [
    '{"id":1',
    { id: null, error: expect.stringMatching(/^a line is one object of JSON, and this is none: /) },
  ],
  ['hello', { id: null, error: expect.stringContaining('and this is none') }],
  ['\xff\0\x01', { id: null, error: expect.stringContaining('and this is none') }],
])('%s', async (line, answer) => {
  const peer = new Peer();
  expect(await peer.ask(line)).toEqual(answer);
  // The connection goes on.
  expect(await peer.ask('{"id":9,"command":"echo","argument":9}')).toEqual({ id: 9, result: 9 });
});

test('lines that come in pieces, several at a time, and without anything in them', async () => {
  const peer = new Peer();
  for (const byte of '{"id":1,"command":"echo"}') {
    peer.socket.write(byte);
    await new Promise(setImmediate);
  }
  expect(peer.lines).toEqual([]);
  peer.socket.write('\n\n  \r\n{"id":2,"command":"echo"}\r\n{"id":3,"command":"fail"}\n{"id":4,');
  expect(await peer.answers(3)).toMatchObject([{ id: 1 }, { id: 2 }, { id: 3 }]);
  peer.socket.write('"command":"echo"}\n');
  expect(await peer.answers(4)).toMatchObject([{}, {}, {}, { id: 4 }]);
});

test('commands are done in their order, also behind one that takes its time', async () => {
  const peer = new Peer();
  const other = new Peer();
  peer.socket.write('{"id":1,"command":"slow"}\n{"id":2,"command":"slowly"}\n{"id":3,"command":"echo"}\n');
  // Other clients do not wait.
  await other.ask('{"id":1,"command":"echo"}');
  expect(peer.lines).toEqual([]);
  slow.open();
  expect(await peer.answers(3)).toEqual([
    { id: 1, result: 'at last' },
    { id: 2, error: 'in vain' },
    { id: 3, result: null },
  ]);
});

test('a client that ends its half gets all answers', async () => {
  const peer = new Peer();
  peer.socket.end('{"id":1,"command":"slow"}\n{"id":2,"command":"echo"}\n{"id":3');
  await until(() => peer.socket.writableFinished, 'it is sent');
  slow.open();
  expect(await peer.answers(2)).toMatchObject([{ id: 1 }, { id: 2 }]);
  await until(() => peer.ended, 'the server ends the connection');
});

test('a client that goes away while its command is at work', async () => {
  const peer = new Peer();
  peer.socket.write(
    '{"id":1,"command":"echo","argument":"before"}\n{"id":2,"command":"slow"}\n{"command":"echo","argument":"behind"}\n',
  );
  await until(() => done.includes('before'), 'the first is done');
  peer.socket.destroy();
  slow.open();
  expect(await new Peer().ask('{"id":1,"command":"echo"}')).toEqual({ id: 1, result: null });
});

test('the longest line is taken, one byte more ends the connection', async () => {
  const longest = '{"id":1,"command":"echo","argument":"'.padEnd(MAX_LINE - 3, 'x') + '"}';
  expect(Buffer.byteLength(longest)).toBe(MAX_LINE - 1);
  const peer = new Peer();
  expect(await peer.ask(longest)).toMatchObject({ id: 1 });
  peer.socket.write(`${longest} \n`);
  expect((await peer.answers(2))[1]).toEqual({
    id: null,
    error: 'a line has at most 65536 bytes; the connection ends here',
  });
  await until(() => peer.ended, 'the server ends the connection');
});

test('a line of 10 MB', async () => {
  const peer = new Peer();
  const before = process.memoryUsage().arrayBuffers;
  peer.socket.write('x'.repeat(10 << 20));
  await until(() => peer.ended, 'the server ends the connection');
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(4 << 20);
  expect(await new Peer().ask('{"id":1,"command":"echo"}')).toEqual({ id: 1, result: null });
});

test('a client that sends and does not read is not served any further, until it does', async () => {
  const peer = new Peer();
  peer.socket.pause();
  const count = 200;
  const line = `{"id":1,"command":"echo","argument":"${'x'.repeat(60_000)}"}\n`;
  for (let i = 0; i < count; i++) peer.socket.write(line);
  let seen = 0;
  await until(async () => {
    const before = seen;
    await turns(100);
    seen = done.length;
    return seen > 0 && seen === before;
  }, 'the server waits for the client');
  expect(done.length).toBeLessThan(count / 2);
  peer.socket.resume();
  await peer.answers(count);
});

test('of many clients the one that has been silent for the longest time makes room', async () => {
  const first = Array.from({ length: 16 }, () => new Peer());
  for (const peer of first) await peer.ask('{"command":"echo"}');
  await first[0]!.ask('{"command":"echo"}');
  const more = Array.from({ length: 20 }, () => new Peer());
  await until(() => [...first, ...more].filter(({ ended }) => ended).length === 20, '16 are left');
  expect(first[1]!.ended).toBe(true);
  const last = new Peer();
  expect(await last.ask('{"id":1,"command":"echo"}')).toEqual({ id: 1, result: null });
});

test('a path where somebody listens is refused', () => {
  expect(() => new ControlServer(path, { mode: undefined, owner: undefined }, new Map(), silent)).toThrow(
    'EADDRINUSE',
  );
});
