// SPDX-License-Identifier: MIT

/** Where the system's own directories are. Tests put others in their place. */
export interface SystemRoots {
  /** Mount point of sysfs. */
  readonly sys: string;
  /** Directory of device nodes. */
  readonly dev: string;
  /** Mount point of procfs. */
  readonly proc: string;
  /** Directory of what lives until the next boot. */
  readonly run: string;
}

/** The directories of this system. */
export const SYSTEM: SystemRoots = { sys: '/sys', dev: '/dev', proc: '/proc', run: '/run' };
