// SPDX-License-Identifier: MIT
import { performance } from 'node:perf_hooks';
import { VfioUserError } from '../errors';
import type { Socket } from '../native';
import {
  Command,
  HEADER_SIZE,
  PROTOCOL_MAJOR,
  PROTOCOL_MINOR,
  decodeVersion,
  defaultCapabilities,
  encodeVersion,
  negotiateCapabilities,
  type Capabilities,
} from '../protocol';
import { Connection, type CommandReply, type IncomingCommand } from '../transport';
import { busyError, endpointName, openSocket, type Endpoint } from './endpoint';
import type { Negotiated } from './negotiated';
import { takeTwinSocket } from './twin-socket';

/** How each connection of a device is opened. Times are in milliseconds. */
export interface OpenOptions {
  readonly endpoint: Endpoint;
  /** For the connection and the version negotiation together. */
  readonly connectTimeout: number;
  readonly messageTimeout: number;
  readonly twinSocket: boolean;
  /** Serves the server's commands, which may come by a twin socket. */
  readonly onCommand: (
    connection: Connection,
    command: IncomingCommand,
  ) => CommandReply | Promise<CommandReply>;
  /** As that of `Connection`. */
  readonly onClose: (connection: Connection, error: VfioUserError | null, acting: number) => void;
}

/** A connection that has been negotiated. */
export interface OpenConnection {
  readonly connection: Connection;
  readonly negotiated: Negotiated;
}

/** What this client announces (vfio-user, "Version"). */
export const CLIENT_CAPABILITIES: Capabilities = {
  ...defaultCapabilities(),
  maxMsgFds: 16,
  writeMultiple: true,
};

/** Room for the largest transfer and its fixed part, and for replies that are not transfers. */
const MAX_MESSAGE = HEADER_SIZE + (1 << 20) + (1 << 16);

/**
 * Opens a connection to a server, with its twin socket, and negotiates.
 *
 * @throws VfioUserError ERR_VFIO_USER_CONNECT, BUSY, TIMEOUT, VERSION, DISCONNECTED or PROTOCOL; the reason of `signal`
 */
export async function openConnection(options: OpenOptions, signal?: AbortSignal): Promise<OpenConnection> {
  const { endpoint, messageTimeout, twinSocket, onCommand, onClose } = options;
  const deadline = performance.now() + options.connectTimeout;
  const name = endpointName(endpoint);
  const socket = await openSocket(endpoint, deadline, signal);
  const common = {
    messageTimeout,
    maxMessageSize: MAX_MESSAGE,
    role: 'client' as const,
    onCommand: (command: IncomingCommand) => onCommand(connection, command),
  };
  const connection: Connection = new Connection(socket, {
    ...common,
    name,
    onClose: (error, acting) => {
      onClose(connection, error, acting);
    },
  });
  try {
    const client = { ...CLIENT_CAPABILITIES, twinSocket: { supported: twinSocket } };
    const { negotiated, twin } = await negotiate(connection, client, deadline, signal);
    if (twin !== null) {
      connection.pairWith(
        new Connection(twin, {
          ...common,
          name: `${name} (twin socket)`,
          // The server's commands come by this socket, so that the device cannot work without it.
          onClose: (error) => {
            if (error !== null) connection.close(error);
          },
        }),
      );
    }
    return { connection, negotiated };
  } catch (error) {
    connection.close();
    throw error;
  }
}

async function negotiate(
  connection: Connection,
  client: Capabilities,
  deadline: number,
  signal?: AbortSignal,
): Promise<{ negotiated: Negotiated; twin: Socket | null }> {
  let reply;
  try {
    const request = {
      command: Command.version,
      payload: encodeVersion(PROTOCOL_MAJOR, PROTOCOL_MINOR, client),
      timeout: Math.max(1, deadline - performance.now()),
    };
    reply = await connection.request(request, signal);
  } catch (error) {
    if (error instanceof VfioUserError && error.code === 'ERR_VFIO_USER_TIMEOUT')
      throw busyError(connection.name, error);
    if (error instanceof VfioUserError && error.code === 'ERR_VFIO_USER_DISCONNECTED') {
      throw new VfioUserError(
        'ERR_VFIO_USER_VERSION',
        `${connection.name} closed the connection instead of answering VERSION ${PROTOCOL_MAJOR}.${PROTOCOL_MINOR}: ` +
          'it speaks another version of vfio-user, needs a capability that this client lacks, or is not a vfio-user server',
        { command: 'VERSION', cause: error },
      );
    }
    throw error;
  }
  try {
    const version = decodeVersion(reply.payload);
    if (version.major !== PROTOCOL_MAJOR || version.minor > PROTOCOL_MINOR) {
      throw new VfioUserError(
        'ERR_VFIO_USER_VERSION',
        `${connection.name} speaks vfio-user ${version.major}.${version.minor}; ` +
          `this client speaks ${PROTOCOL_MAJOR}.${PROTOCOL_MINOR} and older minor versions of ${PROTOCOL_MAJOR}`,
        { command: 'VERSION' },
      );
    }
    const negotiated = {
      major: version.major,
      minor: version.minor,
      client,
      server: version.capabilities,
      serverJson: version.raw,
      limits: negotiateCapabilities(client, version.capabilities),
    };
    return { negotiated, twin: takeTwinSocket(connection.name, client, version.capabilities, reply.fds) };
  } finally {
    reply.fds.close();
  }
}
