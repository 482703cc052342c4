// SPDX-License-Identifier: MIT
/** The vfio-user device as an implementation of `Device`; in a guest the kernel's has the same tests. */
import { Scratch, startCli, type Running } from '../cli/run-cli';
import { connect, type VfioUserDevice } from '../../lib/client';
import { CONFORMANCE } from '../support/device-conformance';

const scratch = new Scratch();
let server: Running;
let device: VfioUserDevice;
beforeAll(async () => {
  const socket = scratch.file('socket');
  // A process of its own: calls that block wait for it.
  server = startCli(scratch, 'serve', 'nvme', '--socket', socket, '--size', '4m');
  await server.said('Ctrl-C ends it.');
  device = await connect(socket);
});
afterAll(async () => {
  await device.close();
  server.kill('SIGTERM');
  await server.ended;
  scratch.remove();
});

test.each(Object.entries(CONFORMANCE))('%s', async (_, check) => {
  await check(device);
});
