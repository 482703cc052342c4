// SPDX-License-Identifier: MIT
import type { DmaDevices } from '../dma/devices';
import type { DmaRange } from '../dma/memory';
import { mayStillHold, type DmaChange, type DmaTarget, type TargetRange } from '../dma/target';
import { VfioUserError, asError } from '../errors';
import { Command, commandName } from '../protocol/commands';
import { DmaMapFlag, DmaUnmapFlag } from '../protocol/constants';
import {
  decodeDmaReadRequest,
  decodeDmaWriteRequest,
  encodeDmaReadReply,
  encodeDmaWriteReply,
} from '../protocol/dma-access';
import { DMA_MAP_SIZE, encodeDmaMapRequest } from '../protocol/dma-map';
import {
  decodeDmaUnmapReply,
  encodeDmaUnmapRequest,
  type DirtyBitmapInfo,
  type DmaUnmapRequest,
} from '../protocol/dma-unmap';
import type { NegotiatedLimits } from '../protocol/version';
import {
  CommandError,
  Errno,
  type CommandReply,
  type Connection,
  type IncomingCommand,
  type Reply,
  type Request,
} from '../transport';
import type { DeviceFeatures } from './device-feature';
import { DeviceDirtyLog } from './dirty-log';
import type { Link } from './link';
import { CLIENT_CAPABILITIES } from './open-connection';

/**
 * A vfio-user server as a target of a DMA container: what the server is told by DMA_MAP and DMA_UNMAP. It knows what the
 * device is to have, and gives that to the server of each new connection.
 */
export class VfioUserDmaTarget implements DmaTarget {
  readonly name: string;
  readonly maxDmaMaps: number;
  readonly dmaPageSize: number;
  readonly dirtyLog: DeviceDirtyLog;
  readonly #link: Link;
  /** Whether the server takes descriptors. One that does not reaches the memory by message. */
  readonly #sendsFds: boolean;
  readonly #timeout: number;
  readonly #devices: DmaDevices;
  /** Payload of every DMA_MAP. It is reused, since many of them are sent one behind the other. */
  readonly #mapPayload = new Uint8Array(DMA_MAP_SIZE);
  /** The connection whose server has been told: that of the link, or the one that is being set up. */
  #connection: Connection;
  /** What the device has, when all that is under way is done. */
  readonly #told = new Set<DmaRange>();
  /** Maps whose answer was lost with a connection, which the next one is to give: null, or why its server refuses. */
  readonly #lost = new Map<DmaRange, Error | null>();

  /** @param timeout in milliseconds */
  constructor(
    link: Link,
    limits: NegotiatedLimits,
    timeout: number,
    devices: DmaDevices,
    feature: DeviceFeatures,
  ) {
    this.name = link.name;
    this.maxDmaMaps = limits.maxDmaMaps;
    this.dmaPageSize = smallestPage(limits.pageSizes);
    this.dirtyLog = new DeviceDirtyLog(this, feature, devices, limits.maxDataXferSize);
    this.#link = link;
    this.#connection = link.connection;
    this.#sendsFds = limits.maxMsgFds > 0;
    this.#timeout = timeout;
    this.#devices = devices;
  }

  /** While there is no connection, an unmap is done at once, and a map when the next connection is set up. */
  async change(changes: readonly DmaChange[]): Promise<(Error | null)[]> {
    for (const { kind, range } of changes) {
      if (kind === 'map') this.#told.add(range);
      else this.#told.delete(range);
    }
    const connection = this.#connection;
    const results = await connection.requestAll(changes.length, (index) => {
      const { kind, range } = changes[index] as DmaChange;
      return kind === 'map' ? this.#map(range) : this.#unmap(unmapOf(range));
    });
    const lost: DmaRange[] = [];
    for (const [index, result] of results.entries()) {
      const { kind, range } = changes[index] as DmaChange;
      if (kind === 'map' && result.status === 'rejected' && connection.endedBy(result.reason))
        lost.push(range);
    }
    const outcomes = lost.length > 0 ? await this.#outcomesOf(lost) : null;
    return results.map((result, index) => {
      const { kind, range } = changes[index] as DmaChange;
      if (kind === 'unmap') return this.#unmapped(range, unmapError(result, unmapOf(range), connection));
      if (result.status === 'fulfilled') return null;
      const outcome = outcomes?.get(range);
      const error = outcome === undefined ? asError(result.reason) : outcome;
      if (error !== null) this.#told.delete(range);
      return error;
    });
  }

