// SPDX-License-Identifier: MIT
import { VfioUserError } from '../errors';
import { Socket, closeFd } from '../native';
import type { Capabilities } from '../protocol';
import type { FdList } from '../transport';

/**
 * Takes the socket for the server's commands out of a VERSION reply (vfio-user, VFIO_USER_VERSION, "Reply").
 *
 * @param fds the descriptors that came with the reply
 * @returns null when the server did not set one up, or was not asked to
 * @throws VfioUserError ERR_VFIO_USER_PROTOCOL when the reply is inconsistent; the connection must be closed then
 */
export function takeTwinSocket(
  endpoint: string,
  client: Readonly<Capabilities>,
  server: Readonly<Capabilities>,
  fds: FdList,
): Socket | null {
  if (!client.twinSocket.supported || !server.twinSocket.supported) return null;
  const { fdIndex } = server.twinSocket;
  if (fdIndex === undefined) throw inconsistent(endpoint, 'does not say which descriptor it is');
  const fd = fds.take(fdIndex);
  if (fd === undefined) throw inconsistent(endpoint, `names descriptor ${fdIndex} of ${fds.length}`);
  try {
    return Socket.fromFd(fd);
  } catch (cause) {
    closeFd(fd);
    throw inconsistent(endpoint, `names a descriptor that is no connected unix stream socket`, cause);
  }
}

function inconsistent(endpoint: string, problem: string, cause?: unknown): VfioUserError {
  return new VfioUserError(
    'ERR_VFIO_USER_PROTOCOL',
    `${endpoint} answered VERSION with a twin socket, but ${problem}; its commands could not be received. Connect without twinSocket`,
    { command: 'VERSION', cause },
  );
}
