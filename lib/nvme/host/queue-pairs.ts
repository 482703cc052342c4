// SPDX-License-Identifier: MIT
import { invalidArgument, outOfRange } from '../../errors';
import type { DeviceIrq } from '../../pci';
import {
  AdminOpcode,
  CQE_BYTES,
  SQE_BYTES,
  createCompletionQueueCdw11,
  createQueueCdw10,
  createSubmissionQueueCdw11,
  deleteQueueCdw10,
  numberOfQueues,
  type ControllerCapabilities,
} from '../spec';
import type { NvmeAdmin } from './admin';
import { NVME_PAGE, type DmaArena, type DmaChunk } from './dma-arena';
import type { Doorbells } from './doorbells';
import { NvmeStatusError } from './nvme-error';
import { QueuePair, type QueuePairPlacement } from './queue-pair';

/** Takes the signals of a vector, and how many came since its last call; `eventfd` when they go to an eventfd. */
export type VectorHandler = 'eventfd' | ((signals: number) => void);

/** An I/O queue pair of a controller. */
export interface CreatedQueuePair {
  /** The queues, to be driven by this thread. */
  readonly queue: QueuePair;
  /** Where the queues lie in the memory of the controller, for a worker thread that maps it. @internal */
  readonly placement: QueuePairPlacement;
  /** MSI-X vector of the completion queue, undefined when it is polled. */
  readonly vector: number | undefined;
  /** Eventfd of that vector, when the controller was attached with `vectorTarget: 'eventfd'`. Stays the device's. */
  readonly interruptFd: number | undefined;
  /**
   * Deletes the queues in the controller and frees their memory. Commands in flight are never completed. Idempotent. When the
   * connection was lost the controller has no such queues any more, also when it is back: delete the pair and create another.
   */
  delete(): Promise<void>;
}

/** What queue pairs are made of. */
export interface QueuePairParts {
  /** Name of the device, for messages. */
  readonly name: string;
  readonly capabilities: ControllerCapabilities;
  readonly arena: DmaArena;
  readonly admin: NvmeAdmin;
  readonly msix: DeviceIrq | null;
  /** By vector, who takes its signals; vector 0 is the admin queue's. */
  readonly vectorHandlers: (VectorHandler | undefined)[];
}

/** How the doorbells are reached. */
export interface DoorbellAccess {
  readonly doorbells: Doorbells;
  /** Bytes of doorbells that can be reached. */
  readonly doorbellBytes: number;
}

/** Memory of a pair of queues in the arena. */
export interface QueuePlace {
  readonly placement: QueuePairPlacement;
  readonly chunk: DmaChunk;
}

/** The I/O queue pairs of a controller: creates and deletes them, and knows which ids and vectors are free. */
export class QueuePairs {
  readonly #parts: QueuePairParts;
  readonly #ids = new Set<number>();
  #limit: number | undefined;
  #doorbells: DoorbellAccess | null = null;
  /** Number of times that the controller lost all its queues. */
  #losses = 0;

  constructor(parts: QueuePairParts) {
    this.#parts = parts;
  }

  /** Whether there are vectors for queue pairs. */
  get interrupts(): boolean {
    return this.#parts.vectorHandlers.length > 1;
  }

  /** Queues are created from now on, in a controller that has none. */
  start(access: DoorbellAccess): void {
    this.#doorbells = access;
  }

  /** The controller has lost all queues. Their memory stays in use until they are deleted. */
  suspend(): void {
    this.#losses++;
    this.#ids.clear();
    this.#limit = undefined;
    this.#parts.vectorHandlers.fill(undefined);
  }

