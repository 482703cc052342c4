// SPDX-License-Identifier: MIT
import { createHash, randomBytes } from 'node:crypto';
import { invalidArgument, outOfRange } from '../../errors';
import type { Backend } from '../backends';

/** Options of `NvmeControllerModel`. */
export interface NvmeControllerOptions {
  /** Where the namespace keeps its data. It is closed with the controller. */
  readonly backend: Backend;
  /** Names the controller in messages. Default: `nvme` and the serial number. */
  readonly name?: string;
  /** Bytes of a logical block, 512 (default) or 4096. */
  readonly blockSize?: 512 | 4096;
  /**
   * Serial number, at most 20 printable ASCII characters. The identifiers of the namespace follow from it, so that
   * a drive that shall stay the same one across restarts needs one. Default: follows from the identity of the backend, random
   * of one that has none.
   */
  readonly serial?: string;
  /** Model number, at most 40 printable ASCII characters. Default: `vfio-user`, the kind of the backend, and `drive`. */
  readonly model?: string;
  /** Greatest transfer of a command in bytes, a power of two from 4 KiB to 1 MiB. Default 128 KiB. */
  readonly maxTransfer?: number;
  /** Greatest number of entries of an I/O queue, 2 to 65536. Default 1024. */
  readonly maxQueueEntries?: number;
  /** I/O queue pairs, 1 to 64 (default). There is an MSI-X vector for each, and one for the admin queue. */
  readonly queuePairs?: number;
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
  /** Called with the reason when the controller cannot go on (CSTS.CFS): the client sees nothing but the bit. */
  readonly onFault?: (reason: string) => void;
}

/** Options with their defaults, checked. */
export interface ResolvedOptions extends Required<NvmeControllerOptions> {
  /** Interrupt vectors: one for the admin queue, and one for each I/O queue pair. */
  readonly vectors: number;
  /** SUBNQN */
  readonly subsystemNqn: string;
}

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

/** Twelve digits that follow from what the backend is known by; by chance when nothing of it outlives the process. */
function serialOf({ identity }: Backend): string {
  const bytes = identity === undefined ? randomBytes(6) : createHash('sha256').update(identity).digest();
  return bytes.subarray(0, 6).toString('hex');
}

/** A UUID that follows from a serial number. Version 8 leaves its bits to the maker (RFC 9562, 5.8). */
export function derivedUuid(purpose: string, serial: string): string {
  const bytes = createHash('sha256').update(`vfio-user ${purpose} ${serial}`).digest().subarray(0, 16);
  bytes[6] = ((bytes[6] as number) & 0x0f) | 0x80;
  bytes[8] = ((bytes[8] as number) & 0x3f) | 0x80;
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}

/** @throws TypeError or RangeError when an option makes no sense */
export function resolveOptions(options: NvmeControllerOptions): ResolvedOptions {
  const { backend, blockSize = 512, maxTransfer = 131072, idleAfter = 10, pollSlice = 0.1 } = options;
  const serial = checkText('serial', options.serial ?? `VFU${serialOf(backend)}`, 20);
  const queuePairs = checkInteger('queuePairs', options.queuePairs ?? 64, 1, 64);
  if (![512, 4096].includes(blockSize)) throw outOfRange(`blockSize is 512 or 4096, got ${blockSize}`);
  checkInteger('maxTransfer', maxTransfer, 4096, 2 ** 20);
  if (!Number.isInteger(Math.log2(maxTransfer))) {
    throw outOfRange(`maxTransfer is a power of two, got ${maxTransfer}`);
  }
  if (!(pollSlice >= 0 && pollSlice <= 100)) {
    throw outOfRange(`pollSlice is from 0 to 100 milliseconds, got ${pollSlice}`);
  }
  if (!(idleAfter >= 0)) throw outOfRange(`idleAfter is at least 0 milliseconds, got ${idleAfter}`);
  if (blockSize < (backend.blockSize ?? 1)) {
    throw outOfRange(
      `The backend takes blocks of at least ${backend.blockSize ?? 1} bytes, and those of the namespace have ${blockSize}`,
    );
  }
  if (backend.size < blockSize) {
    throw outOfRange(`The backend has ${backend.size} bytes, which is less than one block of ${blockSize}`);
  }
  return {
    backend,
    blockSize,
    maxTransfer,
    pollSlice,
    idleAfter,
    serial,
    name: options.name ?? `nvme ${serial}`,
    model: checkText('model', options.model ?? `vfio-user ${backend.kind} drive`, 40),
    maxQueueEntries: checkInteger('maxQueueEntries', options.maxQueueEntries ?? 1024, 2, 65536),
    queuePairs,
    vectors: queuePairs + 1,
    dstrd: checkInteger('dstrd', options.dstrd ?? 0, 0, 4),
    mappableDoorbells: options.mappableDoorbells ?? true,
    onFault: options.onFault ?? (() => undefined),
    subsystemNqn: `nqn.2014-08.org.nvmexpress:uuid:${derivedUuid('subsystem', serial)}`,
  };
}
