// SPDX-License-Identifier: MIT
import type { DeviceMigration } from '../device/migration';
import type { VfioUserError } from '../errors';
import type { DeviceLoss } from '../pci/device';
import { disconnectedError, type Connection } from '../transport';
import type { VfioUserDmaTarget } from './dma-target';
import type { DeviceIdentity } from './identity';
import type { VfioUserIrq } from './irq';
import type { PostedWrites } from './posted-writes';
import type { VfioUserRegion } from './region';

/** What a device has that is bound to its connection. */
export class OpenParts {
  readonly #regions = new Set<VfioUserRegion>();
  readonly #irqs = new Set<VfioUserIrq>();
  readonly #target: VfioUserDmaTarget;
  readonly #migration: DeviceMigration;
  readonly #postedWrites: PostedWrites;

  constructor(target: VfioUserDmaTarget, migration: DeviceMigration, postedWrites: PostedWrites) {
    this.#target = target;
    this.#migration = migration;
    this.#postedWrites = postedWrites;
  }

  addRegion(region: VfioUserRegion): void {
    this.#regions.add(region);
  }

  addIrq(irq: VfioUserIrq): void {
    this.#irqs.add(irq);
  }

  /**
   * Lets go of what came with a connection that has ended: no mapping shows the memory of a server that has gone.
   *
   * @param acting number of requests in flight that act
   */
  connectionEnded(error: VfioUserError | null, acting: number): DeviceLoss {
    this.#postedWrites.drop();
    let mappings = 0;
    let subRegions = 0;
    for (const region of this.#regions) {
      const lost = region.connectionEnded();
      mappings += lost.mappings;
      subRegions += lost.subRegions;
    }
    const dirtyLog = this.#target.dirtyLog.connectionEnded();
    const migration = this.#migration.connectionEnded(error);
    return { requests: acting, mappings, subRegions, dirtyLog, migration };
  }

  /**
   * Gives the server of a new connection what the one before had, and takes the descriptors of its regions.
   *
   * @param found what the server has told of the device
   * @throws VfioUserError ERR_VFIO_USER_REMOTE when the server refuses; DISCONNECTED and others of a message
   */
  async setUp(
    connection: Connection,
    found: DeviceIdentity,
  ): Promise<{ dmaRanges: number; vectors: number }> {
    const dmaRanges = await this.#target.setUp(connection);
    let vectors = 0;
    for (const irq of this.#irqs) vectors += await irq.setUp(connection);
    if (connection.closed) throw connection.error ?? disconnectedError(connection.name, false, undefined);
    // From here on nothing waits, so that no mapping of an ended connection can be made.
    for (const region of this.#regions) {
      const description = found.take(region.index);
      if (description !== undefined) region.renew(description);
    }
    return { dmaRanges, vectors };
  }

  /** The device has gone for good: nothing waits for signals any more. */
  deviceGone(error: VfioUserError): void {
    for (const irq of this.#irqs) irq.deviceGone(error);
  }

  /** Closes all, without a message to the device. */
  close(): void {
    this.#target.dirtyLog.release();
    for (const region of this.#regions) region.close();
    for (const irq of this.#irqs) irq.release();
    this.#regions.clear();
    this.#irqs.clear();
  }
}
