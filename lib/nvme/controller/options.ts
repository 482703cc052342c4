// SPDX-License-Identifier: MIT
import { invalidArgument, outOfRange } from '../../errors';
import { isPowerOfTwo } from '../../power-of-two';
import type { Backend } from '../backends';
import { derivedSerial, derivedUuid } from './identifiers';
import type { NvmeNamespaceOptions } from './namespace';
import type { NamespaceStore } from './namespace-store';

/** Options of `NvmeControllerModel`. */
export interface NvmeControllerOptions {
  /** Namespaces to begin with; there may be none. `addNamespace` adds more. */
  readonly namespaces?: readonly NvmeNamespaceOptions[];
  /** In place of `namespaces`: the backend of the only one. It is closed with the controller. */
  readonly backend?: Backend;
  /** Bytes of a logical block of the namespace with `backend`, 512 (default) or 4096. */
  readonly blockSize?: 512 | 4096;
  /**
   * Greatest namespace id (NN), which is the number of namespaces that the controller may have: 1 to 1024. Some firmware asks for
   * one after the other. Default: 32, or the greatest `nsid` of `namespaces`.
   */
  readonly maxNamespaces?: number;
  /**
   * What hosts make namespaces of (Namespace Management and Attachment). Those that are made begin empty and detached, have the lowest id
   * that is free, and only they can be deleted by hosts. It is closed with the controller. Default: hosts cannot make namespaces.
   */
  readonly namespaceStore?: NamespaceStore;
  /** Names the controller in messages. Default: `nvme` and the serial number. */
  readonly name?: string;
  /**
   * Serial number, at most 20 printable ASCII characters. A drive that shall stay the same one across restarts needs one that stays.
   * Default: follows from the identity of the first backend, or, without a namespace to begin with, that of `namespaceStore`; random when
   * there is none.
   */
  readonly serial?: string;
  /** Model number, at most 40 printable ASCII characters. Default: `vfio-user`, the kind of the first backend, and `drive`. */
  readonly model?: string;
  /** NVM Subsystem NQN, at most 223 bytes of UTF-8, such as `nqn.2014-08.org.nvmexpress:uuid:…`. Default: follows from the serial number. */
  readonly nqn?: string;
  /** Greatest transfer of a command in bytes, a power of two from 4 KiB to 1 MiB. Default 128 KiB. */
  readonly maxTransfer?: number;
  /** Greatest number of entries of an I/O queue, 2 to 65536. Default 1024. */
  readonly maxQueueEntries?: number;
  /** I/O queue pairs, 1 to 64 (default). */
  readonly queuePairs?: number;
  /**
   * The interrupts that the function has. With `msix` (default) there is a vector for the admin queue and one for each I/O queue pair; `msi`
   * has at most 32, which some queues share then. Both have the pin too, for hosts that use neither; `intx` has nothing else.
   */
  readonly interrupts?: 'msix' | 'msi' | 'intx';
  /**
   * Doorbells are `4 << dstrd` bytes apart, 0 (default) to 4. With 4 each has a cache line of its own, which is
   * faster when queues are polled from several cores; but not every driver honours it.
   */
  readonly dstrd?: number;
  /** Whether clients can map the doorbells (default). Without it every doorbell is a message. */
  readonly mappableDoorbells?: boolean;
  /** Milliseconds that the loop polls before the event loop has a turn, up to 100. Default 0.1. */
  readonly pollSlice?: number;
  /**
   * Milliseconds without work after which the loop looks at the doorbells once a millisecond only; Infinity for never.
   * Default 10.
   */
  readonly idleAfter?: number;
  /** Whether the latencies of I/O commands are measured, which costs a reading of the clock for each. Default false. */
  readonly latencies?: boolean;
  /** Called with the reason when the controller cannot go on (CSTS.CFS): the client sees nothing but the bit. */
  readonly onFault?: (reason: string) => void;
  /**
   * Called with what the client sees a status code of, which does not tell why: a queue that is refused since it lies in memory that
   * the client does not share, a flush that the storage fails. Also called when it has formatted a namespace with blocks of another size,
   * which its storage does not keep, and when `namespaceStore` fails. A cause is told at once, and how often it came again once a minute.
   */
  readonly onWarning?: (reason: string) => void;
}

/** Options with their defaults, checked. */
export interface ResolvedOptions extends Required<
  Omit<NvmeControllerOptions, 'backend' | 'blockSize' | 'namespaceStore'>
> {
  readonly namespaceStore: NamespaceStore | null;
  /** Interrupt vectors that completion queues can have. */
  readonly vectors: number;
  /**
   * Whether the controller tells of a volatile write cache, as a namespace to begin with has one, or those that hosts make have. Hosts ask once, so a namespace with a
   * cache that comes later to a controller without one has its writes made durable one by one.
   */
  readonly volatileCache: boolean;
}

