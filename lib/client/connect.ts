// SPDX-License-Identifier: MIT
import { performance } from 'node:perf_hooks';
import { DmaContainer, devicesOf, type DmaContainerOptions } from '../dma/container';
import type { DmaDevices } from '../dma/target';
import { VfioUserError, invalidArgument } from '../errors';
import type { Socket } from '../native';
import {
  Command,
  HEADER_SIZE,
  PROTOCOL_MAJOR,
  PROTOCOL_MINOR,
  commandName,
  decodeDmaReadRequest,
  decodeDmaWriteRequest,
  decodeVersion,
  defaultCapabilities,
  encodeDmaReadReply,
  encodeDmaWriteReply,
  encodeVersion,
  negotiateCapabilities,
  type Capabilities,
} from '../protocol';
import { CommandError, Connection, Errno, type CommandReply, type IncomingCommand } from '../transport';
import { VfioUserDevice, type Negotiated } from './device';
import { DeviceFeatures } from './device-feature';
import { VfioUserDmaTarget } from './dma-target';
import { busyError, endpointName, openSocket, type Endpoint } from './endpoint';
import { takeTwinSocket } from './twin-socket';

/** How to connect. Times are in milliseconds. */
export interface ConnectOptions {
  /** Gives up when it is aborted; {@link connect} rejects with its reason then. */
  readonly signal?: AbortSignal;
  /**
   * Time for the connection and the version negotiation together. Default 5000. It covers VERSION because an
   * endpoint that serves another client accepts the connection and then stays silent.
   */
  readonly connectTimeout?: number;
  /** Time-out of each message. Default 5000. */
  readonly messageTimeout?: number;
  /** Time-out of DMA_MAP, DMA_UNMAP and DEVICE_RESET, which may wait for the I/O in flight. Default 30000. */
  readonly quiesceTimeout?: number;
  /**
   * Asks for a socket of its own for the server's commands, DMA_READ and DMA_WRITE (vfio-user, VFIO_USER_VERSION,
   * "twin_socket"), so that they do not cross with ours: libvfio-user's servers lose their place in the stream when they
   * do. A server may decline; `device.negotiated.limits.twinSocket` tells. Default false.
   */
  readonly twinSocket?: boolean;
  /** Memory that the device may access: a container that devices share, or options for one of its own. */
  readonly dma?: DmaContainer | DmaContainerOptions;
}

/** What this client announces (vfio-user, "Version"). */
const CLIENT_CAPABILITIES: Capabilities = {
  ...defaultCapabilities(),
  maxMsgFds: 16,
  writeMultiple: true,
};

/** Room for the largest transfer and its fixed part, and for replies that are not transfers. */
const MAX_MESSAGE = HEADER_SIZE + (1 << 20) + (1 << 16);

/**
 * Connects to a vfio-user server and negotiates.
 *
 * @param endpoint path of the server's socket, SPDK's listener directory, `@name` for an abstract socket, or `{ fd }`
 * @throws VfioUserError ERR_VFIO_USER_CONNECT, BUSY, TIMEOUT, VERSION, DISCONNECTED or PROTOCOL
 * @throws TypeError ERR_INVALID_ARG_VALUE for a time-out that is not above 0, or a path that cannot be that of a socket
 * @example
 * await using device = await connect('/var/run/vfio-user/1/cntrl');
 * const bar0 = await device.region('bar0');
 * console.log((await bar0.read64(0)).toString(16));
 */
export async function connect(endpoint: Endpoint, options: ConnectOptions = {}): Promise<VfioUserDevice> {
  const connectTimeout = checkTimeout('connectTimeout', options.connectTimeout ?? 5000);
  const messageTimeout = checkTimeout('messageTimeout', options.messageTimeout ?? 5000);
  const quiesce = checkTimeout('quiesceTimeout', options.quiesceTimeout ?? 30_000);
  const name = endpointName(endpoint);
  const deadline = performance.now() + connectTimeout;

  const socket = await openSocket(endpoint, deadline, options.signal);
  const dma = options.dma instanceof DmaContainer ? options.dma : new DmaContainer(options.dma);
  const dmaDevices = devicesOf(dma);
  let device: VfioUserDevice | undefined;
  const connection = new Connection(socket, {
    name,
    messageTimeout,
    maxMessageSize: MAX_MESSAGE,
    role: 'client',
    onCommand: (command) => serveDma(dmaDevices, command),
    onClose: (error) => device?.connectionClosed(error),
  });
  try {
    const client = { ...CLIENT_CAPABILITIES, twinSocket: { supported: options.twinSocket ?? false } };
    const { negotiated, twin } = await negotiate(connection, client, deadline, options.signal);
    if (twin !== null) {
      connection.companion = new Connection(twin, {
        name: `${name} (twin socket)`,
        messageTimeout,
        maxMessageSize: MAX_MESSAGE,
        role: 'client',
        onCommand: (command) => serveDma(dmaDevices, command),
        // The server's commands come by this socket, so that the device cannot work without it.
        onClose: (error) => {
          if (error !== null) connection.close(error);
        },
      });
    }
    const feature = new DeviceFeatures(connection, quiesce);
    const target = new VfioUserDmaTarget(connection, negotiated.limits, quiesce, dmaDevices, feature);
    const ownsDma = dma !== options.dma;
    device = new VfioUserDevice(connection, negotiated, { dma, ownsDma, target, feature }, { quiesce });
    await dmaDevices.attach(target);
    return device;
  } catch (error) {
    connection.close();
    if (dma !== options.dma) dma.close();
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

/** Serves the two commands that a server sends to its client. */
function serveDma(devices: DmaDevices, { command, payload }: IncomingCommand): CommandReply {
  if (command === Command.dmaRead) {
    const { address, count } = decodeDmaReadRequest(payload, CLIENT_CAPABILITIES.maxDataXferSize);
    const data = orFault(() => devices.read(BigInt(address), count));
    return { payload: encodeDmaReadReply({ address, count }), data };
  }
  if (command === Command.dmaWrite) {
    const { address, count, data } = decodeDmaWriteRequest(payload, CLIENT_CAPABILITIES.maxDataXferSize);
    orFault(() => {
      devices.write(BigInt(address), data);
    });
    return { payload: encodeDmaWriteReply({ address, count }) };
  }
  throw new CommandError(Errno.EOPNOTSUPP, `a client does not serve ${commandName(command)}`);
}

function orFault<T>(access: () => T): T {
  try {
    return access();
  } catch (error) {
    throw new CommandError(Errno.EFAULT, error instanceof VfioUserError ? error.message : String(error));
  }
}

function checkTimeout(name: string, value: number): number {
  if (!(value > 0))
    throw invalidArgument(`${name} is ${value}; give milliseconds above 0, or Infinity for none`);
  return value;
}
