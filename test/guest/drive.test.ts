// SPDX-License-Identifier: MIT
import { describeGuest } from './describe-guest';

describeGuest('two processors', { script: 'drive', processors: 2 });
describeGuest('one processor', { script: 'drive' });
describeGuest('without MSI and MSI-X: its queues are polled', { script: 'drive', words: ['pci=nomsi'] });
describeGuest('behind a virtio-iommu', { script: 'drive', machine: ['-device', 'virtio-iommu-pci'] });
describeGuest('behind an intel-iommu', {
  script: 'drive',
  machine: ['-device', 'intel-iommu,caching-mode=on'],
  words: ['intel_iommu=on'],
});
