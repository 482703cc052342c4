// SPDX-License-Identifier: MIT
/** A host of the emulated controller, whose queues are shared memory. */
import { AdminOpcode, type NvmOpcode, Register } from '../lib/nvme/spec';
import {
  Code,
  Mapping,
  closeFd,
  createSharedMemory,
  dmaMap,
  pause,
  regionWrite,
  u32,
  type HostileClient,
} from './hostile-client';

/** Queue pairs of the controller, and entries of each. */
export const QUEUES = 64;
const ENTRIES = 1024;
const ADMIN_ENTRIES = 64;
/** Bytes of a command's data, as many as the controller takes. */
const TRANSFER = 128 << 10;

/** Where things are in the shared memory, which begins at address BASE. */
const BASE = 2 ** 20;
const ADMIN_COMPLETIONS = 0x1_0000;
const LIST = 0x2_0000;
const FIRST_QUEUE = 0x10_0000;
const QUEUE_BYTES = 0x2_0000;
const COMPLETIONS = 0x1_0000;
const SHARED_DATA = FIRST_QUEUE + QUEUES * QUEUE_BYTES;
const SHARED_BYTES = SHARED_DATA + 2 * TRANSFER;
/** Memory that comes without a descriptor. */
const DISTANT_DATA = 2 ** 32;

const PAGE = 4096;
const SQE_WORDS = 16;
const CQE_WORDS = 4;
/** CC.EN, and the sizes of the entries of queues. */
const ENABLE = 0x46_0001;

/** A 64-bit value below 2^53 as two words. */
const words = (value: number): [number, number] => [value % 2 ** 32, Math.floor(value / 2 ** 32)];

/** A controller that a hostile client has enabled, with all queues that it may have. */
export class HostileHost {
  readonly #client: HostileClient;
  readonly #words: Int32Array;
  #adminTail = 0;

  constructor(client: HostileClient) {
    this.#client = client;
    const fd = createSharedMemory(SHARED_BYTES);
    this.#words = new Int32Array(Mapping.map(fd, 0, SHARED_BYTES).buffer);
    client.ask(Code.dmaMap, dmaMap(BASE, SHARED_BYTES), [fd]);
    closeFd(fd);
    client.ask(Code.dmaMap, dmaMap(DISTANT_DATA, 2 * TRANSFER));
    this.#register(Register.aqa, ((ADMIN_ENTRIES - 1) << 16) | (ADMIN_ENTRIES - 1));
    this.#register(Register.asq, BASE);
    this.#register(Register.acq, BASE + ADMIN_COMPLETIONS);
    this.#register(Register.cc, ENABLE);
    for (let queue = 1; queue <= QUEUES; queue++) this.#createQueue(queue);
  }

  /**
   * Fills all queues with reads, or writes, of {@link TRANSFER} bytes, and rings all doorbells.
   *
   * @param distant whether the data is reached by message
   */
  fill(opcode: typeof NvmOpcode.read | typeof NvmOpcode.write, distant: boolean): void {
    const data = distant ? DISTANT_DATA : BASE + SHARED_DATA;
    // Pages that do not follow each other, so that each is a message of its own.
    for (let page = 1; page < TRANSFER / PAGE; page++)
      this.#words.set(words(data + 2 * page * PAGE), LIST / 4 + 2 * page - 2);
    for (let queue = 1; queue <= QUEUES; queue++) {
      for (let entry = 0; entry < ENTRIES - 1; entry++) {
        const at = (FIRST_QUEUE + (queue - 1) * QUEUE_BYTES) / 4 + entry * SQE_WORDS;
        this.#words.fill(0, at, at + SQE_WORDS);
        this.#words.set([(entry << 16) | opcode, 1], at);
        // PRP1 is a page of data, PRP2 the list of the others.
        this.#words.set([...words(data), ...words(BASE + LIST)], at + 6);
        this.#words[at + 12] = TRANSFER / 512 - 1;
      }
      this.#ring(queue, ENTRIES - 1);
    }
  }

  /** Number of commands that were filled in. */
  readonly commands = QUEUES * (ENTRIES - 1);

  /** Number of those that have completed. */
  get completed(): number {
    let count = 0;
    for (let queue = 0; queue < QUEUES; queue++) {
      const at = (FIRST_QUEUE + queue * QUEUE_BYTES + COMPLETIONS) / 4;
      for (let entry = 0; entry < ENTRIES - 1; entry++) {
        const status = (this.#words[at + entry * CQE_WORDS + 3] as number) >>> 16;
        if (status > 1) throw new Error(`A command ended with status 0x${(status >>> 1).toString(16)}`);
        count += status;
      }
    }
    return count;
  }

  #createQueue(queue: number): void {
    const at = BASE + FIRST_QUEUE + (queue - 1) * QUEUE_BYTES;
    const cdw10 = ((ENTRIES - 1) << 16) | queue;
    this.#admin(AdminOpcode.createIoCompletionQueue, at + COMPLETIONS, cdw10, 1);
    this.#admin(AdminOpcode.createIoSubmissionQueue, at, cdw10, (queue << 16) | 1);
  }

  /** Sends an admin command, and waits until it is done. */
  #admin(opcode: number, prp1: number, cdw10: number, cdw11: number): void {
    const at = this.#adminTail * SQE_WORDS;
    this.#words.fill(0, at, at + SQE_WORDS);
    this.#words[at] = opcode;
    this.#words.set([prp1, 0, 0, 0, cdw10, cdw11], at + 6);
    const completion = ADMIN_COMPLETIONS / 4 + this.#adminTail * CQE_WORDS + 3;
    const before = this.#words[completion] as number;
    this.#adminTail = (this.#adminTail + 1) % ADMIN_ENTRIES;
    this.#ring(0, this.#adminTail);
    while (Atomics.load(this.#words, completion) >>> 16 === before >>> 16) pause(1);
    // All completions are taken: the head follows.
    this.#register(Register.doorbells + 4, this.#adminTail);
  }

  #ring(queue: number, tail: number): void {
    this.#register(Register.doorbells + 8 * queue, tail);
  }

  #register(offset: number, value: number): void {
    this.#client.ask(Code.regionWrite, regionWrite(0, offset, u32(value)));
  }
}
