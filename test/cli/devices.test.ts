// SPDX-License-Identifier: MIT
/** PCI devices of this machine, as far as the tool shows and refuses them without any. */
import { FakeSystem } from '../kernel/fake-system';
import { Scratch, cli } from './run-cli';

const ADDRESS = '0000:01:00.0';
const UUID = '83b8f4f2-509f-382f-3c1e-e6bfe0fa1001';
const scratch = new Scratch();
let system: FakeSystem;
const before = process.env['VFIO_USER_SYSTEM_ROOT'];
beforeEach(() => {
  system = new FakeSystem();
  process.env['VFIO_USER_SYSTEM_ROOT'] = system.root;
});
afterEach(() => {
  system.remove();
});
afterAll(() => {
  if (before === undefined) delete process.env['VFIO_USER_SYSTEM_ROOT'];
  else process.env['VFIO_USER_SYSTEM_ROOT'] = before;
  scratch.remove();
});

test('devices lists NVMe controllers and what VFIO has, in columns', async () => {
  system
    .add(ADDRESS, { vendor: '0x1b36', device: '0x0010', driver: 'nvme', group: 12, node: '0' })
    .add('0000:02:00.0', {
      vendor: '0x8086',
      device: '0x10fb',
      class: '0x020000',
      driver: 'vfio-pci',
      group: 13,
    })
    .add('0000:03:00.0', { class: '0x030000', driver: 'bochs' });
  const listed = await cli(scratch, 'devices');
  expect(listed).toMatchObject({ status: 0, stderr: '' });
  expect(listed.stdout.split('\n').map((line) => line.slice(0, 41))).toEqual([
    'ADDRESS       DRIVER    GROUP  NODE  DEVI',
    '0000:01:00.0  nvme      12     0     Non-',
    '0000:02:00.0  vfio-pci  13     -     Ethe',
    '',
  ]);
  const all = JSON.parse((await cli(scratch, 'devices', '--all', '--json')).stdout) as { address: string }[];
  expect(all.map(({ address }) => address)).toEqual([ADDRESS, '0000:02:00.0', '0000:03:00.0']);
});

test('nothing to list is said', async () => {
  expect(await cli(scratch, 'devices')).toMatchObject({
    status: 0,
    stdout: 'There is no NVMe controller, and nothing is bound to VFIO; --all lists all devices.\n',
  });
});

test('bind says what it found', async () => {
  system.add(ADDRESS, { driver: 'vfio-pci', group: 3 }).add('0000:01:00.1', { driver: 'xhci_hcd', group: 3 });
  expect(await cli(scratch, 'bind', ADDRESS)).toMatchObject({
    status: 0,
    stdout: `${ADDRESS} is bound to vfio-pci already.\n`,
    stderr:
      'vfio-user: its IOMMU group cannot be used yet: 0000:01:00.1 (xhci_hcd) belong to it too; bind or unbind them\n',
  });
});

test.each([
  [3, ['info', ADDRESS], /^vfio-user: no PCI device is at 0000:01:00.0/],
  [3, ['bench', '01:00.0'], /^vfio-user: no PCI device is at 0000:01:00.0/],
  [3, ['bind', ADDRESS], /^vfio-user: no PCI device is at 0000:01:00.0/],
  [2, ['bind', 'nvme0'], /^vfio-user: 'nvme0' is no PCI address/],
  [
    2,
    ['bench', ADDRESS, '--rw', 'randwrite'],
    /real hardware, 0000:01:00.0; .* --i-know-this-destroys-data-on 0000:01:00.0$/m,
  ],
  [
    2,
    ['bench', ADDRESS, '--rw', 'trim', '--i-know-this-destroys-data-on', '02:00.0'],
    /real hardware, 0000:01:00.0/,
  ],
  [2, ['bench', ADDRESS, '--verify', '--rw', 'write'], /real hardware/],
  [
    2,
    ['bench', ADDRESS, '--i-know-this-destroys-data-on', ADDRESS],
    /on which nothing is written or trimmed/,
  ],
  [
    2,
    ['bench', ADDRESS, '--i-know-this-destroys-data-on', 'all'],
    /PCI addresses, or UUIDs of .* separated by commas/,
  ],
  [3, ['info', UUID], /^vfio-user: there is no mediated device 83b8f4f2-509f-382f-3c1e-e6bfe0fa1001/],
  [2, ['bench', UUID, '--rw', 'write'], /real hardware, 83b8.*1001; .* --i-know-this-destroys-data-on 83b8/],
] as const)('status %d: %j', async (status, args, text) => {
  expect(await cli(scratch, ...args)).toMatchObject({
    status,
    stdout: '',
    stderr: expect.stringMatching(text) as string,
  });
});

test('a job file cannot say so', async () => {
  system.write(
    'job.fio',
    `[global]\ni-know-this-destroys-data-on=${ADDRESS}\n[a]\nfilename=0000\\:01\\:00.0\nrw=write\n`,
  );
  const { status, stderr } = await cli(scratch, 'bench', `${system.root}/job.fio`);
  expect([status, stderr]).toEqual([2, expect.stringContaining('is for the command line alone')]);
});
