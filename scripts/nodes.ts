// SPDX-License-Identifier: MIT
import { join } from 'node:path';
import { tool } from './tool';

/** A version of each Node.js that is supported, by major version. */
export const NODES: Readonly<Record<string, string>> = {
  20: '20.20.2',
  22: '22.23.3',
  24: '24.21.0',
  26: '26.12.1',
};

/** The directory with the binary of a version of Node.js; the packages are those of nodejs.org's binaries. */
export function nodeDirectory(version: string, arch: string = process.arch): string {
  return join(tool(`node-linux-${arch}@${version}`), 'bin');
}
