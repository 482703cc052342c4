// SPDX-License-Identifier: MIT
import type { DmaContainer } from '../dma/container';
import type { DmaAccess } from '../dma/memory';
import { CommandError, Errno, type ClientFile, type ClientMemory, type ClientRange } from '../server';
import type { Steps } from './steps';

/**
 * The client's memory, at the same addresses for the device: by its own descriptors, or, where it sent none, by messages that are
 * asked of the client in turn.
 */
export class ProxiedMemory {
  readonly #container: DmaContainer;
  readonly #steps: Steps;

  constructor(container: DmaContainer, steps: Steps) {
    this.#container = container;
    this.#steps = steps;
  }

  /** @throws CommandError when the device does not take the range */
  async map(range: ClientRange, file: ClientFile | null, client: ClientMemory): Promise<void> {
    const { iova, size } = range;
    await this.#steps.act({ kind: 'map', range, hasFile: file !== null }, async () => {
      const access = accessOf(range);
      if (file !== null) await this.#container.map({ iova, size, access, fd: file.fd, offset: file.offset });
      else await this.#container.map({ iova, size, access, relay: this.#relay(client) });
    });
  }

  /** @throws CommandError when the device does not let go of the range */
  async unmap(range: ClientRange): Promise<void> {
    await this.#steps.act({ kind: 'unmap', range }, () => this.#container.unmap(range.iova, range.size));
  }

  /** Takes everything from the device. */
  async release(): Promise<void> {
    await this.#container.unmapAll();
  }

  #relay(client: ClientMemory): { read: ClientMemory['read']; write: ClientMemory['write'] } {
    return {
      read: (iova, length) =>
        this.#steps.act({ kind: 'dma-read', iova: BigInt(iova), length }, () => client.read(iova, length)),
      write: (iova, data) =>
        this.#steps.act({ kind: 'dma-write', iova: BigInt(iova), length: data.length }, () =>
          client.write(iova, data),
        ),
    };
  }
}

function accessOf({ readable, writable }: ClientRange): DmaAccess {
  if (readable) return writable ? 'readwrite' : 'read';
  if (writable) return 'write';
  throw new CommandError(Errno.EINVAL, 'a range that may be neither read nor written');
}
