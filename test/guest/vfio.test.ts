// SPDX-License-Identifier: MIT
import { compiled } from './compiled';
import { describeGuest } from './describe-guest';

describeGuest("the guest's own vfio-pci", {
  script: 'vfio',
  folder: compiled('vfio-identify.c'),
  machine: ['-device', 'virtio-iommu-pci'],
});
