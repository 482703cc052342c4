// SPDX-License-Identifier: MIT
/** The options of `serve nvme`, and the controller that they tell of. */
import { resolve } from 'node:path';
import { checkFault } from '../nvme/faults';
import { isPowerOfTwo } from '../power-of-two';
import { BACKEND_FORM, parseBackend } from './backend-text';
import { NAMESPACE_FORM, type NamespaceText, checkSize, parseNamespace } from './namespace-text';
import type { NvmeServerOptions } from './nvme-server';
import { UsageError, canonical, type CommandSpec, type OptionValues } from './option-spec';
import { PERMISSION_OPTIONS, socketPath } from './served-socket';
import { checkSocketFile, socketPermissions, type SocketPermissions } from './socket-permissions';

const GROUPS = {
  identity: 'Identity',
  queues: 'Queues and interrupts',
  faults: 'Faults',
  watching: 'Watching',
} as const;

export const SERVE_NVME = {
  name: 'serve nvme',
  summary: 'Serve emulated NVMe controllers for SPDK, QEMU and this tool.',
  options: {
    socket: {
      type: 'string',
      placeholder: 'path',
      aliases: ['socket-path'],
      help: 'Where to listen: a path, @name for an abstract socket, or a directory, in which the socket is named cntrl as SPDK wants it. Each further --socket begins one more controller, which the options behind it belong to; those before the first are for all.',
    },
    fd: {
      type: 'integer',
      min: 3,
      help: 'A unix socket that this process was started with, in place of --socket: one that listens, such as 3 of systemd, or one that is connected to the client, with which the controller ends.',
    },
    ...PERMISSION_OPTIONS,
    'idle-timeout': {
      type: 'duration',
      min: 0.001,
      help: 'Disconnect a client that does nothing for this long while another waits. Default: a client keeps its place.',
    },
    backend: {
      type: 'string',
      placeholder: 'backend',
      help: `Where the data of the only namespace is: ${BACKEND_FORM}. Default: memory.`,
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
      help: 'Bytes of a logical block. Default: 512.',
    },
    namespace: {
      type: 'string',
      placeholder: 'namespace',
      many: true,
      help: `A namespace, in place of --backend, --size, --file and --block-size: ${NAMESPACE_FORM}.`,
    },
    'max-namespaces': {
      type: 'integer',
      min: 1,
      max: 1024,
      help: 'Greatest namespace id. Default: 32, or the greatest that is used.',
    },
    capacity: {
      type: 'size',
      min: 512,
      help: 'Bytes that hosts make namespaces of, as nvme create-ns does (Namespace Management): of memory, or with --store of files. Without another namespace there is none to begin with. Default: hosts cannot make any, or as many as with --store before.',
    },
    store: {
      type: 'string',
      placeholder: 'folder',
      help: 'Folder that keeps the namespaces which hosts make, and their data, for the next time. It is made when it is not there; --capacity tells how large a new one is, or changes it. Default: they are gone with the process.',
    },
    serial: {
      type: 'string',
      placeholder: 'text',
      group: GROUPS.identity,
      help: 'Serial number, at most 20 characters. Default: follows from the path of the first file, else by chance.',
    },
    model: {
      type: 'string',
      placeholder: 'text',
      group: GROUPS.identity,
      help: 'Model number, at most 40 characters. Default: vfio-user, the kind of the first backend, and drive.',
    },
    nqn: {
      type: 'string',
      placeholder: 'nqn',
      group: GROUPS.identity,
      help: 'NVM Subsystem NQN, such as nqn.2026-01.org.example:disk1. Default: follows from the serial number.',
    },
    queues: {
      type: 'integer',
      min: 1,
      max: 64,
      group: GROUPS.queues,
      help: 'I/O queue pairs. Default: 64.',
    },
    'max-entries': {
      type: 'integer',
      min: 2,
      max: 65536,
      group: GROUPS.queues,
      help: 'Most entries of a queue. Default: 1024.',
    },
    mdts: {
      type: 'size',
      min: 4096,
      max: 2 ** 20,
      group: GROUPS.queues,
      help: 'Most bytes of a command, a power of two. Default: 128k.',
    },
    irq: {
      type: 'choice',
      choices: ['msix', 'msi', 'intx'],
      default: 'msix',
      group: GROUPS.queues,
      help: 'Interrupts of the function; the pin is there with all of them. QEMU 11.1 ends when a device with MSI-X is unplugged: take msi for that.',
    },
    doorbells: {
      type: 'choice',
      choices: ['mapped', 'trapped'],
      default: 'mapped',
      group: GROUPS.queues,
      help: 'Whether clients can map the doorbells, or send a message for each.',
    },
    dstrd: {
      type: 'integer',
      min: 0,
      max: 4,
      group: GROUPS.queues,
      help: 'Doorbell stride: doorbells are 4 << dstrd bytes apart; 4 gives each a cache line of its own. Default: 0.',
    },
    fault: {
      type: 'string',
      placeholder: 'fault',
      many: true,
      group: GROUPS.faults,
      help: 'Fail on demand, as on=write,nth=10,status=write-fault or on=read,lba=0-7,delay=2s do; docs/faults.md has the grammar.',
    },
    control: {
      type: 'string',
      placeholder: 'path',
      group: GROUPS.faults,
      help: 'Take commands at a socket of its own while the controller is served: faults, namespaces, statistics. It has the permissions of the other socket.',
    },
    metrics: {
      type: 'string',
      placeholder: 'port or path',
      group: GROUPS.watching,
      help: 'Serve metrics for Prometheus at http://127.0.0.1:PORT/metrics, or on a unix socket. For all controllers.',
    },
    latencies: {
      type: 'boolean',
      group: GROUPS.watching,
      help: 'Measure how long I/O commands take, from their fetch to their completion: statistics and metrics tell it then. It costs about 60 ns a command.',
    },
  },
  examples: [
    ['serve nvme --socket nvme.sock --backend file=disk.img', 'A drive of a file'],
    [
      'serve nvme --socket nvme.sock --namespace file=a.img --namespace file=b.img,bs=4096',
      'A controller with two namespaces',
    ],
    [
      'serve nvme --socket nvme.sock --control ctl.sock --fault on=write,nth=10,status=write-fault',
      'A drive whose tenth write fails, and that takes commands',
    ],
    [
      'serve nvme --socket nvme.sock --capacity 8g',
      'A drive without namespaces, which hosts make of 8 GiB of memory',
    ],
    [
      'serve nvme --socket nvme.sock --store /srv/drive --capacity 1t',
      'The same, whose namespaces are there the next time',
    ],
    ['serve nvme --size 4g --socket a.sock --serial A --socket b.sock --serial B', 'Two drives in memory'],
  ],
} as const satisfies CommandSpec;

