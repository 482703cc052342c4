// SPDX-License-Identifier: MIT
import { basename, dirname, join, resolve } from 'node:path';
import { formatSize } from '../bench/units';
import { isAbstractPath } from '../native';
import { BACKEND_FORM, type BackendText, parseBackend } from './backend-text';
import { defineCommand } from './command';
import { aborted, interruptible } from './interrupt';
import { startNvmeServer } from './nvme-server';
import { UsageError, type CommandSpec, type OptionValues } from './option-spec';
import { print, shellWord } from './output';
import { statOf } from './output-file';
import { socketPermissions } from './socket-permissions';

/** Name that SPDK gives the socket in a listener's directory. */
const SPDK_SOCKET = 'cntrl';
/** SPDK takes any name here but its default, which means discovery. */
const NQN = 'nqn.2019-07.io.spdk:cnode0';

const SPEC = {
  name: 'serve nvme',
  summary: 'Serve an emulated NVMe controller for SPDK, QEMU and this tool.',
  options: {
    socket: {
      type: 'string',
      placeholder: 'path',
      help: 'Where to listen: a path, @name for an abstract socket, or a directory, in which the socket is named cntrl as SPDK wants it.',
    },
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
    'idle-timeout': {
      type: 'duration',
      min: 0.001,
      help: 'Disconnect a client that does nothing for this long while another waits. Default: a client keeps its place.',
    },
    backend: {
      type: 'string',
      placeholder: 'backend',
      default: 'memory',
      help: `Where the data is: ${BACKEND_FORM}.`,
    },
    size: {
      type: 'size',
      min: 512,
      help: 'Size of the namespace, a multiple of the block size. Default: 1g, or that of the file.',
    },
    file: {
      type: 'string',
      placeholder: 'path',
      help: 'File or block device of the file backend; with --size it is created.',
    },
    'block-size': {
      type: 'choice',
      choices: ['512', '4096'],
      default: '512',
      help: 'Bytes of a logical block.',
    },
    dstrd: {
      type: 'integer',
      min: 0,
      max: 4,
      help: 'Doorbell stride: doorbells are 4 << dstrd bytes apart; 4 gives each a cache line of its own. Default: 0.',
    },
    queues: { type: 'integer', min: 1, max: 64, help: 'I/O queue pairs. Default: 64.' },
  },
} as const satisfies CommandSpec;

type Options = OptionValues<typeof SPEC>;

/** `vfio-user serve nvme` */
export const serveNvme = defineCommand(SPEC, async (options) => {
  if (options.socket === undefined)
    throw new UsageError('Missing --socket: the path to listen at, or a directory for it');
  const socket = socketPath(options.socket);
  const blockSize = options['block-size'] === '512' ? 512 : 4096;
  const backend = backendOptions(options, blockSize);
  const permissions = socketPermissions(socket, options.mode, options.owner);
  const idle = options['idle-timeout'];
  await interruptible(async (signal) => {
    const server = await startNvmeServer({
      socket,
      ...permissions,
      idleTimeout: idle === undefined ? undefined : idle * 1000,
      backend,
      blockSize,
      dstrd: options.dstrd,
      queuePairs: options.queues,
      signal,
    });
    try {
      print(
        `Serving an NVMe controller at ${socket}: ${formatSize(server.size)}, blocks of ${blockSize} bytes, ${server.kind} backend.`,
      );
      if (isAbstractPath(socket))
        print(
          "An abstract socket has no permissions: only processes of this server's user and of root are served.",
        );
      print(instructions(socket));
      await aborted(signal);
    } finally {
      await server.close();
    }
  });
});

function socketPath(given: string): string {
  if (given.startsWith('@')) return given;
  const path = resolve(given);
  return statOf(path)?.isDirectory() === true ? join(path, SPDK_SOCKET) : path;
}

function backendOptions(options: Options, blockSize: number): BackendText {
  const { backend: text, size, file } = options;
  const { backend } = parseBackend(text, { size, file });
  if (file !== undefined && backend.kind !== 'file') {
    throw new UsageError(`--file goes with --backend file, not with --backend ${text}`);
  }
  if (backend.kind !== 'nbd' && backend.kind !== 'module' && (backend.size ?? 0) % blockSize !== 0) {
    throw new UsageError(
      `A --size of ${backend.size ?? 0} bytes is no multiple of the block size, ${blockSize}`,
    );
  }
  return backend;
}

/** How other programs reach the socket: lines to copy. */
function instructions(socket: string): string {
  const bench = `  vfio-user bench ${shellWord(socket)}`;
  if (socket.startsWith('@')) return `\nMeasure it:\n${bench}\n\nCtrl-C ends it.`;
  const forSpdk = basename(socket) === SPDK_SOCKET;
  const transport = `trtype:VFIOUSER traddr:${dirname(socket)} subnqn:${NQN}`;
  const device = JSON.stringify({ driver: 'vfio-user-pci', socket: { type: 'unix', path: socket } });
  return [
    '',
    'Measure it:',
    bench,
    '',
    "With SPDK's driver:",
    forSpdk
      ? `  spdk_nvme_perf -r ${shellWord(transport)} -q 32 -o 4096 -w randread -t 3 -g`
      : `  SPDK wants a directory with a socket named ${SPDK_SOCKET}: serve with --socket ${shellWord(dirname(socket))}`,
    '',
    'In a virtual machine (QEMU 10.1 or later):',
    '  qemu-system-x86_64 -m 1G -object memory-backend-memfd,id=mem,size=1G,share=on \\',
    `    -machine q35,memory-backend=mem -device ${shellWord(device)}`,
    '',
    'Ctrl-C ends it.',
  ].join('\n');
}
