// SPDX-License-Identifier: MIT
import { join } from 'node:path';
import { SYSTEM, type SystemRoots } from '../kernel/roots';

/**
 * Where the tool finds the system's directories. Tests of the tool run it with another root, so that no driver of this system
 * is changed.
 */
export function systemRoots(): SystemRoots {
  const root = process.env['VFIO_USER_SYSTEM_ROOT'];
  if (root === undefined) return SYSTEM;
  return {
    sys: join(root, SYSTEM.sys),
    dev: join(root, SYSTEM.dev),
    proc: join(root, SYSTEM.proc),
    run: join(root, SYSTEM.run),
  };
}