/** The options of the only namespace. */
const SINGLE_NAMESPACE = ['backend', 'size', 'file', 'block-size'] as const;

/** The values of the options of one controller. */
export type ServeNvmeOptions = OptionValues<typeof SERVE_NVME>;

/**
 * The arguments for each controller: those behind a `--socket` or `--fd` belong to it, and those before the first to all.
 *
 * @returns at least one list
 */
export function controllerArguments(args: readonly string[]): string[][] {
  const end = args.indexOf('--');
  const names: readonly string[] = ['socket', 'fd', ...SERVE_NVME.options.socket.aliases].map(canonical);
  const starts = args.flatMap((arg, index) => {
    const [, name = ''] = /^--([^=]+)/.exec(arg) ?? [];
    return names.includes(canonical(name)) && (end < 0 || index < end) ? [index] : [];
  });
  if (starts.length < 2) return [[...args]];
  const common = args.slice(0, starts[0]);
  return starts.map((start, index) => [...common, ...args.slice(start, starts[index + 1])]);
}

/**
 * The controller that options tell of.
 *
 * @throws UsageError for what makes no sense
 */
export function controllerOptions(options: ServeNvmeOptions): NvmeServerOptions {
  const { fd } = options;
  const socket = fd === undefined ? socketPath(neededSocket(options.socket)) : `fd ${fd}`;
  const idle = options['idle-timeout'];
  const { capacity, store, mdts, serial, model, nqn, dstrd, queues, doorbells, irq, latencies } = options;
  if (mdts !== undefined && !isPowerOfTwo(mdts))
    throw new UsageError(`An --mdts of ${mdts} bytes is no power of two`);
  return {
    socket,
    fd,
    ...permissions(options, socket),
    idleTimeout: idle === undefined ? undefined : idle * 1000,
    namespaces: namespacesOf(options),
    store: store === undefined && capacity === undefined ? undefined : { folder: folderOf(store), capacity },
    faults: checkedFaults(options.fault),
    control: controlPath(options.control),
    controller: {
      serial,
      model,
      nqn,
      dstrd,
      queuePairs: queues,
      interrupts: irq,
      maxTransfer: mdts,
      maxQueueEntries: options['max-entries'],
      maxNamespaces: options['max-namespaces'],
      mappableDoorbells: doorbells === 'mapped',
      latencies,
    },
  };
}

