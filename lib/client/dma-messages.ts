// SPDX-License-Identifier: MIT
import { VfioUserError } from '../errors';
import type { DirtyBitmapInfo, NegotiatedLimits } from '../protocol';
import { Command } from '../protocol/commands';
import { DmaMapFlag, DmaUnmapFlag } from '../protocol/constants';
import { DMA_MAP_SIZE, encodeDmaMapRequest } from '../protocol/dma-map';
import { decodeDmaUnmapReply, encodeDmaUnmapRequest } from '../protocol/dma-unmap';
import type { Connection } from '../transport';
import type { DeviceFeatures } from './device-feature';
import { DirtyLog } from './dirty-log';
import type { DmaContainer } from './dma-container';
import type { DmaRange, DmaTarget } from './dma-range';
import { callBack, type Done } from './pipeline';

/** The messages that tell one server of the ranges of a container. Made by the device. */
export class DmaMessages implements DmaTarget {
  readonly name: string;
  readonly maxDmaMaps: number;
  readonly dmaPageSize: number;
  readonly dirtyLog: DirtyLog;
  readonly #connection: Connection;
  /** A server that takes no descriptors reaches the memory by message. */
  readonly #sendsFds: boolean;
  readonly #timeout: number;
  /** Kept for the next DMA_MAP: many come one behind the other. */
  readonly #mapFields = { flags: 0, offset: 0, address: 0n, size: 0 };
  readonly #mapRequest: {
    readonly command: number;
    readonly payload: Uint8Array;
    readonly timeout: number;
    fds: readonly number[] | undefined;
  };

  /** @param timeout in milliseconds */
  constructor(
    connection: Connection,
    limits: NegotiatedLimits,
    timeout: number,
    dma: DmaContainer,
    feature: DeviceFeatures,
  ) {
    this.name = connection.name;
    this.maxDmaMaps = limits.maxDmaMaps;
    this.dmaPageSize = smallestPage(limits.pageSizes);
    this.dirtyLog = new DirtyLog(this, feature, dma, limits.maxDataXferSize);
    this.#connection = connection;
    this.#sendsFds = limits.maxMsgFds > 0;
    this.#timeout = timeout;
    const payload = new Uint8Array(DMA_MAP_SIZE);
    this.#mapRequest = { command: Command.dmaMap, payload, timeout, fds: undefined };
  }

  mapDma({ access, iova, size, fd, fdOffset }: DmaRange, done: Done, index: number): void {
    const fields = this.#mapFields;
    const request = this.#mapRequest;
    const shared = this.#sendsFds ? fd : null;
    fields.flags = (access !== 'write' ? DmaMapFlag.read : 0) | (access !== 'read' ? DmaMapFlag.write : 0);
    fields.offset = shared === null ? 0 : fdOffset;
    fields.address = iova;
    fields.size = size;
    encodeDmaMapRequest(fields, request.payload);
    if (shared === null) request.fds = undefined;
    else if (request.fds?.[0] !== shared) request.fds = [shared];
    callBack(this.#connection.request(request), done, index);
  }

  async unmapDma(range: DmaRange): Promise<void> {
    if (this.#connection.closed) return;
    const request = { flags: 0, address: range.iova, size: range.size };
    decodeDmaUnmapReply(await this.#unmap(encodeDmaUnmapRequest(request)), request);
  }

  /** The same, with a bitmap of what the server has written of the range. */
  async unmapDmaWithBitmap(range: DmaRange, bitmap: DirtyBitmapInfo): Promise<Uint8Array> {
    const request = {
      flags: DmaUnmapFlag.getDirtyBitmap,
      address: range.iova,
      size: range.size,
      bitmap,
    };
    const payload = encodeDmaUnmapRequest(request);
    const reply = await this.#unmap(payload, payload.byteLength + bitmap.size);
    const { bitmap: bytes } = decodeDmaUnmapReply(reply, request);
    if (bytes !== undefined) return bytes;
    throw new VfioUserError(
      'ERR_VFIO_USER_PROTOCOL',
      `${this.name} answered a DMA_UNMAP with ${String(reply.byteLength)} bytes, without the dirty bitmap that was asked for`,
      { command: 'DMA_UNMAP' },
    );
  }

  async unmapAllDma(): Promise<void> {
    if (this.#connection.closed) return;
    const request = { flags: DmaUnmapFlag.all, address: 0, size: 0 };
    decodeDmaUnmapReply(await this.#unmap(encodeDmaUnmapRequest(request)), request);
  }

  async #unmap(payload: Uint8Array, maxReply?: number): Promise<Uint8Array> {
    const timeout = this.#timeout;
    const reply = await this.#connection.request({ command: Command.dmaUnmap, payload, timeout, maxReply });
    return reply.payload;
  }
}

/** The smallest of page sizes that are or'ed together. */
function smallestPage(pageSizes: number): number {
  const bits = BigInt(pageSizes);
  return Number(bits & -bits);
}
