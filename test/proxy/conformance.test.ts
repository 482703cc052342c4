// SPDX-License-Identifier: MIT
/** A device behind a proxy does what every device does. */
import { Scratch, startCli, type Running } from '../cli/run-cli';
import { connect, type VfioUserDevice } from '../../lib/client';
import { CONFORMANCE } from '../support/device-conformance';

const scratch = new Scratch();
const running: Running[] = [];
let device: VfioUserDevice;
beforeAll(async () => {
  const [upstream, socket] = [scratch.file('upstream'), scratch.file('socket')];
  // Processes of their own: calls that block wait for both.
  running.push(startCli(scratch, 'serve', 'nvme', '--socket', upstream, '--size', '4m'));
  await running[0]?.said('Ctrl-C ends it.');
  running.push(startCli(scratch, 'serve', 'vfio', upstream, '--socket', socket));
  await running[1]?.said('Ctrl-C ends it.');
  device = await connect(socket);
});
afterAll(async () => {
  await device.close();
  for (const each of running.reverse()) {
    each.kill('SIGTERM');
    expect(await each.ended).toMatchObject({ status: 0, stderr: '' });
  }
  scratch.remove();
});

test.each(Object.entries(CONFORMANCE))('%s', async (_, check) => {
  await check(device);
});
