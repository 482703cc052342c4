// SPDX-License-Identifier: MIT
import { debuglog } from 'node:util';
import { VfioUserError, type VfioUserErrorCode } from '../errors';
import { UsageError } from './option-spec';
import { complain } from './output';

/** Exit statuses of the tool; a signal that ends it before there is anything to tell adds its number to 128. */
export const ExitCode = { ok: 0, failed: 1, usage: 2, transport: 3, interrupted: 4 } as const;

/** What went wrong between the device's server and us, rather than in the device. */
const TRANSPORT: ReadonlySet<VfioUserErrorCode> = new Set<VfioUserErrorCode>([
  'ERR_VFIO_USER_CONNECT',
  'ERR_VFIO_USER_BUSY',
  'ERR_VFIO_USER_TIMEOUT',
  'ERR_VFIO_USER_DISCONNECTED',
  'ERR_VFIO_USER_VERSION',
  'ERR_VFIO_USER_PROTOCOL',
  'ERR_VFIO_USER_CLOSED',
]);

/** Codes of `TypeError` and `RangeError` for values that make no sense. */
const MISUSE: ReadonlySet<unknown> = new Set(['ERR_OUT_OF_RANGE', 'ERR_INVALID_ARG_VALUE']);

/** A signal ended the command before it had anything to tell. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted';
  readonly exitCode: number;

  /** @param number of the signal */
  constructor(signal: NodeJS.Signals, number: number) {
    super(`interrupted by ${signal}`);
    this.exitCode = 128 + number;
  }
}

/**
 * Exit status for an error.
 *
 * @internal Exported for its test.
 */
export function exitCodeOf(error: unknown): number {
  if (error instanceof UsageError || error instanceof Interrupted) return error.exitCode;
  if (error instanceof VfioUserError) return TRANSPORT.has(error.code) ? ExitCode.transport : ExitCode.failed;
  return MISUSE.has(property(error, 'code')) ? ExitCode.usage : ExitCode.failed;
}

/** Tells of an error in one line on stderr, and sets the exit status. With `NODE_DEBUG=vfio-user` its stack follows. */
export function reportFailure(error: unknown): void {
  process.exitCode = exitCodeOf(error);
  complain(String(property(error, 'message') ?? error));
  if (debuglog('vfio-user').enabled) process.stderr.write(`${String(property(error, 'stack'))}\n`);
}

function property(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}
