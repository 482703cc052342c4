// SPDX-License-Identifier: MIT
import { VfioUserError, errnoName } from '../errors';
import { commandName } from '../protocol/commands';
import { isError } from '../protocol/header';
import type { Message } from './incoming';

/**
 * The peer has closed the connection.
 *
 * @param partial whether that was in the middle of a message
 * @param cause the error of the system call that failed, if one did
 */
export function disconnectedError(endpoint: string, partial: boolean, cause: unknown): VfioUserError {
  if (cause instanceof VfioUserError && cause.errnoName === 'EMFILE') {
    return new VfioUserError(
      'ERR_VFIO_USER_DISCONNECTED',
      `the connection to ${endpoint} was given up: descriptors came with a message, and this process may open no more (EMFILE); ` +
        'raise its limit (ulimit -n)',
      { errno: cause.errno, cause },
    );
  }
  const where = partial ? ' in the middle of a message' : '';
  const why = cause instanceof VfioUserError && cause.errnoName !== undefined ? ` (${cause.errnoName})` : '';
  return new VfioUserError(
    'ERR_VFIO_USER_DISCONNECTED',
    `${endpoint} closed the connection${where}${why}; it has stopped, or refused what was sent`,
    { cause },
  );
}

/** The peer sent what ends the connection: a protocol error that says who it was. */
export function violation(endpoint: string, error: VfioUserError): VfioUserError {
  return new VfioUserError(error.code, `${endpoint} broke the protocol: ${error.message}`, {
    errno: error.errno,
    command: error.command,
    cause: error,
  });
}

/**
 * The error of one command that failed because the connection ended with `error`.
 *
 * @param unsure whether the peer may have carried it out
 */
export function errorFor(error: VfioUserError, command: string, unsure = false): VfioUserError {
  const text = unsure ? `${error.message}. It may or may not have been carried out` : error.message;
  return new VfioUserError(error.code, `${command}: ${text}`, {
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
  pending: { readonly command: number; readonly maxReply: number },
  { header, payload }: Message,
): VfioUserError | null {
  const isRight =
    header.command === pending.command && !isError(header.flags) && payload.length <= pending.maxReply;
  if (isRight) return null;
  const command = commandName(pending.command);
  const wrong = (problem: string): VfioUserError =>
    new VfioUserError('ERR_VFIO_USER_PROTOCOL', `${endpoint} answered ${command} ${problem}`, { command });
  if (header.command !== pending.command) {
    return wrong(`(message ${header.id}) with a reply to ${commandName(header.command)}`);
  }
  if (isError(header.flags)) return remoteError(endpoint, command, header.error);
  return wrong(`with ${payload.length} bytes; at most ${pending.maxReply} were asked for`);
}

/** The error that the peer answered a command with; its errno may be 0. */
function remoteError(endpoint: string, command: string, errno: number): VfioUserError {
  const told = errno === 0 ? 'an error without an errno' : errnoName(errno);
  return new VfioUserError('ERR_VFIO_USER_REMOTE', `${endpoint} refused ${command}: ${told}`, {
    errno,
    command,
  });
}
