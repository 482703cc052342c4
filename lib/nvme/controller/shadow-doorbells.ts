// SPDX-License-Identifier: MIT
import type { ClientView } from './client-view';
import { PAGE_BYTES } from './data-pointer';

/**
 * An event index that the host's tail or head does not go past, but when it wraps: no doorbell is wanted. The host compares modulo
 * 2^16.
 */
const NEVER = -1;

/**
 * The doorbells in the host's memory (Doorbell Buffer Config; NVMe base 2.0, 5.8 and B.5): two pages, of which one has what the host
 * would write to the doorbells, and the other what of that the controller wants to be told by a doorbell. A guest whose
 * doorbells are trapped stops at the hypervisor only for those.
 */
export class ShadowDoorbells {
  /** The page that the host writes; null while there is none, or it is not mapped here. */
  words: Int32Array | null = null;
  #events: Int32Array | null = null;
  #addresses: readonly [shadow: number, events: number] | null = null;
  readonly #view: ClientView;
  readonly #stride: number;

  /** @param dstrd CAP.DSTRD: shadows are as far from each other as doorbells */
  constructor(view: ClientView, dstrd: number) {
    this.#view = view;
    this.#stride = 2 ** dstrd;
  }

  /** Whether the host has given the pages. */
  get active(): boolean {
    return this.#addresses !== null;
  }

  /** Takes the addresses of the pages. False when they are not mapped here: then nothing is changed. */
  start(shadow: number, events: number): boolean {
    const before = this.#addresses;
    this.#addresses = [shadow, events];
    if (this.find()) return true;
    this.#addresses = before;
    if (before !== null) this.find();
    return false;
  }

  /** Forgets the pages. */
  stop(): void {
    this.#addresses = null;
    this.forget();
  }

  /** Forgets where the pages are mapped. */
  forget(): void {
    this.words = null;
    this.#events = null;
  }

  /** Looks for the pages. False when there are none, or they are not mapped here. */
  find(): boolean {
    this.forget();
    if (this.#addresses === null) return false;
    const [shadow, events] = this.#addresses;
    const words = this.#page(shadow);
    const eventWords = this.#page(events);
    if (words === null || eventWords === null) return false;
    this.words = words;
    this.#events = eventWords;
    return true;
  }

  /** Index in {@link words} of the tail of a submission queue. */
  tailWord(queueId: number): number {
    return 2 * queueId * this.#stride;
  }

  /** Index in {@link words} of the head of a completion queue. */
  headWord(queueId: number): number {
    return (2 * queueId + 1) * this.#stride;
  }

  /**
   * Tells the host what it has to ring a doorbell for.
   * @param word index of a shadow
   * @param from the value that it has; null when no doorbell is wanted
   */
  want(word: number, from: number | null): void {
    // A full barrier: what the host has stored before it saw this is found when the shadows are looked at next.
    if (this.#events !== null) Atomics.store(this.#events, word, from ?? NEVER);
  }

  #page(address: number): Int32Array | null {
    const range = this.#view.find(address, PAGE_BYTES);
    if (range === null || !range.readable || !range.writable) return null;
    const offset = range.bias + address;
    return offset % 4 === 0 ? new Int32Array(range.buffer, offset, PAGE_BYTES / 4) : null;
  }
}
