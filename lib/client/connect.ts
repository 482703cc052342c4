// SPDX-License-Identifier: MIT
import { DmaContainer, devicesOf, type DmaContainerOptions } from '../dma/container';
import { invalidArgument } from '../errors';
import { CommandError, Errno } from '../transport';
import { VfioUserDevice } from './device';
import { DeviceFeatures } from './device-feature';
import { VfioUserDmaTarget } from './dma-target';
import type { Endpoint } from './endpoint';
import { DeviceIdentity } from './identity';
import { Link } from './link';
import { openConnection, type OpenConnection } from './open-connection';
import { checkReconnect, type ReconnectOptions } from './reconnection';

/** How to connect. Times are in milliseconds. */
export interface ConnectOptions {
  /**
   * Gives up when it is aborted; {@link connect} rejects with its reason then. With {@link reconnect} it also ends attempts
   * to come back, then and later: for a limit of time alone use `connectTimeout` and the `deadline` of `reconnect`.
   */
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
  /**
   * Comes back when the server goes away and is started again: connects with growing delays, checks that the device is the
   * same, and sets up its DMA ranges and interrupts again. docs/reconnecting.md tells what becomes of requests and mappings.
   * A server that does not answer has not gone: time-outs alone never lead to this. Default false: the device closes.
   */
  readonly reconnect?: boolean | ReconnectOptions;
}

/**
 * Connects to a vfio-user server and negotiates.
 *
 * @param endpoint path of the server's socket, SPDK's listener directory, `@name` for an abstract socket, or `{ fd }`
 * @throws VfioUserError ERR_VFIO_USER_CONNECT, BUSY, TIMEOUT, VERSION, DISCONNECTED or PROTOCOL
 * @throws TypeError ERR_INVALID_ARG_VALUE for a time-out that is not above 0, a path that cannot be that of a socket, or
 *   options of `reconnect` that make no sense
 * @example
 * await using device = await connect('/var/run/vfio-user/1/cntrl');
 * const bar0 = await device.region('bar0');
 * console.log((await bar0.read64(0)).toString(16));
 */
export async function connect(endpoint: Endpoint, options: ConnectOptions = {}): Promise<VfioUserDevice> {
  const { signal } = options;
  const connectTimeout = checkTimeout('connectTimeout', options.connectTimeout ?? 5000);
  const messageTimeout = checkTimeout('messageTimeout', options.messageTimeout ?? 5000);
  const quiesce = checkTimeout('quiesceTimeout', options.quiesceTimeout ?? 30_000);
  const reconnect = checkReconnect(options.reconnect);
  if (reconnect !== null && typeof endpoint !== 'string') {
    throw invalidArgument(
      'reconnect: a descriptor is one connection, and there is no way to a second; give the path of the socket',
    );
  }

  let link: Link | undefined;
  let target: VfioUserDmaTarget | undefined;
  const open = (until?: AbortSignal): Promise<OpenConnection> =>
    openConnection(
      {
        endpoint,
        connectTimeout,
        messageTimeout,
        twinSocket: options.twinSocket ?? false,
        onCommand: (from, command) => {
          if (target !== undefined) return target.serve(from, command);
          throw new CommandError(Errno.EFAULT, 'no memory has been shown yet');
        },
        onClose: (ended, error, acting) => link?.connectionEnded(ended, error, acting),
      },
      until,
    );
  const { connection, negotiated } = await open(signal);
  const { limits } = negotiated;
  const dma = options.dma instanceof DmaContainer ? options.dma : new DmaContainer(options.dma);
  const ownsDma = dma !== options.dma;
  const dmaDevices = devicesOf(dma);
  const onAbort = (): void => {
    connection.close();
  };
  signal?.addEventListener('abort', onAbort, { once: true });
  try {
    let renewal = null;
    if (reconnect !== null) {
      const identity = await DeviceIdentity.ask(connection);
      identity.close();
      renewal = { options: reconnect, identity, limits, open, signal };
    }
    link = new Link(connection);
    const feature = new DeviceFeatures(link, quiesce);
    target = new VfioUserDmaTarget(link, limits, quiesce, dmaDevices, feature);
    const device = new VfioUserDevice({
      link,
      negotiated,
      dma,
      ownsDma,
      target,
      feature,
      timeouts: { quiesce },
      renewal,
    });
    await dmaDevices.attach(target);
    // The answer to VERSION may have been the last thing that came.
    link.assertConnected(`connecting to ${link.name}`);
    if (renewal !== null) link.makeRenewable();
    return device;
  } catch (error) {
    connection.close();
    if (ownsDma) dma.close();
    signal?.throwIfAborted();
    throw error;
  } finally {
    signal?.removeEventListener('abort', onAbort);
  }
}

function checkTimeout(name: string, value: number): number {
  if (!(value > 0))
    throw invalidArgument(`${name} is ${value}; give milliseconds above 0, or Infinity for none`);
  return value;
}
