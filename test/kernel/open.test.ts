// SPDX-License-Identifier: MIT
/** What is refused before the kernel is asked, or when it has nothing to ask. Guests show the rest. */
import type { VfioUserError } from '../../lib/errors';
import { lockableBytes } from '../../lib/kernel/memory-limit';
import { openPciIn } from '../../lib/kernel/open';
import { rejection } from '../support/errors';
import { FakeSystem } from './fake-system';

const ADDRESS = '0000:01:00.0';
let system: FakeSystem;
beforeEach(() => {
  system = new FakeSystem();
});
afterEach(() => {
  system.remove();
});

const refusal = async (options = {}): Promise<string> => {
  const error = (await rejection(openPciIn(system, ADDRESS, options))) as VfioUserError;
  expect(error.code).toBe('ERR_VFIO_USER_CONNECT');
  return error.message;
};

test('no such device', async () => {
  expect(await refusal()).toBe(
    `no PCI device is at ${ADDRESS}; \`vfio-user devices --all\` lists those that are there`,
  );
});

test('not bound to vfio-pci', async () => {
  system.add(ADDRESS, { driver: 'nvme', group: 1 });
  expect(await refusal()).toBe(
    `${ADDRESS} cannot be opened: its driver is nvme, and VFIO's is needed. Run \`vfio-user bind ${ADDRESS}\` as root, which takes it from nvme`,
  );
});

test('without a driver', async () => {
  system.add(ADDRESS, { group: 1 });
  expect(await refusal()).toMatch(/no driver is bound to it.*Run `vfio-user bind 0000:01:00.0` as root$/);
});

test('no IOMMU', async () => {
  system.add(ADDRESS, { driver: 'vfio-pci' });
  expect(await refusal()).toMatch(/no IOMMU is in use.*intel_iommu=on/);
  system.write('sys/class/iommu/dmar0/intel-iommu/version', '1:0\n');
  expect(await refusal()).toMatch(/the kernel cannot keep it from other memory/);
});

test('no IOMMU, with the kernel told not to mind: only on demand', async () => {
  system.add(ADDRESS, { driver: 'vfio-pci', group: 0, groupName: 'vfio-noiommu' });
  expect(await refusal()).toMatch(/may write any memory of the system.*option noiommu/);
  expect(await refusal({ noiommu: true })).toMatch(/there is no .*dev\/vfio; run modprobe vfio-pci/);
});

test('no nodes of VFIO', async () => {
  system.add(ADDRESS, { driver: 'vfio-pci', group: 1 });
  expect(await refusal()).toMatch(/there is no .*dev\/vfio; run modprobe vfio-pci/);
});

test('huge pages alone, and none is free: the command that makes some', async () => {
  system.add(ADDRESS, { driver: 'vfio-pci', group: 1 });
  const dma = { hugePages: 'always' } as const;
  expect(await refusal({ dma })).toBe(
    `${ADDRESS} cannot be opened with huge pages alone (hugePages 'always'): none of 2 MiB is free. Reserve some as root, with ` +
      '`sysctl vm.nr_hugepages=64` for 128 MiB',
  );
  const pages = 'sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages';
  system.write(pages, '0\n');
  expect(await refusal({ dma })).toMatch(/none of 2 MiB is free/);
  system.write(pages, '1\n');
  expect(await refusal({ dma })).toMatch(/there is no .*dev\/vfio; run modprobe vfio-pci/);
});

test('a way that the kernel does not have', async () => {
  system.add(ADDRESS, { driver: 'vfio-pci', group: 1, vfioNode: 'vfio0' });
  expect(await refusal({ through: 'iommufd' })).toMatch(/no node in \/dev\/vfio\/devices.*through 'group'$/);
  system.write('dev/vfio/devices/vfio0', '');
  expect(await refusal({ through: 'iommufd' })).toMatch(/there is no \/dev\/iommu; run modprobe iommufd/);
});

test('a node that is something else', async () => {
  system.add(ADDRESS, { driver: 'vfio-pci', group: 1 }).write('dev/vfio/vfio', '');
  expect(await rejection(openPciIn(system, ADDRESS))).toMatchObject({
    code: 'ERR_VFIO_USER_SYSTEM',
    message: expect.stringMatching(
      /VFIO_GET_API_VERSION of .*dev\/vfio\/vfio: ioctl failed with ENOTTY/,
    ) as string,
  });
});

test.each([
  ['8388608', '0000000000000000', 8388608],
  ['unlimited', '0000000000000000', Infinity],
  ['65536', '0000000000004000', Infinity],
])('memory that may be locked: limit %s, capabilities %s', (limit, capabilities, expected) => {
  system
    .write(
      'proc/self/limits',
      `Limit   Soft Limit  Hard Limit  Units\nMax locked memory   ${limit}   ${limit}   bytes\n`,
    )
    .write('proc/self/status', `Name:\tnode\nCapEff:\t${capabilities}\n`);
  expect(lockableBytes(system.proc)).toBe(expected);
});
