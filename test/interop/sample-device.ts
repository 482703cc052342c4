// SPDX-License-Identifier: MIT
import { Mapping, closeFd, createSharedMemory } from '../../lib/native';
import { PciRegion } from '../../lib/pci';
import {
  CommandError,
  Errno,
  type Client,
  type ClientRange,
  type MigrationModel,
  type MigrationSink,
  type MigrationStateName,
  type PciDeviceModel,
  type ServedRegion,
} from '../../lib/server';

const PAGE = 0x1000;
const BAR0_SIZE = 8;

/**
 * The device that libvfio-user's `samples/client.c` expects, as its `samples/server.c` is: a time in seconds in BAR 0, at
 * which it signals INTx and does DMA, and BAR 1 with two pages that can be mapped, which migrates.
 */
export class SampleDevice implements PciDeviceModel {
  readonly name = 'sample';
  // BAR 1 of the client's idea has a size that no configuration space can tell.
  readonly pci = {
    vendorId: 0xdead,
    deviceId: 0xbeef,
    subsystemVendorId: 0xcafe,
    subsystemId: 0xbabe,
    classCode: 0,
    interruptPin: 1,
    size: 256,
  } as const;
  readonly regions: ReadonlyMap<number, ServedRegion>;
  readonly migration: MigrationModel;
  /** What happened, in words. */
  readonly events: string[] = [];
  readonly #fd: number;
  readonly #mapping: Mapping;
  readonly #bar1: Uint8Array;
  readonly #ranges: ClientRange[] = [];
  #bar0: Uint8Array = new Uint8Array(BAR0_SIZE);
  #state: MigrationStateName = 'running';
  #client: Client | null = null;
  #timer: NodeJS.Timeout | undefined;

  /** @param bar1Size bytes; the client has its own idea of them */
  constructor(bar1Size: number) {
    this.#fd = createSharedMemory(bar1Size);
    this.#mapping = Mapping.map(this.#fd, 0, bar1Size);
    this.#bar1 = new Uint8Array(this.#mapping.buffer);
    const areas = [
      { offset: 0, size: PAGE },
      { offset: 2 * PAGE, size: PAGE },
    ];
    this.regions = new Map<number, ServedRegion>([
      [PciRegion.bar0, this.#timeRegion()],
      [
        PciRegion.bar1,
        {
          size: bar1Size,
          shared: { fd: this.#fd, offset: 0, areas },
          read: (offset, data) => {
            data.set(this.#bar1.subarray(offset, offset + data.length));
          },
          write: (offset, data) => {
            this.#bar1.set(data, offset);
          },
        },
      ],
    ]);
    this.migration = {
      preCopy: true,
      // BAR 1 may change until the device stops: then it is given again, and BAR 0 with it.
      save: (mode) => [this.#bar1.slice(), ...(mode === 'stopCopy' ? [this.#bar0.slice()] : [])],
      load: () => this.#load(),
      stateChanged: (from, to) => {
        this.events.push(`${from} > ${to}`);
        this.#state = to;
        if (to === 'running') this.#arm();
        else if (to === 'stop' || to === 'stopCopy') clearTimeout(this.#timer);
      },
    };
  }

  attach(client: Client): void {
    this.#client = client;
  }

  detach(): void {
    clearTimeout(this.#timer);
    this.#client = null;
    this.#ranges.length = 0;
    this.events.push('detached');
  }

  mapped(range: ClientRange): void {
    this.#ranges.push(range);
  }

  unmapping(range: ClientRange): void {
    this.#ranges.splice(this.#ranges.indexOf(range), 1);
    if (this.#ranges.length === 0) this.events.push('all unmapped');
  }

  reset(): void {
    this.events.push('reset');
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#mapping.close();
    closeFd(this.#fd);
  }

  #timeRegion(): ServedRegion {
    const check = (offset: number, data: Uint8Array): void => {
      if (offset !== 0 || data.length !== BAR0_SIZE)
        throw new CommandError(Errno.EINVAL, 'BAR 0 is accessed as a whole');
    };
    return {
      size: BAR0_SIZE,
      read: (offset, data) => {
        check(offset, data);
        new DataView(data.buffer, data.byteOffset).setBigInt64(0, now() - this.#time(), true);
      },
      write: (offset, data) => {
        check(offset, data);
        this.#bar0 = data.slice();
        if (this.#state === 'running') this.#arm();
      },
    };
  }

  #time(): bigint {
    return new DataView(this.#bar0.buffer).getBigInt64(0, true);
  }

  #arm(): void {
    clearTimeout(this.#timer);
    const seconds = Number(this.#time() - now());
    if (seconds <= 0) return;
    this.#timer = setTimeout(() => {
      this.#fire().catch((error: unknown) => this.events.push(`failed: ${String(error)}`));
    }, seconds * 1000);
  }

  /** The client serves the messages when the interrupt has come, and expects four writes before the first read. */
  async #fire(): Promise<void> {
    const [first, second] = this.#ranges;
    const client = this.#client;
    if (client === null || first === undefined || second === undefined) throw new Error('nothing is mapped');
    this.events.push(`INTx ${client.setInterrupt(true) ? 'signalled' : 'lost'}`);
    const letters = Buffer.concat(['A', 'B', 'C', 'D'].map((letter) => Buffer.alloc(PAGE / 4, letter)));
    const place = client.memory.place(second.iova, PAGE, 'readwrite');
    if (place === null) throw new Error('the second range is not mapped here');
    new Uint8Array(place.buffer, place.offset, PAGE).set(letters);
    client.memory.markDirty(second.iova, PAGE);
    if (first.buffer !== null)
      throw new Error('the first range is mapped here, and is not written by message');
    await client.memory.write(first.iova, letters);
    const back = await client.memory.read(first.iova, PAGE);
    this.events.push(Buffer.compare(back, letters) === 0 ? 'DMA done' : 'DMA differs');
  }

  #load(): MigrationSink {
    const chunks: Uint8Array[] = [];
    return {
      write: (chunk) => {
        chunks.push(chunk.slice());
      },
      finish: () => {
        const data = Buffer.concat(chunks);
        if (data.length !== this.#bar1.length + BAR0_SIZE)
          throw new CommandError(Errno.EINVAL, `${data.length} bytes of state`);
        this.#bar1.set(data.subarray(0, this.#bar1.length));
        this.#bar0 = new Uint8Array(data.subarray(this.#bar1.length));
      },
    };
  }
}

/** Seconds since 1970. */
function now(): bigint {
  return BigInt(Math.floor(Date.now() / 1000));
}
