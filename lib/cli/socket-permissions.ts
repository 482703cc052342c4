// SPDX-License-Identifier: MIT
import { execFileSync } from 'node:child_process';
import { asError } from '../errors';
import { checkSocketPath, isAbstractPath } from '../native';
import type { SocketOwner } from '../server';
import { UsageError } from './option-spec';

/** Permissions of a socket file, and whose it is; undefined where the command line does not say. */
export interface SocketPermissions {
  readonly mode: number | undefined;
  readonly owner: SocketOwner | undefined;
}

/**
 * Checks that a socket can be at a path.
 *
 * @param what names it in the message
 * @throws UsageError
 */
export function checkSocketFile(what: string, path: string): void {
  try {
    checkSocketPath(path);
  } catch (error) {
    throw new UsageError(`${what}: ${asError(error).message}`);
  }
}

/**
 * Reads `--mode` and `--owner`.
 *
 * @throws UsageError for what makes no sense, names that are not known, and a socket without a file
 */
export function socketPermissions(
  socket: string,
  mode: string | undefined,
  owner: string | undefined,
): SocketPermissions {
  if (isAbstractPath(socket) && (mode !== undefined || owner !== undefined))
    throw new UsageError(
      `--mode and --owner are for socket files; the abstract socket ${socket} has no permissions`,
    );
  return {
    mode: mode === undefined ? undefined : parseMode(mode),
    owner: owner === undefined ? undefined : parseOwner(owner),
  };
}

function parseMode(text: string): number {
  if (!/^0?[0-7]{3}$/.test(text))
    throw new UsageError(
      `Option --mode does not accept '${text}'; it takes three octal digits, such as 0660`,
    );
  return parseInt(text, 8);
}

function parseOwner(text: string): SocketOwner {
  const [user = '', group, more] = text.split(':');
  if (user === '' || group === '' || more !== undefined)
    throw new UsageError(`Option --owner does not accept '${text}'; it takes a user, or USER:GROUP`);
  const uid = lookUp('passwd', user);
  return group === undefined ? { uid } : { uid, gid: lookUp('group', group) };
}

/** Finds the id of a user or group as the system does, in whatever database it is. */
function lookUp(database: 'passwd' | 'group', name: string): number {
  const kind = database === 'passwd' ? 'user' : 'group';
  // 2^32 - 1 is chown's word for no change.
  if (/^\d{1,10}$/.test(name) && Number(name) < 2 ** 32 - 1) return Number(name);
  let entry = '';
  try {
    if (!name.startsWith('-'))
      entry = execFileSync('getent', [database, name], {
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'ignore'],
      });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT')
      throw new UsageError(
        `The ${kind} '${name}' of --owner cannot be looked up without getent; give its id`,
      );
  }
  const id = entry.split(':')[2];
  if (id === undefined) throw new UsageError(`Option --owner: there is no ${kind} '${name}'`);
  return Number(id);
}
