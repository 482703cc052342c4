// SPDX-License-Identifier: MIT
import { HEADER_SIZE, decodeHeader, type Header } from '../../lib/protocol';

/** A message that was cut out of a stream. `payload` is a copy. */
export interface Cut {
  readonly header: Header;
  readonly payload: Uint8Array;
}

/** Cuts a stream of bytes into messages, as the specification has it: independently of the code that is fuzzed. */
export class MessageCutter {
  #bytes = new Uint8Array(1 << 16);
  #have = 0;

  /** Bytes of a message that is not complete. */
  get partial(): number {
    return this.#have;
  }

  /**
   * Takes bytes.
   *
   * @param limit largest message with its header
   * @param into where the messages go that are complete
   * @returns false when a header cannot be: nothing can be read after it
   */
  push(bytes: Uint8Array, limit: number, into: Cut[]): boolean {
    if (this.#have + bytes.length > this.#bytes.length) {
      const grown = new Uint8Array(2 * (this.#have + bytes.length));
      grown.set(this.#bytes.subarray(0, this.#have));
      this.#bytes = grown;
    }
    this.#bytes.set(bytes, this.#have);
    this.#have += bytes.length;
    const view = new DataView(this.#bytes.buffer);
    let at = 0;
    while (this.#have - at >= HEADER_SIZE) {
      const header = decodeHeader(view, at);
      if (header.size < HEADER_SIZE || header.size > limit || (header.flags & 0xf) > 1) return false;
      if (this.#have - at < header.size) break;
      into.push({ header, payload: this.#bytes.slice(at + HEADER_SIZE, at + header.size) });
      at += header.size;
    }
    this.#bytes.copyWithin(0, at, this.#have);
    this.#have -= at;
    return true;
  }
}
