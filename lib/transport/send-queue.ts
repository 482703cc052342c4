// SPDX-License-Identifier: MIT
import { closeFd, duplicateFd } from '../native';
import { copyBytes } from '../native/copy-bytes';
import { Fifo } from './fifo';

/** Where a {@link SendQueue} puts bytes: a socket, or a test. */
export interface ByteSink {
  /** One sendmsg of `head[0..headLength)` and `body[bodyOffset..)`; bytes accepted, 0 when it would block. */
  send(
    head: Uint8Array,
    headLength: number,
    body: Uint8Array | null,
    bodyOffset: number,
    fds: readonly number[] | null,
  ): number;
}

interface Chunk {
  readonly bytes: Uint8Array;
  sent: number;
  /** Duplicates of the sender's descriptors, owned by the queue; they go with the first byte. */
  fds: number[] | null;
  readonly isReply: boolean;
}

const NOTHING = new Uint8Array(0);
/** Bytes gathered at most: within one piece of what the kernel cuts messages into, so that each arrives whole. */
const GATHERED_SIZE = 16 << 10;

/**
 * Messages on their way out. A message leaves in one sendmsg when the socket takes it, and that is the normal case;
 * what the socket does not take is copied and waits, in order. Small messages can be gathered into one sendmsg.
 */
export class SendQueue {
  readonly #sink: ByteSink;
  readonly #chunks = new Fifo<Chunk>();
  #gathered = NOTHING;
  #gatheredBytes = 0;
  #bytes = 0;
  #replyBytes = 0;

  constructor(sink: ByteSink) {
    this.#sink = sink;
  }

  /** Bytes that wait for the socket. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Those of them that belong to replies, and so were asked for by the peer. */
  get replyBytes(): number {
    return this.#replyBytes;
  }

  /**
   * Gathers a message without descriptors, to be sent by {@link release} or before the next one that is not gathered;
   * false when it is too large for that.
   */
  gather(head: Uint8Array, headLength: number, data: Uint8Array | null): boolean {
    const total = headLength + (data?.length ?? 0);
    // What waits for the socket goes first.
    if (this.#chunks.length > 0 || total > GATHERED_SIZE) return false;
    if (this.#gatheredBytes + total > GATHERED_SIZE) {
      this.release();
      if (this.#chunks.length > 0) return false;
    }
    if (this.#gathered.length === 0) this.#gathered = new Uint8Array(GATHERED_SIZE);
    const start = this.#gatheredBytes;
    copyBytes(head, 0, headLength, this.#gathered, start);
    if (data !== null) this.#gathered.set(data, start + headLength);
    this.#gatheredBytes += total;
    return true;
  }

  /** Sends or queues what was gathered. */
  release(): void {
    const count = this.#gatheredBytes;
    this.#gatheredBytes = 0;
    if (count > 0) this.#push(this.#gathered, count, null, null, false);
  }

  /** Sends or queues one message. The caller may reuse `head`, `data` and close `fds` when this returns. */
  push(
    head: Uint8Array,
    headLength: number,
    data: Uint8Array | null,
    fds: readonly number[] | null,
    isReply: boolean,
  ): void {
    this.release();
    this.#push(head, headLength, data, fds, isReply);
  }

  #push(
    head: Uint8Array,
    headLength: number,
    data: Uint8Array | null,
    fds: readonly number[] | null,
    isReply: boolean,
  ): void {
    const total = headLength + (data?.length ?? 0);
    let sent = 0;
    if (this.#chunks.length === 0) sent = this.#sink.send(head, headLength, data, 0, fds);
    if (sent === total) return;

    const rest = new Uint8Array(total - sent);
    if (sent < headLength) rest.set(head.subarray(sent, headLength));
    if (data !== null) {
      const from = Math.max(0, sent - headLength);
      rest.set(data.subarray(from), Math.max(0, headLength - sent));
    }
    const waiting = sent === 0 && fds !== null && fds.length > 0 ? duplicateAll(fds) : null;
    this.#chunks.push({ bytes: rest, sent: 0, fds: waiting, isReply });
    this.#bytes += rest.length;
    if (isReply) this.#replyBytes += rest.length;
  }

  /** Hands waiting bytes to the socket; true when none are left. */
  flush(): boolean {
    let chunk: Chunk | undefined;
    while ((chunk = this.#chunks.peek()) !== undefined) {
      const count = this.#sink.send(NOTHING, 0, chunk.bytes, chunk.sent, chunk.fds);
      if (count === 0) return false;
      closeAll(chunk);
      chunk.sent += count;
      this.#bytes -= count;
      if (chunk.isReply) this.#replyBytes -= count;
      if (chunk.sent < chunk.bytes.length) return false;
      this.#chunks.shift();
    }
    return true;
  }

  /** Drops what waits. */
  clear(): void {
    for (let chunk; (chunk = this.#chunks.shift()) !== undefined;) closeAll(chunk);
    this.#bytes = 0;
    this.#replyBytes = 0;
    this.#gatheredBytes = 0;
  }
}

/** All of them or, when the process may have no more descriptors, none. */
function duplicateAll(fds: readonly number[]): number[] {
  const copies: number[] = [];
  try {
    for (const fd of fds) copies.push(duplicateFd(fd));
  } catch (error) {
    for (const copy of copies) closeFd(copy);
    throw error;
  }
  return copies;
}

function closeAll(chunk: Chunk): void {
  for (const fd of chunk.fds ?? []) closeFd(fd);
  chunk.fds = null;
}
