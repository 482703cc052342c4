// SPDX-License-Identifier: MIT
import { walkPrp } from '../spec/prp';
import { MAX_SGL_DESCRIPTORS, walkSgl } from '../spec/sgl';
import type { ClientView, ViewRange } from './client-view';
import { Outcome, pointerOutcome } from './outcome';

/** Memory pages of the controller: CAP.MPSMIN and CAP.MPSMAX are both 4 KiB. */
export const PAGE_BYTES = 4096;

/** Greatest address of the first byte of a page: those of its last bytes are safe integers too. */
const MAX_ADDRESS = Number.MAX_SAFE_INTEGER - PAGE_BYTES;

/** PRP lists and SGL segments that had to be fetched by message. The keys are their addresses. */
export type FetchedLists = Map<number, Uint32Array>;

/**
 * Where the data of one command is in the client's memory, as PRPs (NVMe base 2.0, 4.1.1) or SGLs (4.1.2) tell. One
 * object serves command after command: the hot path allocates nothing. Parts that follow each other in memory are joined.
 */
export class DataPointer {
  /** Number of parts. */
  count = 0;
  /** Address of each part. */
  readonly addresses: Float64Array;
  /** Bytes of each part. */
  readonly lengths: Int32Array;
  /** Range that holds each part; null for a part that is not mapped here. */
  readonly ranges: (ViewRange | null)[];
  /** Whether each part is mapped here and may be accessed as asked for. */
  mapped = true;
  /** Address of the PRP list or SGL segment that is not mapped here; -1 when that is not what stopped {@link resolve}. */
  missingList = -1;
  /** Bytes of the list at {@link missingList}. */
  missingBytes = 0;

  readonly #view: ClientView;
  #toClient = false;
  #lists: FetchedLists | undefined;
  readonly #visit = (address: number, length: number): void => {
    this.#add(address, length);
  };
  readonly #readList = (address: number, count: number): Uint32Array | undefined =>
    this.#list(address, count * 2);
  readonly #readSegment = (address: number, words: number): Uint32Array | undefined =>
    this.#list(address, words);

  /** @param maxTransfer greatest length of the data in bytes */
  constructor(view: ClientView, maxTransfer: number) {
    this.#view = view;
    const parts = Math.max(maxTransfer / PAGE_BYTES + 1, MAX_SGL_DESCRIPTORS);
    this.addresses = new Float64Array(parts);
    this.lengths = new Int32Array(parts);
    this.ranges = new Array<ViewRange | null>(parts).fill(null);
  }

  /**
   * Resolves PRP1 and PRP2.
   *
   * @param length bytes, at least 1, at most the `maxTransfer` of the constructor
   * @param toClient whether the controller writes the data to the client's memory
   * @param lists lists that were {@link missingList} before, and have been fetched
   * @returns an {@link Outcome}. When it is success, look at {@link mapped} too
   */
  resolve(prp1: number, prp2: number, length: number, toClient: boolean, lists?: FetchedLists): number {
    this.#begin(toClient, lists);
    // Most commands have one page. The remainder of a double is slow: a product of a floor is not.
    const inPage = prp1 - Math.floor(prp1 / PAGE_BYTES) * PAGE_BYTES;
    if (inPage + length <= PAGE_BYTES && (inPage & 3) === 0 && prp1 <= MAX_ADDRESS) {
      this.#add(prp1, length);
      return Outcome.success;
    }
    return pointerOutcome(walkPrp(prp1, prp2, length, PAGE_BYTES, this.#readList, this.#visit));
  }

  /**
   * Resolves the SGL descriptor of a command, as {@link resolve} does PRPs.
   *
   * @param address first two words of the descriptor
   * @param size third word of the descriptor
   * @param lastWord fourth word of the descriptor
   */
  resolveSgl(
    address: number,
    size: number,
    lastWord: number,
    length: number,
    toClient: boolean,
    lists?: FetchedLists,
  ): number {
    this.#begin(toClient, lists);
    return pointerOutcome(walkSgl(address, size, lastWord, length, this.#readSegment, this.#visit));
  }

  #begin(toClient: boolean, lists: FetchedLists | undefined): void {
    this.count = 0;
    this.mapped = true;
    this.missingList = -1;
    this.#toClient = toClient;
    this.#lists = lists;
  }

  #add(address: number, length: number): void {
    const last = this.count - 1;
    const range = this.#view.find(address, length);
    if (range === null || !(this.#toClient ? range.writable : range.readable)) this.mapped = false;
    if (
      last >= 0 &&
      this.ranges[last] === range &&
      (this.addresses[last] as number) + (this.lengths[last] as number) === address
    ) {
      this.lengths[last] = (this.lengths[last] as number) + length;
      return;
    }
    this.addresses[this.count] = address;
    this.lengths[this.count] = length;
    this.ranges[this.count] = range;
    this.count++;
  }

  #list(address: number, words: number): Uint32Array | undefined {
    const fetched = this.#lists?.get(address);
    if (fetched !== undefined) return fetched;
    const range = this.#view.find(address, words * 4);
    const offset = range === null ? 0 : range.bias + address;
    if (range !== null && range.readable && offset % 4 === 0) {
      return new Uint32Array(range.buffer, offset, words);
    }
    this.missingList = address;
    this.missingBytes = words * 4;
    return undefined;
  }
}
