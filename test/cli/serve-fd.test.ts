// SPDX-License-Identifier: MIT
/** `serve nvme --fd`: a socket that the tool is started with. */
import { openSync, closeSync } from 'node:fs';
import { connect } from '../../lib/client';
import { ListeningSocket, Socket } from '../../lib/native';
import { NvmeController } from '../../lib/nvme/host';
import { Scratch, startCliWith, type Outcome } from './run-cli';

let scratch: Scratch;
beforeEach(() => {
  scratch = new Scratch();
});
afterEach(() => {
  scratch.remove();
});

const SERVE = ['serve', 'nvme', '--size', '1m', '--fd', '3'];

async function serialOf(path: string): Promise<string> {
  await using device = await connect(path);
  await using nvme = await NvmeController.attach(device);
  return nvme.identify.sn;
}

test('one that listens: its file stays, and clients come and go', async () => {
  const path = scratch.file('activated.sock');
  using listener = ListeningSocket.listen(path);
  const running = startCliWith(scratch, listener.fd, ...SERVE, '--serial', 'S');
  await running.said('Ctrl-C ends it.');
  expect([await serialOf(path), await serialOf(path)]).toEqual(['S', 'S']);
  running.kill('SIGTERM');
  const { stdout, ...rest } = await running.ended;
  expect(rest).toEqual({ status: 0, signal: null, stderr: '' });
  expect(stdout).toContain('Serving an NVMe controller at fd 3: 1.00MiB');
  expect(stdout).not.toContain('Measure it');
  expect(scratch.entries()).toEqual(['activated.sock']);
});

test('one that is connected: the tool ends with its client', async () => {
  const [near, far] = Socket.pair();
  const running = startCliWith(scratch, far.fd, ...SERVE);
  far.close();
  await running.said('Ctrl-C ends it.');
  near.close();
  const { stdout, ...rest } = await running.ended;
  expect(rest).toEqual({ status: 0, signal: null, stderr: '' });
  expect(stdout).toContain('\nfd 3: admin commands 0');
});

test('what is no such socket is refused before anything is served', async () => {
  const refused = async (third: 'ignore' | number, ...args: string[]): Promise<Outcome> =>
    startCliWith(scratch, third, ...SERVE, ...args).ended;
  const file = openSync(__filename, 'r');
  expect(await refused(file)).toEqual({
    status: 1,
    signal: null,
    stdout: '',
    stderr: expect.stringMatching(/^vfio-user: Taking over file descriptor 3 as a socket: .*ENOTSOCK\n$/),
  });
  closeSync(file);
  using listener = ListeningSocket.listen(scratch.file('s'));
  expect(await refused(listener.fd, '--mode', '0600')).toMatchObject({
    status: 2,
    stderr: 'vfio-user: --mode and --owner are for socket files that are made here, and --fd makes none\n',
  });
  expect(await refused(listener.fd, '--fd', '3')).toMatchObject({
    status: 2,
    stderr: 'vfio-user: Two sockets cannot be at fd 3\n',
  });
});
