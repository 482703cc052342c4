// SPDX-License-Identifier: MIT
import { Command, DmaMapFlag } from '../protocol/constants';
import { DMA_MAP_SIZE, encodeDmaMapRequest } from '../protocol/dma-map';
import type { Connection } from '../transport';
import type { DmaRange } from './dma-range';
import type { Done } from './pipeline';

/** Tells one server of DMA ranges. Many come one behind the other, so that little is made for each. */
export class DmaMapCommand {
  readonly #connection: Connection;
  readonly #sendsFds: boolean;
  readonly #fields = { flags: 0, offset: 0, address: 0n, size: 0 };
  readonly #request: {
    readonly command: number;
    readonly payload: Uint8Array;
    readonly timeout: number;
    fds: readonly number[] | undefined;
  };

  /**
   * @param sendsFds false for a server that takes no descriptors: it reaches the memory by message
   * @param timeout in milliseconds
   */
  constructor(connection: Connection, sendsFds: boolean, timeout: number) {
    this.#connection = connection;
    this.#sendsFds = sendsFds;
    const payload = new Uint8Array(DMA_MAP_SIZE);
    this.#request = { command: Command.dmaMap, payload, timeout, fds: undefined };
  }

  send({ access, iova, size, fd, fdOffset }: DmaRange, done: Done, index: number): void {
    const fields = this.#fields;
    const request = this.#request;
    const shared = this.#sendsFds ? fd : null;
    fields.flags = (access !== 'write' ? DmaMapFlag.read : 0) | (access !== 'read' ? DmaMapFlag.write : 0);
    fields.offset = shared === null ? 0 : fdOffset;
    fields.address = iova;
    fields.size = size;
    encodeDmaMapRequest(fields, request.payload);
    if (shared === null) request.fds = undefined;
    else if (request.fds?.[0] !== shared) request.fds = [shared];
    this.#connection.submit(request, done, index);
  }
}
