// SPDX-License-Identifier: MIT
import { describeGuest } from './describe-guest';

describeGuest('two processors', { script: 'drive' });
describeGuest('one processor', { script: 'drive', processors: 1 });
describeGuest('without MSI and MSI-X: its queues are polled', { script: 'drive', words: ['pci=nomsi'] });
describeGuest('behind a virtio-iommu', { script: 'drive', machine: ['-device', 'virtio-iommu-pci'] });
