// SPDX-License-Identifier: MIT
import { createSharedMemory } from '../../lib/native';
import { describeGuest, type Scenario } from './describe-guest';
import { nodeFiles } from './node-files';
import { compiled } from './compiled';

/** A kernel with an iommufd, device nodes and the mode without an IOMMU built in; Debian's has groups only. */
const withIommufd = process.env['VFIO_KERNEL'];

/** The backing of a drive of QEMU's own, in memory that ends with this process. */
const backing = (name: string): string[] => {
  const fd = createSharedMemory(32 << 20);
  const file = { driver: 'file', filename: `/proc/${process.pid}/fd/${fd}` };
  return ['-blockdev', JSON.stringify({ driver: 'raw', 'node-name': name, file })];
};
const nvme = (name: string, properties: object): object => ({
  driver: 'nvme',
  id: `${name}-drive`,
  drive: name,
  serial: name.toUpperCase(),
  ...properties,
});
const slot = (number: number): object => ({
  driver: 'pcie-root-port',
  id: `slot${number}`,
  slot: number,
  chassis: number,
});
const PLAIN = nvme('plain', { bus: 'slot1' });
/** One virtual function, with the queues and interrupts that QEMU wants for it. */
const VIRTUAL = {
  sriov_max_vfs: 1,
  sriov_vq_flexible: 2,
  sriov_vi_flexible: 1,
  max_ioqpairs: 6,
  msix_qsize: 6,
};
const devices = (...list: object[]): string[] =>
  list.flatMap((device) => ['-device', JSON.stringify(device)]);

/**
 * QEMU's controllers: one in a slot of its own, two functions of one slot, which an IOMMU cannot tell apart, and one that has a
 * virtual function, and no namespace.
 */
const drives = (): string[] => [
  ...['plain', 'first', 'second'].flatMap(backing),
  ...devices(
    slot(1),
    slot(2),
    slot(3),
    PLAIN,
    nvme('first', { bus: 'slot2', addr: '0.0', multifunction: true }),
    nvme('second', { bus: 'slot2', addr: '0.1' }),
    { driver: 'nvme-subsys', id: 'subsystem' },
    { driver: 'nvme', serial: 'PHYSICAL', bus: 'slot3', subsys: 'subsystem', ...VIRTUAL },
  ),
];

const program = compiled('vfio-identify.c');
const files = nodeFiles();
const intel = { driver: 'intel-iommu', intremap: 'on', 'caching-mode': true };
const virtio = { driver: 'virtio-iommu-pci' };

interface Machine {
  readonly iommu: object | null;
  readonly kernel?: string | undefined;
  readonly irq?: 'msix' | 'msi';
}

function describeVfio(title: string, script: string, { iommu, kernel, irq = 'msix' }: Machine): void {
  const scenario: Scenario = {
    script,
    files,
    folder: program,
    serve: ['--size', '256m', '--serial', 'OURS', '--irq', irq],
    ...(kernel !== undefined && { kernel }),
    machine: [
      ...(iommu === intel ? ['-machine', 'kernel-irqchip=split'] : []),
      // Slots of PCI Express: with those of ACPI, QEMU tells of no link in a port, and Linux takes a reset of its bus for failed.
      ...['-global', 'ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off'],
      ...(iommu === null ? [] : devices(iommu)),
      ...drives(),
    ],
    words: [
      'guest.drive=none',
      ...(iommu === intel ? ['intel_iommu=on'] : []),
      // It does not remap interrupts.
      ...(iommu === virtio
        ? ['vfio_iommu_type1.allow_unsafe_interrupts=1', 'iommufd.allow_unsafe_interrupts=1']
        : []),
    ],
    host: () => ({
      plug: (machine) => machine.execute('device_add', PLAIN),
      unplug: (machine) => machine.unplug('plain-drive'),
    }),
  };
  describeGuest(title, scenario);
}

describeVfio('VFIO behind an intel-iommu', 'kernel-vfio', { iommu: intel });
describeVfio('VFIO behind an intel-iommu: rules', 'kernel-vfio-rules', { iommu: intel, irq: 'msi' });
describeVfio('VFIO behind an intel-iommu: loss', 'kernel-vfio-loss', { iommu: intel });
describeVfio('VFIO behind an intel-iommu: proxy', 'kernel-proxy', { iommu: intel });
describeVfio('VFIO behind a virtio-iommu', 'kernel-vfio', { iommu: virtio, kernel: withIommufd });
describeVfio('VFIO: what it costs', 'kernel-vfio-figures', { iommu: intel });

if (withIommufd === undefined)
  test.skip('VFIO by an iommufd, and without an IOMMU: skipped, VFIO_KERNEL is not set', () => {});
else {
  const kernel = withIommufd;
  describeVfio('VFIO by group and iommufd', 'kernel-vfio', { iommu: intel, kernel });
  describeVfio('VFIO by group and iommufd: rules', 'kernel-vfio-rules', { iommu: intel, kernel, irq: 'msi' });
  describeVfio('VFIO by group and iommufd: loss', 'kernel-vfio-loss', { iommu: intel, kernel });
  describeVfio('VFIO behind a virtio-iommu: rules', 'kernel-vfio-rules', {
    iommu: virtio,
    kernel,
    irq: 'msi',
  });
  describeVfio('VFIO behind a virtio-iommu: loss', 'kernel-vfio-loss', { iommu: virtio, kernel });
  describeVfio('VFIO by iommufd: proxy', 'kernel-proxy', { iommu: intel, kernel });
  describeVfio('VFIO: mediated devices', 'kernel-mdev', { iommu: null, kernel });
  describeVfio('VFIO without an IOMMU', 'kernel-noiommu', { iommu: null, kernel });
}
