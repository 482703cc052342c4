// SPDX-License-Identifier: MIT
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { mount, unmount } from '../support/mount';
import { describeGuest } from './describe-guest';

const folder = mkdtempSync(join(tmpdir(), 'guest-full-'));
const mounted = mount(folder, 'tmpfs', 16 << 20);
afterAll(() => {
  if (mounted) unmount(folder);
  rmSync(folder, { recursive: true });
});

const file = ['--backend', 'file', '--file', join(folder, 'drive'), '--size', '256m'];
if (mounted) describeGuest('a drive on storage that is full', { script: 'full', serve: file });
else test.skip('a drive on storage that is full: skipped, mounting a tmpfs needs root', () => {});
