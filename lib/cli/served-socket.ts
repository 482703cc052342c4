// SPDX-License-Identifier: MIT
import { basename, dirname, join, resolve } from 'node:path';
import { isAbstractPath } from '../native';
import type { OptionTable } from './option-spec';
import { shellWord } from './output';
import { statOf } from './output-file';
import { checkSocketFile } from './socket-permissions';

/** Name that SPDK gives the socket in a listener's directory. */
const SPDK_SOCKET = 'cntrl';

/** SPDK takes any name here but its default, which means discovery. */
const NQN = 'nqn.2019-07.io.spdk:cnode0';

/** Who may connect to a socket file. */
export const PERMISSION_OPTIONS = {
  mode: {
    type: 'string',
    placeholder: 'octal',
    help: 'Permissions of the socket file, such as 0660; who may write it may connect. Default: the umask decides.',
  },
  owner: {
    type: 'string',
    placeholder: 'user[:group]',
    help: 'Names or ids of the user and the group that the socket file is given to.',
  },
} as const satisfies OptionTable;

/**
 * Where to listen for `--socket`: SPDK's name in a directory.
 *
 * @throws UsageError for a path that no socket can have
 */
export function socketPath(given: string): string {
  checkSocketFile('--socket', given);
  if (isAbstractPath(given)) return given;
  const path = resolve(given);
  const file = statOf(path)?.isDirectory() === true ? join(path, SPDK_SOCKET) : path;
  checkSocketFile('--socket', file);
  return file;
}

/** How other programs reach an NVMe controller at a socket: lines to copy. */
export function nvmeInstructions(socket: string): string {
  const bench = `  vfio-user bench ${shellWord(socket)}`;
  if (isAbstractPath(socket)) return `\nMeasure it:\n${bench}`;
  const forSpdk = basename(socket) === SPDK_SOCKET;
  const transport = `trtype:VFIOUSER traddr:${dirname(socket)} subnqn:${NQN}`;
  return [
    '',
    'Measure it:',
    bench,
    '',
    "With SPDK's driver:",
    forSpdk
      ? `  spdk_nvme_perf -r ${shellWord(transport)} -q 32 -o 4096 -w randread -t 3 -g`
      : `  SPDK wants a directory with a socket named ${SPDK_SOCKET}: serve with --socket ${shellWord(dirname(socket))}`,
    guestInstructions(socket),
  ].join('\n');
}

/** How a virtual machine gets the device at a socket. */
export function guestInstructions(socket: string): string {
  const device = JSON.stringify({ driver: 'vfio-user-pci', socket: { type: 'unix', path: socket } });
  return [
    '',
    'In a virtual machine (QEMU 10.1 or later):',
    '  qemu-system-x86_64 -m 1G -object memory-backend-memfd,id=mem,size=1G,share=on \\',
    `    -machine q35,memory-backend=mem -device ${shellWord(device)}`,
  ].join('\n');
}