function neededSocket(path: string | undefined): string {
  if (path !== undefined) return path;
  throw new UsageError('Missing --socket: the path to listen at, or a directory for it; or --fd');
}

function permissions({ fd, control, mode, owner }: ServeNvmeOptions, socket: string): SocketPermissions {
  if (fd !== undefined && control === undefined && (mode !== undefined || owner !== undefined))
    throw new UsageError('--mode and --owner are for socket files that are made here, and --fd makes none');
  return socketPermissions(socket, mode, owner);
}

/** Faults that make sense. */
function checkedFaults(faults: readonly string[]): readonly string[] {
  for (const fault of faults) {
    try {
      checkFault(fault);
    } catch (error) {
      throw new UsageError(`Option --fault: ${(error as Error).message}`);
    }
  }
  return faults;
}

function controlPath(given: string | undefined): string | undefined {
  if (given?.startsWith('@') === true)
    throw new UsageError(
      `--control is the path of a socket file; the abstract socket ${given} would have no permissions`,
    );
  if (given === undefined) return undefined;
  checkSocketFile('--control', given);
  const path = resolve(given);
  checkSocketFile('--control', path);
  return path;
}

function namespacesOf(options: ServeNvmeOptions): NamespaceText[] {
  if (options.namespace.length > 0) return manyNamespaces(options);
  const isGiven = SINGLE_NAMESPACE.some((name) => options[name] !== undefined);
  const areMade = options.capacity !== undefined || options.store !== undefined;
  return isGiven || !areMade ? [onlyNamespace(options)] : [];
}

function folderOf(store: string | undefined): string | undefined {
  if (store === '') throw new UsageError('--store is the path of a folder, and was given an empty one');
  return store;
}

function manyNamespaces(options: ServeNvmeOptions): NamespaceText[] {
  for (const name of SINGLE_NAMESPACE) {
    if (options[name] !== undefined)
      throw new UsageError(`--${name} is for a single namespace; with --namespace it is part of that`);
  }
  return options.namespace.map(parseNamespace);
}

function onlyNamespace(options: ServeNvmeOptions): NamespaceText {
  const { backend: text = 'memory', size, file } = options;
  const { backend } = parseBackend(text, { size, file });
  if (file !== undefined && backend.kind !== 'file')
    throw new UsageError(`--file goes with --backend file, not with --backend ${text}`);
  const blockSize = options['block-size'] === '4096' ? 4096 : 512;
  checkSize('--size', backend, blockSize);
  return { backend, blockSize };
}
