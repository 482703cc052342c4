// SPDX-License-Identifier: MIT
/** Mediated devices, which are opened by their UUIDs. Guests show those of a driver of Linux. */
import { deviceName, isDeviceName } from '../../lib/kernel/device-name';
import { openPciIn } from '../../lib/kernel/open';
import { rejection } from '../support/errors';
import { FakeKernel, testWithKernel } from './fake-kernel';
import { FakeSystem } from './fake-system';

const UUID = '83b8f4f2-509f-382f-3c1e-e6bfe0fa1001';

describe('names of devices', () => {
  test('are PCI addresses and UUIDs, in lower case as sysfs has them', () => {
    expect(deviceName(UUID.toUpperCase())).toBe(UUID);
    expect(deviceName('01:0A.0')).toBe('0000:01:0a.0');
    for (const text of ['', UUID.slice(1), `${UUID}0`, `./${UUID}`, UUID.replaceAll('-', ''), 'nvme.sock'])
      expect(isDeviceName(text)).toBe(false);
  });
});

describe('what is refused', () => {
  let system: FakeSystem;
  beforeEach(() => {
    system = new FakeSystem();
  });
  afterEach(() => {
    system.remove();
  });
  const refusal = async (): Promise<unknown> => rejection(openPciIn(system, UUID));

  test('no such device: where those are that are there, and how one is made', async () => {
    expect(await refusal()).toMatchObject({
      code: 'ERR_VFIO_USER_CONNECT',
      message:
        `there is no mediated device ${UUID}; \`ls ${system.sys}/bus/mdev/devices\` lists those that are there. A UUID that is ` +
        'written to create, in a folder of /sys/class/mdev_bus/*/mdev_supported_types, makes one',
    });
  });

  test('one that is no PCI device', async () => {
    system.addMediated(UUID, 'vfio-ccw', { group: 3 });
    expect(await refusal()).toMatchObject({
      code: 'ERR_VFIO_USER_CONNECT',
      message: `${UUID} is no PCI device: VFIO offers it as vfio-ccw, which this package does not drive`,
    });
  });

  test('one without a driver', async () => {
    system.addMediated(UUID, 'vfio-pci');
    expect(await refusal()).toMatchObject({
      code: 'ERR_VFIO_USER_CONNECT',
      message: expect.stringMatching(/no driver is bound to it; remove it and make it anew$/),
    });
  });
});

testWithKernel.each(['group', 'iommufd'])('one is opened through its %s', (through) => {
  using kernel = new FakeKernel();
  kernel.system
    .addMediated(UUID, 'vfio-pci', { group: 7, vfioNode: 'vfio1' })
    .write('dev/vfio/7', '')
    .write('dev/vfio/devices/vfio1', '');
  const { said, asked } = kernel.run(`
    const device = await open({ through: '${through}' }, '${UUID.toUpperCase()}');
    say([device.name, device.through]);
    await device.close();`);
  expect(said).toEqual([[UUID, through]]);
  if (through === 'group')
    expect(asked).toContain(`GROUP_GET_DEVICE_FD ${Buffer.from(UUID).toString('hex')}`);
});
