// SPDX-License-Identifier: MIT
import {
  decodeRegionReadRequest,
  decodeRegionWriteMultiRequest,
  decodeRegionWriteRequest,
  encodeRegionReadReply,
  encodeRegionWriteMultiReply,
  encodeRegionWriteReply,
} from '../protocol';
import { CommandError, Errno, type CommandReply } from '../transport';
import type { ServedRegion } from './device-model';
import type { FunctionState } from './function-state';
import { after, type Eventually, type ModelCall } from './model-calls';

/**
 * Serves accesses of regions. All methods throw a CommandError, or a VfioUserError ERR_VFIO_USER_PROTOCOL for a message that
 * cannot be decoded.
 */
export class RegionAccessor {
  readonly #function: FunctionState;
  readonly #call: ModelCall;
  readonly #maxTransfer: number;

  /** @param maxTransfer largest `count` that is served, in bytes */
  constructor(state: FunctionState, call: ModelCall, maxTransfer: number) {
    this.#function = state;
    this.#call = call;
    this.#maxTransfer = maxTransfer;
  }

  /** Serves a REGION_READ (vfio-user, VFIO_USER_REGION_READ). */
  read(payload: Uint8Array): Eventually<CommandReply> {
    const access = decodeRegionReadRequest(payload, this.#maxTransfer);
    this.#readable(access.region, access.offset, access.count);
    const data = new Uint8Array(access.count);
    const done = this.#read(access.region, access.offset, data);
    return after(done, () => ({ payload: encodeRegionReadReply(access), data }));
  }

  /** Serves a REGION_WRITE (vfio-user, VFIO_USER_REGION_WRITE). */
  write(payload: Uint8Array, posted: boolean): Eventually<CommandReply> {
    const { offset, region, count, data } = decodeRegionWriteRequest(payload, this.#maxTransfer);
    this.#writable(region, offset, count);
    const done = this.#write(region, offset, data, posted);
    return after(done, () => ({ payload: encodeRegionWriteReply({ offset, region, count }) }));
  }

  /** Serves a read that came by another way than a message. */
  load(index: number, offset: number, data: Uint8Array): Eventually<void> {
    this.#readable(index, offset, data.byteLength);
    return this.#read(index, offset, data);
  }

  /** Serves a write that came by another way than a message. */
  store(index: number, offset: number, data: Uint8Array, posted: boolean): Eventually<void> {
    this.#writable(index, offset, data.byteLength);
    return this.#write(index, offset, data, posted);
  }

  /** Serves a REGION_WRITE_MULTI (vfio-user, VFIO_USER_REGION_WRITE_MULTI). All writes are checked before the first is done. */
  async writeMulti(payload: Uint8Array, posted: boolean): Promise<CommandReply> {
    const writes = decodeRegionWriteMultiRequest(payload);
    for (const { region, offset, data } of writes) this.#writable(region, offset, data.byteLength);
    let done = 0;
    try {
      for (const { region, offset, data } of writes) {
        await this.#write(region, offset, data, posted);
        done++;
      }
    } catch (error) {
      // The reply tells how many writes were done, so it is an error only when none was.
      if (done === 0) throw error;
    }
    return { payload: encodeRegionWriteMultiReply(done) };
  }

  #read(index: number, offset: number, data: Uint8Array): Eventually<void> {
    if (data.byteLength === 0) return undefined;
    if (this.#function.unplugged) {
      // No device answers, and the bus reads as ones (PCI Express base 5.0, 2.3.2).
      data.fill(0xff);
      return undefined;
    }
    return this.#call(() => this.#function.regions.get(index)?.read?.(offset, data));
  }

  #write(index: number, offset: number, data: Uint8Array, posted: boolean): Eventually<void> {
    if (data.byteLength === 0 || this.#function.unplugged) return undefined;
    return this.#call(() => this.#function.regions.get(index)?.write?.(offset, data, posted));
  }

  #readable(index: number, offset: number, count: number): void {
    if (this.#region(index, offset, count).read === undefined) throw refusal(index, 'is not readable');
  }

  #writable(index: number, offset: number, count: number): void {
    if (this.#region(index, offset, count).write === undefined) throw refusal(index, 'is not writable');
  }

  #region(index: number, offset: number, count: number): ServedRegion {
    const region = this.#function.regions.get(index);
    if (region === undefined) throw refusal(index, 'does not exist');
    if (offset + count > region.size) {
      throw refusal(index, `has ${region.size} bytes, ${count} at offset ${offset} were asked for`);
    }
    return region;
  }
}

function refusal(index: number, problem: string): CommandError {
  return new CommandError(Errno.EINVAL, `region ${index} ${problem}`);
}
