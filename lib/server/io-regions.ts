// SPDX-License-Identifier: MIT
import type { VfioUserError } from '../errors';
import { Socket } from '../native';
import type { LaneQueue } from '../transport';
import { regionLane } from './command-lanes';
import type { FunctionState } from './function-state';
import { IoRegionService } from './io-region-service';
import type { Eventually } from './model-calls';
import { ownIoRegions } from './served-io-fds';

/** What {@link IoRegions} use of their session. */
export interface IoRegionAccess {
  /** See `Connection.turns`. */
  readonly turns: LaneQueue;
  /** Told of a client that breaks the protocol. */
  readonly report: (error: VfioUserError) => void;
  read(region: number, offset: number, data: Uint8Array): Eventually<void>;
  write(region: number, offset: number, data: Uint8Array, posted: boolean): Eventually<void>;
}

/** The ioregionfds of one client that the server itself serves: one socket for each region. */
export class IoRegions {
  readonly #regions: FunctionState['regions'];
  readonly #access: IoRegionAccess;
  readonly #services = new Map<number, IoRegionService>();

  constructor(regions: FunctionState['regions'], access: IoRegionAccess) {
    this.#regions = regions;
    this.#access = access;
  }

  /**
   * Serves the ioregionfds of a region. The socket that was made for it before is closed, so that a client that asks again
   * and again does not use up our descriptors.
   *
   * @returns the client's end
   * @throws VfioUserError ERR_VFIO_USER_SYSTEM (EMFILE)
   */
  open(index: number): Socket {
    this.#services.get(index)?.close();
    const [near, far] = Socket.pair();
    const access = this.#access;
    const regions = this.#regions;
    const target = {
      subRegions: ownIoRegions(regions.get(index)?.ioFds ?? []),
      lane: (writes: boolean) => regionLane(regions, index, writes),
      read: (offset: number, data: Uint8Array) => access.read(index, offset, data),
      write: (offset: number, data: Uint8Array, posted: boolean) => access.write(index, offset, data, posted),
    };
    try {
      this.#services.set(index, new IoRegionService(near, target, access.turns, access.report));
    } catch (error) {
      // It could not be watched: the process has no descriptor left.
      near.close();
      far.close();
      throw error;
    }
    return far;
  }

  close(): void {
    for (const service of this.#services.values()) service.close();
  }
}
