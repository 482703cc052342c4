// SPDX-License-Identifier: MIT
import { createSharedMemory } from '../../lib/native';
import { describeGuest } from './describe-guest';
import { nodeFiles } from './node-files';

/** A drive of QEMU's own with memory behind it, which ends with the machine. */
const MEGABYTES = 32 << 20;
const backing = (id: string): string[] => {
  const fd = createSharedMemory(MEGABYTES);
  return ['-drive', `if=none,id=${id},file=/proc/${process.pid}/fd/${fd},format=raw`];
};

const DRIVES = [
  ...[
    '-device',
    'pcie-root-port,id=slot1,slot=1,chassis=1',
    '-device',
    'pcie-root-port,id=slot2,slot=2,chassis=2',
  ],
  ...[...backing('plain'), '-device', 'nvme,drive=plain,serial=PLAIN,bus=slot1'],
  // Two functions of one slot, which an IOMMU cannot tell apart.
  ...[...backing('first'), '-device', 'nvme,drive=first,serial=FIRST,bus=slot2,addr=0.0,multifunction=on'],
  ...[...backing('second'), '-device', 'nvme,drive=second,serial=SECOND,bus=slot2,addr=0.1'],
];

const files = nodeFiles();
const intel = {
  files,
  machine: [
    ...['-machine', 'kernel-irqchip=split', '-device', 'intel-iommu,intremap=on,caching-mode=on'],
    ...DRIVES,
  ],
  words: ['intel_iommu=on', 'guest.drive=none'],
};

describeGuest('the kernel’s VFIO behind an intel-iommu', { script: 'kernel-vfio', ...intel });
describeGuest('the kernel’s VFIO, and a device that goes', {
  script: 'kernel-vfio-loss',
  ...intel,
});
describeGuest('the kernel’s VFIO behind a virtio-iommu, which has no interrupt remapping', {
  script: 'kernel-vfio',
  files,
  machine: ['-device', 'virtio-iommu-pci', ...DRIVES],
  words: [
    'vfio_iommu_type1.allow_unsafe_interrupts=1',
    'iommufd.allow_unsafe_interrupts=1',
    'guest.drive=none',
  ],
});
