// SPDX-License-Identifier: MIT
import { pciAddress, isPciAddress } from '../../lib/kernel/pci-address';
import { PciSysfs, isVfioDriver } from '../../lib/kernel/sysfs';
import { FakeSystem } from './fake-system';

const system = new FakeSystem();
afterAll(() => {
  system.remove();
});

test('functions are told as sysfs has them', () => {
  system
    .add('0000:81:00.0', { vendor: '0x8086', device: '0x0a54', driver: 'nvme', group: 7, node: '1' })
    .add('0000:02:00.1', { class: '0x020000', physfn: '0000:81:00.0' })
    .add('0001:00:01.0', {
      driver: 'vfio-pci',
      override: 'vfio-pci',
      group: 9,
      groupName: 'vfio-noiommu',
      vfioNode: 'vfio0',
    });
  const sysfs = new PciSysfs(system.sys);
  expect(sysfs.list()).toEqual([
    {
      address: '0000:02:00.1',
      vendorId: 0x1b36,
      deviceId: 0x10,
      classCode: 0x020000,
      driver: null,
      driverOverride: null,
      iommuGroup: null,
      noiommu: false,
      numaNode: null,
      vfioNode: null,
      physicalFunction: '0000:81:00.0',
    },
    expect.objectContaining({
      address: '0000:81:00.0',
      vendorId: 0x8086,
      driver: 'nvme',
      iommuGroup: 7,
      numaNode: 1,
    }),
    expect.objectContaining({
      address: '0001:00:01.0',
      driverOverride: 'vfio-pci',
      iommuGroup: 9,
      noiommu: true,
      vfioNode: 'vfio0',
    }),
  ]);
  expect(sysfs.find('0000:82:00.0')).toBeUndefined();
  expect(new PciSysfs('/no-such-folder').list()).toEqual([]);
});

test('what keeps a group from being used: drivers other than those of VFIO and of bridges', () => {
  system
    .add('0000:10:00.0', { class: '0x060400', driver: 'pcieport', group: 20 })
    .add('0000:11:00.0', { driver: 'vfio-pci', group: 20 })
    .add('0000:11:00.1', { driver: 'xhci_hcd', group: 20 })
    .add('0000:11:00.2', { group: 20 })
    .add('0000:11:00.3', { driver: 'pci-stub', group: 20 });
  expect(new PciSysfs(system.sys).obstacles(20).map(({ address }) => address)).toEqual(['0000:11:00.1']);
});

test.each([
  ['vfio-pci', true],
  ['mlx5_vfio_pci', true],
  ['nvgrace-gpu-vfio-pci', true],
  ['nvme', false],
  ['not-vfio-pci-at-all', false],
  [null, false],
])('the driver %s is one of VFIO: %s', (driver, expected) => {
  expect(isVfioDriver(driver)).toBe(expected);
});

test('addresses are taken as lspci writes them, with and without a domain', () => {
  expect(pciAddress('01:00.0')).toBe('0000:01:00.0');
  expect(pciAddress('0000:AF:1f.7')).toBe('0000:af:1f.7');
  expect(pciAddress('10000:e1:00.0')).toBe('10000:e1:00.0');
  for (const text of [
    '',
    '1:00.0',
    '0000:01:00.8',
    '0000:01:20.0',
    '0000:01:00',
    'nvme.sock',
    '../0000:01:00.0',
  ])
    expect(isPciAddress(text)).toBe(false);
  expect(() => pciAddress('eth0')).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARG_VALUE' }));
});
