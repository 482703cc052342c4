// SPDX-License-Identifier: MIT
/** What is written to sysfs, and what is refused before that. That drivers follow is for guests to show. */
import { bindToVfio, unbindFromVfio } from '../../lib/kernel/driver-binding';
import { like } from '../support/errors';
import { FakeSystem } from './fake-system';

const ADDRESS = '0000:01:00.0';
const DEVICE = `sys/bus/pci/devices/${ADDRESS}`;
const NOTE = `run/vfio-user/bindings/${ADDRESS}`;
let system: FakeSystem;
beforeEach(() => {
  system = new FakeSystem();
});
afterEach(() => {
  system.remove();
});

test('a function that vfio-pci does not take is given back, with its override', () => {
  system.driver('vfio-pci').add(ADDRESS, { driver: 'nvme', override: 'nvme', group: 1 });
  expect(() => bindToVfio(ADDRESS, system)).toThrow(
    like({
      code: 'ERR_VFIO_USER_CONNECT',
      message: `${ADDRESS} was not taken by vfio-pci; \`dmesg\` tells why`,
    }),
  );
  expect(system.read('sys/bus/pci/drivers/nvme/unbind')).toBe(ADDRESS);
  expect(system.read('sys/bus/pci/drivers_probe')).toBe(ADDRESS);
  expect(system.read(`${DEVICE}/driver_override`)).toMatch(/^nvme/);
  expect(() => system.read(NOTE)).toThrow('ENOENT');
});

test('a function without an IOMMU is left alone, unless VFIO was told to take those', () => {
  system.driver('vfio-pci').add(ADDRESS, { driver: 'nvme' });
  const bind = (): unknown => bindToVfio(ADDRESS, system);
  expect(bind).toThrow(
    like({
      code: 'ERR_VFIO_USER_CONNECT',
      message:
        `${ADDRESS} is in no IOMMU group: no IOMMU is in use. Enable it in the firmware (VT-d or AMD-Vi) and for the kernel ` +
        '(intel_iommu=on on its command line), then boot anew',
    }),
  );
  expect(system.read(`${DEVICE}/driver_override`)).toBe('(null)\n');
  const mode = 'sys/module/vfio/parameters/enable_unsafe_noiommu_mode';
  system.write(mode, 'N\n');
  expect(bind).toThrow('no IOMMU is in use');
  system.write(mode, 'Y\n');
  expect(bind).toThrow('was not taken by vfio-pci');
});

test('a function that VFIO has already is left alone, and others of its group are told', () => {
  system.add(ADDRESS, { driver: 'vfio-pci', group: 3 }).add('0000:01:00.1', { driver: 'xhci_hcd', group: 3 });
  expect(bindToVfio('01:00.0', system)).toMatchObject({
    address: ADDRESS,
    before: 'vfio-pci',
    now: 'vfio-pci',
    obstacles: [{ address: '0000:01:00.1', driver: 'xhci_hcd' }],
  });
  expect(system.read('sys/bus/pci/drivers_probe')).toBe('');
});

test.each([
  ['its namespace', '/dev/nvme0n1 /data ext4 rw 0 0', '/dev/nvme0n1 is mounted at /data'],
  ['a partition', '/dev/nvme0n1p2 / ext4 rw 0 0', '/dev/nvme0n1p2 is mounted at /'],
])('a drive is not taken from under a file system: %s', (_, mount, text) => {
  system
    .driver('vfio-pci')
    .add(ADDRESS, { driver: 'nvme', folders: ['nvme/nvme0/nvme0n1'] })
    .write('proc/mounts', `proc /proc proc rw 0 0\n/dev/nvme0n10 /other ext4 rw 0 0\n${mount}\n`);
  expect(() => bindToVfio(ADDRESS, system)).toThrow(
    like({ code: 'ERR_VFIO_USER_BUSY', message: expect.stringContaining(text) }),
  );
  expect(system.read(`${DEVICE}/driver_override`)).toBe('(null)\n');
});

test('what cannot be bound is told', () => {
  system.add(ADDRESS, { driver: 'nvme' });
  expect(() => bindToVfio('0000:02:00.0', system)).toThrow('no PCI device is at 0000:02:00.0');
  expect(() => bindToVfio('nvme0', system)).toThrow("'nvme0' is no PCI address");
  expect(() => bindToVfio(ADDRESS, system)).toThrow(
    'the driver vfio-pci is not loaded; run modprobe vfio-pci',
  );
  expect(() => unbindFromVfio(ADDRESS, system)).toThrow('is not bound to VFIO: its driver is nvme');
});

test('a driver that cannot be noted is not changed', () => {
  system.driver('vfio-pci').add(ADDRESS, { driver: 'nvme', group: 1 }).write('run/vfio-user', 'a file');
  expect(() => bindToVfio(ADDRESS, system)).toThrow(
    like({ code: 'ERR_VFIO_USER_SYSTEM', errnoName: 'ENOTDIR' }),
  );
  expect(system.read(`${DEVICE}/driver_override`)).toBe('(null)\n');
});

test.each([
  ['its driver', '{"driver":"nvme","driverOverride":null}', '\n', ADDRESS],
  ['its driver and override', '{"driver":"nvme","driverOverride":"nvme"}', 'nvme', ADDRESS],
  ['no driver', '{"driver":null,"driverOverride":null}', '\n', ''],
  ['what is not known', undefined, '\n', ADDRESS],
  ['a note that cannot be read', '{"driver":', '\n', ADDRESS],
])('unbinding gives it back: %s', (_, note, override, probed) => {
  system.add(ADDRESS, { driver: 'vfio-pci', override: 'vfio-pci' });
  if (note !== undefined) system.write(NOTE, note);
  unbindFromVfio(ADDRESS, system);
  expect(system.read(`${DEVICE}/driver_override`).slice(0, override.length)).toBe(override);
  expect(system.read('sys/bus/pci/drivers/vfio-pci/unbind')).toBe(ADDRESS);
  expect(system.read('sys/bus/pci/drivers_probe')).toBe(probed);
  expect(() => system.read(NOTE)).toThrow('ENOENT');
});