  /** Sends one message with libvfio-user's flag for all ranges. A server that does not know the flag refuses it, with one of several errors. */
  async unmapAll(ranges: readonly TargetRange[]): Promise<(Error | null)[]> {
    for (const range of ranges) this.#told.delete(range);
    const connection = this.#connection;
    const request = { flags: DmaUnmapFlag.all, address: 0, size: 0 };
    const error = unmapError(await this.#sendUnmap(request), request, connection);
    // A server that does not answer, or is gone, is not asked again.
    if (!(error instanceof VfioUserError) || error.code !== 'ERR_VFIO_USER_REMOTE')
      return ranges.map((range) => this.#unmapped(range, error));
    return this.change(ranges.map((range) => ({ kind: 'unmap', range })));
  }

  /**
   * Gives all that the device has to the server of a new connection. What is changed from now on is told to that server.
   *
   * @returns number of ranges
   * @throws VfioUserError ERR_VFIO_USER_REMOTE when the server refuses one that the device had; others of a message
   */
  async setUp(connection: Connection): Promise<number> {
    this.#devices.assertOpen();
    this.#connection = connection;
    const ranges = [...this.#told];
    const results = await connection.requestAll(ranges.length, (index) =>
      this.#map(ranges[index] as DmaRange),
    );
    for (const [index, result] of results.entries()) {
      if (result.status === 'fulfilled') continue;
      const range = ranges[index] as DmaRange;
      const error = asError(result.reason);
      // One that no server has ever taken is refused to the one who asked for it.
      if (connection.endedBy(error) || !this.#lost.has(range)) throw error;
      this.#lost.set(range, error);
      this.#told.delete(range);
    }
    return ranges.length;
  }

  /**
   * Serves the two commands that a server sends to its client.
   *
   * @throws CommandError EFAULT for memory that the server has not been shown; EOPNOTSUPP
   */
  serve(connection: Connection, { command, payload }: IncomingCommand): CommandReply | Promise<CommandReply> {
    if (command !== Command.dmaRead && command !== Command.dmaWrite)
      throw new CommandError(Errno.EOPNOTSUPP, `a client does not serve ${commandName(command)}`);
    if (connection !== this.#connection)
      throw new CommandError(Errno.EFAULT, `${this.name} has not been shown any memory yet`);
    if (command === Command.dmaRead) {
      const { address, count } = decodeDmaReadRequest(payload, CLIENT_CAPABILITIES.maxDataXferSize);
      return orFault(
        () => this.#devices.read(BigInt(address), count),
        (data) => ({ payload: encodeDmaReadReply({ address, count }), data }),
      );
    }
    const { address, count, data } = decodeDmaWriteRequest(payload, CLIENT_CAPABILITIES.maxDataXferSize);
    return orFault(
      () => this.#devices.write(BigInt(address), data),
      () => ({ payload: encodeDmaWriteReply({ address, count }) }),
    );
  }

  /**
   * Unmaps a range, with a bitmap of what the server has written of it.
   *
   * @throws VfioUserError ERR_VFIO_USER_REMOTE when the server refuses; PROTOCOL for a reply without the bitmap
   */
  async unmapWithBitmap(range: DmaRange, bitmap: DirtyBitmapInfo): Promise<Uint8Array> {
    const request = { ...unmapOf(range), flags: DmaUnmapFlag.getDirtyBitmap, bitmap };
    this.#told.delete(range);
    const result = await this.#sendUnmap(request);
    if (result.status === 'rejected') throw this.#unmapped(range, asError(result.reason)) as Error;
    const { payload } = result.value;
    const { bitmap: bytes } = decodeDmaUnmapReply(payload, request);
    if (bytes !== undefined) return bytes;
    throw new VfioUserError(
      'ERR_VFIO_USER_PROTOCOL',
      `${this.name} answered a DMA_UNMAP with ${payload.byteLength} bytes, without the dirty bitmap that was asked for`,
      { command: 'DMA_UNMAP' },
    );
  }

  /** What became of maps whose answer was lost: known when another connection is set up, or none will be. */
  async #outcomesOf(lost: readonly DmaRange[]): Promise<ReadonlyMap<DmaRange, Error | null>> {
    for (const range of lost) this.#lost.set(range, null);
    await this.#link.settled();
    // One error serves all: it costs more than a message.
    const gone = this.#link.state === 'closed' ? this.#link.absent(Command.dmaMap) : null;
    const outcomes = new Map<DmaRange, Error | null>();
    for (const range of lost) {
      outcomes.set(range, gone ?? this.#lost.get(range) ?? null);
      this.#lost.delete(range);
    }
    return outcomes;
  }

  /** What a server that has refused to let a range go may still have, it is to have on the next connection too. */
  #unmapped(range: DmaRange, error: Error | null): Error | null {
    if (error !== null && mayStillHold(error)) this.#told.add(range);
    return error;
  }

  #map({ access, iova, size, fd, fdOffset }: DmaRange): Request {
    const shared = this.#sendsFds ? fd : null;
    const fields = {
      flags: (access !== 'write' ? DmaMapFlag.read : 0) | (access !== 'read' ? DmaMapFlag.write : 0),
      offset: shared === null ? 0 : fdOffset,
      address: iova,
      size,
    };
    return {
      command: Command.dmaMap,
      payload: encodeDmaMapRequest(fields, this.#mapPayload),
      timeout: this.#timeout,
      fds: shared === null ? undefined : [shared],
    };
  }

  #unmap(request: DmaUnmapRequest): Request {
    const payload = encodeDmaUnmapRequest(request);
    const maxReply = request.bitmap === undefined ? undefined : payload.byteLength + request.bitmap.size;
    return { command: Command.dmaUnmap, payload, timeout: this.#timeout, maxReply };
  }

  /** Sends a DMA_UNMAP behind the changes that wait to be sent. */
  async #sendUnmap(request: DmaUnmapRequest): Promise<PromiseSettledResult<Reply>> {
    const [result] = await this.#connection.requestAll(1, () => this.#unmap(request));
    return result as PromiseSettledResult<Reply>;
  }
}

function unmapOf(range: DmaRange): DmaUnmapRequest {
  return { flags: 0, address: range.iova, size: range.size };
}

/** Why an unmap failed. A server that has gone has let go of everything. */
function unmapError(
  result: PromiseSettledResult<Reply>,
  request: DmaUnmapRequest,
  connection: Connection,
): Error | null {
  if (result.status === 'rejected') return connection.endedBy(result.reason) ? null : asError(result.reason);
  try {
    decodeDmaUnmapReply(result.value.payload, request);
    return null;
  } catch (error) {
    return asError(error);
  }
}

/** @throws CommandError EFAULT for whatever an access throws */
function orFault<T>(
  access: () => T | Promise<T>,
  reply: (result: T) => CommandReply,
): CommandReply | Promise<CommandReply> {
  const fault = (error: unknown): never => {
    throw new CommandError(Errno.EFAULT, error instanceof VfioUserError ? error.message : String(error));
  };
  try {
    const result = access();
    return result instanceof Promise ? result.then(reply, fault) : reply(result);
  } catch (error) {
    return fault(error);
  }
}

/** The smallest of page sizes that are or'ed together. */
function smallestPage(pageSizes: number): number {
  const bits = BigInt(pageSizes);
  return Number(bits & -bits);
}
