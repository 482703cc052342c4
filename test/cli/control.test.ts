// SPDX-License-Identifier: MIT
/** `serve nvme --fault --control`, and `control`. */
import { statSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { connect } from '../../lib/client';
import { NvmeController } from '../../lib/nvme/host';
import { Scratch, cli, startCli, type Outcome, type Running } from './run-cli';

let scratch: Scratch;
let running: Running;
beforeEach(() => {
  scratch = new Scratch();
});
afterEach(() => {
  scratch.remove();
});

const socket = (): string => scratch.file('nvme.sock');
const ctl = (): string => scratch.file('ctl.sock');
const control = (...args: string[]): Promise<Outcome> => cli(scratch, 'control', ctl(), ...args);

/** The result of a command that succeeds. */
async function result(...args: string[]): Promise<unknown> {
  const outcome = await control(...args);
  expect(outcome).toMatchObject({ status: 0, stderr: '' });
  return outcome.stdout === '' ? null : JSON.parse(outcome.stdout);
}

async function start(...args: string[]): Promise<void> {
  const common = ['--socket', socket(), '--control', ctl()];
  running = startCli(scratch, 'serve', 'nvme', ...common, ...args);
  await running.said('Ctrl-C ends it.');
}

async function stop(): Promise<Outcome> {
  running.kill('SIGTERM');
  return running.ended;
}

test('faults from the command line strike, and are changed while the controller is served', async () => {
  await start('--size', '1m', '--fault', 'on=write,nth=2,status=write-fault', '--fault', 'on=flush,lost');
  {
    await using device = await connect(socket());
    const nvme = await NvmeController.attach(device);
    const memory = await device.dma.allocate(4096);
    const write = (): Promise<void> => nvme.namespace(1).write(memory, { lba: 0, blocks: 1 });
    await write();
    await expect(write()).rejects.toMatchObject({ sct: 2, sc: 0x80 });
    await write();
    expect(await result('faults')).toEqual([
      { id: 1, fault: 'on=write,nth=2,status=write-fault', matched: 2, struck: 1 },
      { id: 2, fault: 'on=flush,lost', matched: 0, struck: 0 },
    ]);
    expect(await result('add-fault', 'on=write,status=internal-error,dnr')).toEqual({ id: 3 });
    await expect(write()).rejects.toMatchObject({ sct: 0, sc: 6, doNotRetry: true });
    expect(await result('remove-fault', '3')).toBeNull();
    await write();
    expect(await result('add-fault', '{"on":"write","status":"write-fault"}')).toEqual({ id: 4 });
    await expect(write()).rejects.toMatchObject({ sct: 2, sc: 0x80 });
    expect(await result('clear-faults')).toEqual({ removed: 3 });
    await write();
    expect(await result('statistics')).toMatchObject({ writeCommands: 4, errors: 3, fault: null });
    expect(await result('inject', 'fatal')).toBeNull();
    expect(await result('statistics')).toMatchObject({ fault: 'a fault was asked for' });
    const closed = new Promise((resolve) => device.once('close', resolve));
    expect(await result('inject', 'disconnect')).toBeNull();
    await closed;
  }
  expect(await stop()).toMatchObject({
    status: 0,
    stderr: 'vfio-user: The controller stopped until it is reset (CSTS.CFS): a fault was asked for\n',
  });
  expect(scratch.entries()).toEqual([]);
});

test('namespaces come, change and go', async () => {
  writeFileSync(scratch.file('a.img'), new Uint8Array(1 << 20));
  await start('--namespace', 'memory,size=1m', '--namespace', `file=${scratch.file('a.img')},nsid=4`);
  expect(await result('add-namespace', 'memory,size=2m,bs=4096')).toMatchObject({
    nsid: 2,
    size: 2 << 20,
    blockSize: 4096,
  });
  expect(await result('resize-namespace', '2=4m')).toMatchObject({ nsid: 2, size: 4 << 20 });
  expect(await result('remove-namespace', '1')).toBeNull();
  expect(await result('namespaces')).toMatchObject([{ nsid: 2 }, { nsid: 4, kind: 'file' }]);
  expect(await control('add-namespace', `file=${scratch.file('a.img')}`)).toMatchObject({
    status: 1,
    stderr: expect.stringContaining('a.img is the data of two namespaces'),
  });
  expect(await result('remove-namespace', '4')).toBeNull();
  expect(await result('add-namespace', `file=${scratch.file('a.img')}`)).toMatchObject({
    nsid: 1,
    kind: 'file',
  });
  for (const [args, message] of [
    [['add-namespace', 'disk=1'], ''],
    [['add-namespace', '7'], 'the argument is a namespace, such as file=disk.img,bs=4096'],
    [['add-namespace', 'memory,size=1m,nsid=2'], 'There is a namespace 2 already'],
    [['remove-namespace', '9'], 'There is no namespace 9'],
    [['remove-namespace', 'x'], 'the argument begins with the id of a namespace, got "x"'],
    [['resize-namespace', '2=big'], "'big' is not a size"],
  ] as const)
    expect(await control(...args)).toMatchObject({
      status: 1,
      stdout: '',
      stderr: expect.stringContaining(message),
    });
  expect(await stop()).toMatchObject({ status: 0, stderr: '' });
});

test('the commands are listed, and what is wrong is told in one line', async () => {
  await start('--size', '1m', '--mode', '0600');
  expect(statSync(ctl()).mode & 0o777).toBe(0o600);
  expect(Object.keys((await result('help')) as object)).toEqual(
    expect.arrayContaining(['help', 'faults', 'add-fault', 'inject', 'statistics', 'namespaces']),
  );
  for (const [args, message] of [
    [['fautls'], "there is no command 'fautls'; did you mean faults?"],
    [['add-fault'], 'the argument is a fault, such as "on=write,nth=10,status=write-fault"'],
    [['add-fault', 'on=wirte,hang'], "fault 'on=wirte,hang': on does not accept 'wirte'"],
    [['remove-fault', '7'], 'there is no fault 7; faults lists them'],
    [['remove-namespace', 'abc'], 'the argument begins with the id of a namespace, got "abc"'],
    [['remove-namespace'], 'the argument begins with the id of a namespace, got none'],
    [['resize-namespace', '=4k'], 'the argument begins with the id of a namespace, got ""'],
    [['resize-namespace', '1=abc'], "'abc' is not a size"],
    [['inject', 'hang'], "fault 'hang': at once can be done one of fatal, event, disconnect, remove"],
  ] as const)
    expect(await control(...args)).toMatchObject({
      status: 1,
      stdout: '',
      stderr: expect.stringMatching(
        new RegExp(`^vfio-user: ${message.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')}[^\n]*\n$`),
      ),
    });
  expect(await stop()).toMatchObject({ status: 0, stderr: '' });
});

test.each([
  [
    ['--fault', 'on=write,status=write-fualt'],
    "Option --fault: fault 'on=write,status=write-fualt': status does not accept 'write-fualt'; it takes a status",
  ],
  [['--fault', ''], 'Option --fault'],
  [['--fault', 'hang', '--fault', 'delay=5'], "Option --fault: fault 'delay=5': delay does not accept '5'"],
  [
    ['--control', '@ctl'],
    '--control is the path of a socket file; the abstract socket @ctl would have no permissions',
  ],
  [['--control', 'ctl', '--control', 'ctl2'], 'Option --control is given twice'],
])('serve nvme %j is refused before anything is served', async (args, message) => {
  const outcome = await cli(scratch, 'serve', 'nvme', '--socket', socket(), '--size', '1m', ...args);
  expect(outcome).toMatchObject({ status: 2, stdout: '', stderr: expect.stringContaining(message) });
  expect(outcome.stderr).toMatch(/^[^\n]*\n$/);
  expect(scratch.entries()).toEqual([]);
});

test('two sockets at one path', async () => {
  const outcome = await cli(scratch, 'serve', 'nvme', '--socket', socket(), '--control', socket());
  expect(outcome).toMatchObject({ status: 2, stderr: `vfio-user: Two sockets cannot be at ${socket()}\n` });
});

describe('a server that does not answer as it should', () => {
  let server: Server | undefined;
  afterEach(() => {
    server?.close();
    server = undefined;
  });

  test('is not there', async () => {
    expect(await control('help')).toMatchObject({
      status: 3,
      stderr: expect.stringContaining(`${ctl()}: no server takes commands there: connect ENOENT`),
    });
  });

  test.each([
    ['ends the connection', '', 3, 'the server ended the connection without an answer'],
    ['says something else', 'hello\n', 1, 'what listens there is no control socket'],
    ['never ends its answer', 'x'.repeat((1 << 24) + 1), 3, 'what listens there is no control socket'],
    ['answers with something else', '{"a":1}\n', 1, 'what listens there is no control socket'],
  ])('%s', async (_, text, status, message) => {
    server = createServer((peer) => {
      peer.on('error', () => undefined);
      peer.end(text);
    });
    await new Promise<void>((resolve) => server?.listen(ctl(), resolve));
    expect(await control('help')).toMatchObject({
      status,
      stdout: '',
      stderr: expect.stringContaining(message),
    });
  });
});
