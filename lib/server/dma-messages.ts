// SPDX-License-Identifier: MIT
import { VfioUserError } from '../errors';
import {
  Command,
  decodeDmaReadReply,
  decodeDmaWriteReply,
  encodeDmaReadRequest,
  encodeDmaWriteRequest,
  type DmaCountSize,
} from '../protocol';
import type { Connection } from '../transport';

/**
 * Most bytes that are asked for with a DMA_READ. QEMU (hw/vfio-user/proxy.c, vfio_user_send_one) sends a message with one
 * call and forgets what the socket's send buffer did not take, 208 KiB of an idle one. The kernel takes pieces of about
 * 36 KiB whole or not at all.
 */
const MAX_READ = 32 << 10;

/** Moves bytes from and to the client's memory by message (vfio-user, VFIO_USER_DMA_READ and VFIO_USER_DMA_WRITE). */
export class DmaMessages {
  readonly #connection: Connection;
  readonly #maxTransfer: number;
  /** How the client writes counts, once it is known to deviate. */
  #countSize: DmaCountSize | undefined;

  /**
   * @param connection the one that commands of the server go through
   * @param maxTransfer most bytes of one message
   */
  constructor(connection: Connection, maxTransfer: number) {
    this.#connection = connection;
    this.#maxTransfer = maxTransfer;
  }

  /** @throws VfioUserError when the client refuses, is gone, or does not answer in time */
  async read(address: bigint, into: Uint8Array): Promise<void> {
    for (const { at, part } of chunks(into, Math.min(this.#maxTransfer, MAX_READ))) {
      const asked = { address: address + BigInt(at), count: part.byteLength };
      const { payload, fds } = await this.#connection.request({
        command: Command.dmaRead,
        payload: encodeDmaReadRequest(asked),
      });
      fds.close();
      const { count, data, countSize } = decodeDmaReadReply(payload, asked, this.#countSize);
      if (countSize === 4) this.#countSize = countSize;
      if (count < asked.count) throw shortTransfer('DMA_READ', count, asked.count);
      part.set(data);
    }
  }

  /** @throws VfioUserError when the client refuses, is gone, or does not answer in time */
  async write(address: bigint, from: Uint8Array): Promise<void> {
    for (const { at, part } of chunks(from, this.#maxTransfer)) {
      const asked = { address: address + BigInt(at), count: part.byteLength };
      const { payload, fds } = await this.#connection.request({
        command: Command.dmaWrite,
        payload: encodeDmaWriteRequest(asked),
        data: part,
      });
      fds.close();
      const { count } = decodeDmaWriteReply(payload, asked);
      if (count < asked.count) throw shortTransfer('DMA_WRITE', count, asked.count);
    }
  }
}

function* chunks(data: Uint8Array, most: number): Generator<{ at: number; part: Uint8Array }> {
  for (let at = 0; at < data.byteLength; at += most) yield { at, part: data.subarray(at, at + most) };
}

function shortTransfer(command: string, count: number, asked: number): VfioUserError {
  return new VfioUserError(
    'ERR_VFIO_USER_DMA',
    `the client transferred ${count} of ${asked} bytes with ${command}`,
    { command },
  );
}
