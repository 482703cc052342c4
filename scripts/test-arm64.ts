// SPDX-License-Identifier: MIT
/**
 * Runs the native tests with the prebuilt addon for arm64, and Node.js of that architecture, under qemu-user. Debian:
 * `apt install g++-aarch64-linux-gnu qemu-user-static`.
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { NODES, nodeDirectory } from './nodes';
import { tool } from './tool';

/** Libraries of arm64 in Debian's cross compiler. */
const LIBRARIES = '/usr/aarch64-linux-gnu';
/** qemu-user maps files of huge pages at addresses that the kernel refuses, keeps advice to itself, and answers ioctls of VFIO with ENOSYS. */
const NOT_EMULATED = [
  'huge pages can be sealed',
  'whole huge pages of what is asked for may be taken',
  'a descriptor of something else is told',
  'a reset answers as a promise',
  'nodes that are missing, or something else',
];

const directory = mkdtempSync(join(tmpdir(), 'vfio-user-arm64-'));
try {
  const node = join(directory, 'node');
  const preload = join(directory, 'exec-path.cjs');
  // The kernel cannot start a binary of arm64 by itself: what tests start is the emulator.
  writeFileSync(preload, `process.execPath = ${JSON.stringify(node)};`);
  const binary = join(nodeDirectory(NODES['20'] as string, 'arm64'), 'node');
  writeFileSync(node, `#!/bin/sh\nexec qemu-aarch64-static -L ${LIBRARIES} ${binary} -r ${preload} "$@"\n`);
  chmodSync(node, 0o755);
  const jest = require.resolve('jest/bin/jest');
  const names = `^(?!.*(${NOT_EMULATED.join('|')}))`;
  const options = ['--runInBand', '--watchman=false', '--testNamePattern', names, ...process.argv.slice(2)];
  const { overrides } = JSON.parse(readFileSync('package.json', 'utf8')) as {
    overrides: { 'unrs-resolver': string };
  };
  const { status } = spawnSync(node, [jest, 'test/native', ...options], {
    stdio: 'inherit',
    env: {
      ...process.env,
      PREBUILDS_ONLY: '1',
      // Jest's resolver is native as well.
      NAPI_RS_NATIVE_LIBRARY_PATH: join(
        tool(`@unrs/resolver-binding-linux-arm64-gnu@${overrides['unrs-resolver']}`),
        'resolver.linux-arm64-gnu.node',
      ),
    },
  });
  process.exitCode = status ?? 1;
} finally {
  rmSync(directory, { recursive: true });
}
