// SPDX-License-Identifier: MIT
import type { DmaRange } from '../dma/memory';
import type { DmaChange, DmaDevices, DmaTarget } from '../dma/target';
import { VfioUserError, asError } from '../errors';
import { Command } from '../protocol/commands';
import { DmaMapFlag, DmaUnmapFlag } from '../protocol/constants';
import { DMA_MAP_SIZE, encodeDmaMapRequest } from '../protocol/dma-map';
import {
  decodeDmaUnmapReply,
  encodeDmaUnmapRequest,
  type DirtyBitmapInfo,
  type DmaUnmapRequest,
} from '../protocol/dma-unmap';
import type { NegotiatedLimits } from '../protocol/version';
import type { Connection, Reply, Request } from '../transport';
import type { DeviceFeatures } from './device-feature';
import { DeviceDirtyLog } from './dirty-log';

/** A vfio-user server as a target of a DMA container: what the server is told by DMA_MAP and DMA_UNMAP. */
export class VfioUserDmaTarget implements DmaTarget {
  readonly name: string;
  readonly maxDmaMaps: number;
  readonly dmaPageSize: number;
  readonly dirtyLog: DeviceDirtyLog;
  readonly #connection: Connection;
  /** Whether the server takes descriptors. One that does not reaches the memory by message. */
  readonly #sendsFds: boolean;
  readonly #timeout: number;
  /** Payload of every DMA_MAP. It is reused, since many of them are sent one behind the other. */
  readonly #mapPayload = new Uint8Array(DMA_MAP_SIZE);

  /** @param timeout in milliseconds */
  constructor(
    connection: Connection,
    limits: NegotiatedLimits,
    timeout: number,
    devices: DmaDevices,
    feature: DeviceFeatures,
  ) {
    this.name = connection.name;
    this.maxDmaMaps = limits.maxDmaMaps;
    this.dmaPageSize = smallestPage(limits.pageSizes);
    this.dirtyLog = new DeviceDirtyLog(this, feature, devices, limits.maxDataXferSize);
    this.#connection = connection;
    this.#sendsFds = limits.maxMsgFds > 0;
    this.#timeout = timeout;
  }

  async change(changes: readonly DmaChange[]): Promise<(Error | null)[]> {
    const gone = this.#connection.closed;
    const results = await this.#connection.requestAll(changes.length, (index) => {
      const { kind, range } = changes[index] as DmaChange;
      return kind === 'map' ? this.#map(range) : this.#unmap(unmapOf(range));
    });
    return results.map((result, index) => {
      const { kind, range } = changes[index] as DmaChange;
      if (kind === 'map') return result.status === 'rejected' ? asError(result.reason) : null;
      return gone ? null : unmapError(result, unmapOf(range));
    });
  }

  /** Sends one message with libvfio-user's flag for all ranges. A server that does not know the flag refuses it, with one of several errors. */
  async unmapAll(ranges: readonly DmaRange[]): Promise<(Error | null)[]> {
    if (this.#connection.closed) return ranges.map(() => null);
    const request = { flags: DmaUnmapFlag.all, address: 0, size: 0 };
    const error = unmapError(await this.#sendUnmap(request), request);
    // A server that does not answer, or is gone, is not asked again.
    if (!(error instanceof VfioUserError) || error.code !== 'ERR_VFIO_USER_REMOTE')
      return ranges.map(() => error);
    return this.change(ranges.map((range) => ({ kind: 'unmap', range })));
  }

  /**
   * Unmaps a range, with a bitmap of what the server has written of it.
   *
   * @throws VfioUserError ERR_VFIO_USER_REMOTE when the server refuses; PROTOCOL for a reply without the bitmap
   */
  async unmapWithBitmap(range: DmaRange, bitmap: DirtyBitmapInfo): Promise<Uint8Array> {
    const request = { ...unmapOf(range), flags: DmaUnmapFlag.getDirtyBitmap, bitmap };
    const result = await this.#sendUnmap(request);
    if (result.status === 'rejected') throw asError(result.reason);
    const { payload } = result.value;
    const { bitmap: bytes } = decodeDmaUnmapReply(payload, request);
    if (bytes !== undefined) return bytes;
    throw new VfioUserError(
      'ERR_VFIO_USER_PROTOCOL',
      `${this.name} answered a DMA_UNMAP with ${payload.byteLength} bytes, without the dirty bitmap that was asked for`,
      { command: 'DMA_UNMAP' },
    );
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

function unmapError(result: PromiseSettledResult<Reply>, request: DmaUnmapRequest): Error | null {
  if (result.status === 'rejected') return asError(result.reason);
  try {
    decodeDmaUnmapReply(result.value.payload, request);
    return null;
  } catch (error) {
    return asError(error);
  }
}

/** The smallest of page sizes that are or'ed together. */
function smallestPage(pageSizes: number): number {
  const bits = BigInt(pageSizes);
  return Number(bits & -bits);
}
