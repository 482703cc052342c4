// SPDX-License-Identifier: MIT
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describeGuest } from './describe-guest';

// It runs in the guest, whose C library is another one.
const folder = mkdtempSync(join(tmpdir(), 'guest-vfio-'));
afterAll(() => {
  rmSync(folder, { recursive: true });
});
const program = join(__dirname, 'programs/vfio-identify.c');
const options = ['-std=gnu11', '-Wall', '-Wextra', '-Werror', '-O1', '-static'];
execFileSync('cc', [...options, '-o', join(folder, 'vfio-identify'), program]);

describeGuest("the guest's own vfio-pci", {
  script: 'vfio',
  folder,
  machine: ['-device', 'virtio-iommu-pci'],
});