/** The greatest namespace id that is possible here: as many as a list of namespaces takes (NVMe base 2.0, 5.17.2.2). */
const NAMESPACE_LIMIT = 1024;
/** Vectors of MSI at most (PCI Express base 5.0, 7.7.1). */
const MSI_VECTORS = 32;
const DEFAULT_MAX_NAMESPACES = 32;
/** Most bytes of an NQN (NVMe base 2.0, 4.5). */
const NQN_BYTES = 223;

function checkInteger(name: string, value: number, least: number, most: number): number {
  if (!Number.isInteger(value) || value < least || value > most) {
    throw outOfRange(`${name} is an integer from ${least} to ${most}, got ${value}`);
  }
  return value;
}

function checkText(name: string, value: string, length: number): string {
  if (!/^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$/.test(value) || value.length > length) {
    throw invalidArgument(`${name} is 1 to ${length} printable ASCII characters, got "${value}"`);
  }
  return value;
}

/** An NQN begins with the month in which somebody had the domain that follows, reversed (NVMe base 2.0, 4.5). */
function checkNqn(nqn: string): string {
  const form = /^nqn\.\d{4}-\d{2}\.[^\s:]+(:\S+)?$/;
  if (form.test(nqn) && Buffer.byteLength(nqn) <= NQN_BYTES) return nqn;
  throw invalidArgument(
    `nqn is at most ${NQN_BYTES} bytes such as nqn.2026-01.org.example:disk1, got "${nqn}"`,
  );
}

/** The namespaces to begin with, however they were given. */
function namespacesOf({
  namespaces,
  backend,
  blockSize,
}: NvmeControllerOptions): readonly NvmeNamespaceOptions[] {
  if ((backend === undefined) === (namespaces === undefined)) {
    throw invalidArgument('A controller is given either its backend or its namespaces');
  }
  if (namespaces === undefined) return backend === undefined ? [] : [{ backend, blockSize }];
  if (blockSize !== undefined) throw invalidArgument('blockSize is given with each of the namespaces');
  return namespaces;
}

/** The vectors of a function with so many queue pairs, those of the admin commands included. */
function vectorsOf(interrupts: string, pairs: number): number {
  switch (interrupts) {
    case 'msix':
      return pairs;
    case 'msi':
      return Math.min(pairs, MSI_VECTORS);
    case 'intx':
      return 1;
    default:
      throw invalidArgument(`interrupts is msix, msi or intx, got ${interrupts}`);
  }
}

/** @throws TypeError or RangeError when an option makes no sense */
export function resolveOptions(options: NvmeControllerOptions): ResolvedOptions {
  const { maxTransfer = 131072, idleAfter = 10, pollSlice = 0.1 } = options;
  const namespaces = namespacesOf(options);
  const first = namespaces[0]?.backend;
  const store = options.namespaceStore ?? null;
  const known = first === undefined ? store?.identity : first.identity;
  const serial = checkText('serial', options.serial ?? derivedSerial(known), 20);
  const { interrupts = 'msix' } = options;
  const queuePairs = checkInteger('queuePairs', options.queuePairs ?? 64, 1, 64);
  const begun = [...namespaces, ...(store?.namespaces ?? [])];
  const greatest = Math.max(begun.length, ...begun.map(({ nsid = 0 }) => nsid));
  checkInteger('maxTransfer', maxTransfer, 4096, 2 ** 20);
  if (!isPowerOfTwo(maxTransfer)) {
    throw outOfRange(`maxTransfer is a power of two, got ${maxTransfer}`);
  }
  if (!(pollSlice >= 0 && pollSlice <= 100)) {
    throw outOfRange(`pollSlice is from 0 to 100 milliseconds, got ${pollSlice}`);
  }
  if (!(idleAfter >= 0)) throw outOfRange(`idleAfter is at least 0 milliseconds, got ${idleAfter}`);
  return {
    namespaces,
    namespaceStore: store,
    maxNamespaces: checkInteger(
      'maxNamespaces',
      options.maxNamespaces ?? Math.min(Math.max(DEFAULT_MAX_NAMESPACES, greatest), NAMESPACE_LIMIT),
      1,
      NAMESPACE_LIMIT,
    ),
    maxTransfer,
    pollSlice,
    idleAfter,
    serial,
    name: options.name ?? `nvme ${serial}`,
    model: checkText(
      'model',
      options.model ?? `vfio-user ${first === undefined ? '' : `${first.kind} `}drive`,
      40,
    ),
    nqn: checkNqn(options.nqn ?? `nqn.2014-08.org.nvmexpress:uuid:${derivedUuid('subsystem', serial)}`),
    maxQueueEntries: checkInteger('maxQueueEntries', options.maxQueueEntries ?? 1024, 2, 65536),
    queuePairs,
    interrupts,
    vectors: vectorsOf(interrupts, queuePairs + 1),
    volatileCache: store?.volatileCache === true || begun.some(({ backend }) => backend.volatileCache),
    dstrd: checkInteger('dstrd', options.dstrd ?? 0, 0, 4),
    mappableDoorbells: options.mappableDoorbells ?? true,
    latencies: options.latencies ?? false,
    onFault: options.onFault ?? (() => undefined),
    onWarning: options.onWarning ?? (() => undefined),
  };
}
