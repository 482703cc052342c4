// SPDX-License-Identifier: MIT
/** The token of a virtual function, in every command that opens a PCI device. */
import { spawnSync } from 'node:child_process';
import { ADDRESS, FakeKernel, testWithKernel, type FakeFaults } from '../kernel/fake-kernel';
import { MAIN, Scratch, cli, failure, type Outcome } from './run-cli';

const TOKEN = 'bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3';
/** How a kernel that is asked for the virtual function and its token is asked. */
const ASKED = `GROUP_GET_DEVICE_FD ${Buffer.from(`${ADDRESS} vf_token=${TOKEN}`).toString('hex')}`;
/** Another token, or none. */
const REFUSED: FakeFaults = { fail: 'BIND=13 GROUP_GET_DEVICE_FD=13' };

const scratch = new Scratch();
afterAll(() => {
  scratch.remove();
});

const COMMANDS = [
  ['info', []],
  ['bench', ['--rw', 'randread']],
  ['serve vfio', ['--socket', scratch.file('socket')]],
] as const;

/** Runs the tool with a virtual function whose physical one another program has. */
function run(kernel: FakeKernel, faults: FakeFaults, ...args: string[]): Outcome {
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, [MAIN, ...args], {
    encoding: 'utf8',
    env: { ...process.env, NODE_DEBUG: '', ...kernel.environment(faults) },
  });
  return { status, signal, stdout, stderr };
}

describe.each(COMMANDS)('%s', (command, others) => {
  const words = command.split(' ');

  testWithKernel('opens a virtual function with its token, and says when it has another or wants one', () => {
    using kernel = new FakeKernel({ physfn: '0000:01:00.2' });
    const accepted = run(kernel, {}, ...words, ADDRESS, ...others, '--vf-token', TOKEN);
    expect(kernel.asked()).toContain(ASKED);
    // There is no device behind it, so that all but `info` fail later.
    expect(accepted.stderr).toMatch(command === 'info' ? /^$/ : /pread failed with EIO/);
    const other = run(kernel, REFUSED, ...words, ADDRESS, ...others, '--vf-token', TOKEN);
    expect(other).toMatchObject({ status: 3, stderr: expect.stringContaining(' has another VF token ') });
    const without = run(kernel, REFUSED, ...words, ADDRESS, ...others);
    expect(without).toMatchObject({ status: 3, stderr: expect.stringContaining(' wants a VF token ') });
    expect(without.stderr).toContain('(--vf-token on the command line)');
  });

  test('refuses a token that is no UUID, and one for what is no PCI device', async () => {
    expect(await cli(scratch, ...words, ADDRESS, ...others, '--vf-token', 'secret')).toEqual(
      failure(
        2,
        "Option --vf-token does not accept 'secret'; it takes a UUID, such as bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3",
      ),
    );
    const socket = scratch.file('none');
    expect(await cli(scratch, ...words, socket, ...others, '--vf-token', TOKEN)).toEqual(
      failure(2, `--vf-token goes with the PCI address of a device, and '${socket}' is none; leave it out`),
    );
    expect(scratch.entries()).toEqual([]);
  });
});

test('bench without an endpoint has nothing to open with a token', async () => {
  expect(await cli(scratch, 'bench', '--vf-token', TOKEN)).toEqual(
    failure(2, '--vf-token goes with the PCI address of a device; leave it out'),
  );
});

testWithKernel('a mediated device beside it is opened without', () => {
  const uuid = '83b8f4f2-509f-382f-3c1e-e6bfe0fa1001';
  using kernel = new FakeKernel({ physfn: '0000:01:00.2' });
  kernel.system
    .addMediated(uuid, 'vfio-pci', { group: 7, vfioNode: 'vfio1' })
    .write('dev/vfio/7', '')
    .write('dev/vfio/devices/vfio1', '');
  // Neither is a controller: how they were opened is what matters.
  expect(run(kernel, {}, 'bench', uuid, ADDRESS, '--vf-token', TOKEN)).toMatchObject({ stdout: '' });
  // struct vfio_device_bind_iommufd has 16 bytes without a token.
  expect(kernel.asked().filter((line) => /^(BIND|GROUP_GET)/.test(line))).toEqual([
    expect.stringMatching(/^BIND 10000000/),
    ASKED,
  ]);
});