  /** Number of I/O queue pairs that can be created. */
  async limit(): Promise<number> {
    if (this.#limit === undefined) {
      const { admin, capabilities } = this.#parts;
      const wanted = { submission: 128, completion: 128 };
      const granted = numberOfQueues.decode(await admin.setFeature('numberOfQueues', wanted));
      const reachable = Math.floor(this.#access.doorbellBytes / (8 << capabilities.dstrd)) - 1;
      this.#limit = Math.min(granted.submission, granted.completion, reachable);
    }
    return this.#limit;
  }

  /** Creates a queue pair, as `NvmeController.createQueuePair`. */
  async create(entries: number, onInterrupt?: VectorHandler): Promise<CreatedQueuePair> {
    const { name, capabilities, arena, msix, vectorHandlers } = this.#parts;
    const most = capabilities.maxQueueEntries;
    if (!Number.isInteger(entries) || entries < 2 || entries > most) {
      throw outOfRange(`a queue of ${entries} entries is not possible; ${name} takes 2 to ${most}`);
    }
    const limit = await this.limit();
    const losses = this.#losses;
    let id = 1;
    while (this.#ids.has(id)) id++;
    if (id > limit)
      throw outOfRange(`${name} grants ${limit} I/O queue pairs, and all are in use; close one first`);
    const vector = onInterrupt === undefined ? undefined : this.#takeVector(onInterrupt);
    this.#ids.add(id);
    let place: QueuePlace | undefined;
    const forget = (): void => {
      // Another pair may have the id and the vector since.
      if (losses === this.#losses) {
        this.#ids.delete(id);
        if (vector !== undefined) vectorHandlers[vector] = undefined;
      }
      if (place !== undefined) arena.release(place.chunk);
    };
    try {
      place = placeQueue(arena, id, entries);
      await this.#createQueues(place.placement, vector);
    } catch (error) {
      // After anything but a refusal the controller may still hold the queues: then id and memory are not used again.
      if (error instanceof NvmeStatusError || place === undefined || losses !== this.#losses) forget();
      throw error;
    }
    const { placement } = place;
    const queue = new QueuePair(placement, arena.memory.buffer, this.#access.doorbells);
    const interruptFd = vector === undefined ? undefined : (msix?.fd(vector) ?? undefined);
    const remove = async (): Promise<void> => {
      try {
        if (losses === this.#losses) {
          await this.#deleteQueue(AdminOpcode.deleteIoSubmissionQueue, id);
          await this.#deleteQueue(AdminOpcode.deleteIoCompletionQueue, id);
        }
      } catch (error) {
        // A controller that was lost meanwhile has no queues either.
        if (losses === this.#losses) throw error;
      }
      forget();
    };
    let removal: Promise<void> | undefined;
    const removeOnce = (): Promise<void> =>
      (removal ??= remove().catch((error: unknown) => {
        removal = undefined;
        throw error;
      }));
    return { queue, placement, vector, interruptFd, delete: removeOnce };
  }

  get #access(): DoorbellAccess {
    if (this.#doorbells === null)
      throw new Error('unreachable: queues are created before the controller is up');
    return this.#doorbells;
  }

  async #createQueues(placement: QueuePairPlacement, vector: number | undefined): Promise<void> {
    const { admin, arena } = this.#parts;
    const { id, entries, completionOffset, submissionOffset } = placement;
    const base = arena.memory.iova;
    const cdw10 = createQueueCdw10.encode({ queueId: id, entries });
    await admin.command({
      opcode: AdminOpcode.createIoCompletionQueue,
      prp1: base + completionOffset,
      cdw10,
      cdw11: createCompletionQueueCdw11.encode({
        contiguous: true,
        interrupts: vector !== undefined,
        vector: vector ?? 0,
      }),
    });
    try {
      await admin.command({
        opcode: AdminOpcode.createIoSubmissionQueue,
        prp1: base + submissionOffset,
        cdw10,
        cdw11: createSubmissionQueueCdw11.encode({ contiguous: true, completionQueueId: id }),
      });
    } catch (error) {
      await this.#deleteQueue(AdminOpcode.deleteIoCompletionQueue, id);
      throw error;
    }
  }

  async #deleteQueue(opcode: number, queueId: number): Promise<void> {
    await this.#parts.admin.command({ opcode, cdw10: deleteQueueCdw10.encode({ queueId }) });
  }

  #takeVector(handler: VectorHandler): number {
    const { vectorHandlers } = this.#parts;
    for (let vector = 1; vector < vectorHandlers.length; vector++) {
      if (vectorHandlers[vector] !== undefined) continue;
      vectorHandlers[vector] = handler;
      return vector;
    }
    throw invalidArgument(
      'no MSI-X vector is free; attach with a larger number of vectors, or poll the queue',
    );
  }
}

/** Finds room in the arena for the queues of an id: the submission queue, and at the next page the completion queue. */
export function placeQueue(arena: DmaArena, id: number, entries: number): QueuePlace {
  const completions = Math.ceil((entries * SQE_BYTES) / NVME_PAGE) * NVME_PAGE;
  const chunk = arena.allocate(completions + entries * CQE_BYTES);
  const placement = {
    id,
    entries,
    submissionOffset: chunk.offset,
    completionOffset: chunk.offset + completions,
  };
  return { placement, chunk };
}
