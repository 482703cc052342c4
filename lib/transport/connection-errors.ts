// SPDX-License-Identifier: MIT
import { VfioUserError } from '../errors';
import { commandName } from '../protocol/constants';
import { isError } from '../protocol/header';
import type { Message } from './message-reader';
import { remoteError, type Pending } from './pending-table';

/**
 * The peer has closed the connection.
 *
 * @param partial in the middle of a message
 * @param cause the failure of a system call that told so, if any
 */
export function disconnectedError(endpoint: string, partial: boolean, cause: unknown): VfioUserError {
  const where = partial ? ' in the middle of a message' : '';
  const why = cause instanceof VfioUserError && cause.errnoName !== undefined ? ` (${cause.errnoName})` : '';
  return new VfioUserError(
    'ERR_VFIO_USER_DISCONNECTED',
    `${endpoint} closed the connection${where}${why}; it has stopped, or refused what was sent`,
    { cause },
  );
}

/** What ended the connection, for one command that suffers from it. */
export function errorFor(error: VfioUserError, command: string): VfioUserError {
  return new VfioUserError(error.code, `${command}: ${error.message}`, {
    errno: error.errno,
    command,
    cause: error,
  });
}

/** A command on a connection that this side has closed, before (`is`) or while it was pending (`was`). */
export function closedError(endpoint: string, command: string, when: 'is' | 'was'): VfioUserError {
  return new VfioUserError(
    'ERR_VFIO_USER_CLOSED',
    `${command}: the connection to ${endpoint} ${when === 'is' ? 'is closed' : 'was closed by this side'}`,
    { command },
  );
}

/** What is wrong with a reply; null when nothing is. */
export function replyError(
  endpoint: string,
  pending: Pending,
  { header, payload }: Message,
): VfioUserError | null {
  const isRight =
    header.command === pending.command && !isError(header.flags) && payload.length <= pending.maxReply;
  if (isRight) return null;
  const command = commandName(pending.command);
  const wrong = (problem: string): VfioUserError =>
    new VfioUserError('ERR_VFIO_USER_PROTOCOL', `${endpoint} answered ${command} ${problem}`, { command });
  if (header.command !== pending.command) {
    return wrong(`(message ${String(header.id)}) with a reply to ${commandName(header.command)}`);
  }
  if (isError(header.flags)) return remoteError(endpoint, command, header.error);
  return wrong(`with ${String(payload.length)} bytes; at most ${String(pending.maxReply)} were asked for`);
}
