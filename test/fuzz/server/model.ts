// SPDX-License-Identifier: MIT
import { setImmediate as turn } from 'node:timers/promises';
import { EventFd, Socket, closeFd, createSharedMemory } from '../../../lib/native';
import { PciIrq, PciRegion } from '../../../lib/pci';
import {
  CommandError,
  Errno,
  type Client,
  type ClientRange,
  type MigrationModel,
  type PciDeviceModel,
  type ServedFunction,
  type ServedRegion,
} from '../../../lib/server';

/** What the model throws on purpose. The server reports it, and answers EIO. */
export const MODEL_FAILURE = 'the model fails here';
const BAR_SIZE = 0x4000;
const VECTORS = 16;

export const VENDOR = 0x494f;
export const DEVICE = 0x0f22;

/** A device with every feature that a model can have. It outlives its clients. */
export class EverythingModel implements PciDeviceModel {
  readonly name = 'everything';
  readonly pci: ServedFunction;
  readonly regions = new Map<number, ServedRegion>();
  readonly irqs = new Map<number, number>([[PciIrq.req, 0]]);
  readonly migration: MigrationModel;
  readonly #event = EventFd.create();
  readonly #shadow = createSharedMemory(4096);
  readonly #sockets = Socket.pair();
  #client: Client | null = null;
  #file = -1;
  #state: Uint8Array = new Uint8Array(5000);

  constructor() {
    const registers = new Uint8Array(BAR_SIZE);
    const plain = (size: number): ServedRegion => ({
      size,
      read: (offset, data) => {
        data.set(registers.subarray(offset % BAR_SIZE, (offset % BAR_SIZE) + data.length));
      },
      write: (offset, data) => {
        if (offset + data.length <= BAR_SIZE) registers.set(data, offset);
      },
    });
    this.pci = {
      vendorId: VENDOR,
      deviceId: DEVICE,
      classCode: 0xff0000,
      interruptPin: 1,
      bars: {
        0: {
          kind: 'memory64',
          ...plain(BAR_SIZE),
          shared: { fd: () => this.#file, offset: 0, areas: [{ offset: 0x1000, size: 0x1000 }] },
        },
        4: { kind: 'memory32', size: 0x2000 },
      },
      capabilities: [
        { kind: 'power-management' },
        { kind: 'express', functionLevelReset: true },
        { kind: 'msi', vectors: 4 },
        {
          kind: 'msix',
          vectors: VECTORS,
          table: { bar: PciRegion.bar4, offset: 0 },
          pba: { bar: PciRegion.bar4, offset: 0x1000 },
        },
      ],
    };
    this.regions.set(PciRegion.bar1, failing());
    this.regions.set(PciRegion.bar2, {
      size: 1 << 20,
      read: () => undefined,
      write: (_offset, data) => this.#obey(data),
    });
    this.regions.set(PciRegion.bar3, slow());
    this.regions.set(PciRegion.bar5, {
      ...plain(0x1000),
      ioFds: [
        { kind: 'ioeventfd', offset: 0, size: 4, fd: this.#event.fd },
        { kind: 'ioeventfd', offset: 8, size: 8, fd: this.#event.fd, datamatch: 7n },
        {
          kind: 'shadow-ioeventfd',
          offset: 16,
          size: 4,
          fd: this.#event.fd,
          shadow: { fd: this.#shadow, offset: 0 },
        },
        { kind: 'ioregionfd', offset: 0x100, size: 0x100 },
        { kind: 'ioregionfd', offset: 0x200, size: 0, postedWrites: true },
        { kind: 'ioregionfd', offset: 0x300, size: 8, fd: this.#sockets[1].fd, userData: 99 },
      ],
    });
    this.regions.set(PciRegion.rom, { size: 0x800, read: (_offset, data) => void data.fill(0x55) });
    this.regions.set(PciRegion.vga, { size: Number.MAX_SAFE_INTEGER, read: () => undefined });
    this.regions.set(9, { size: 64, type: { type: 0x8000_494f, subtype: 1 } });
    this.migration = {
      preCopy: true,
      save: (mode) => (mode === 'preCopy' ? this.#early() : this.#late()),
      load: () => {
        const chunks: Uint8Array[] = [];
        return {
          write: async (chunk) => {
            if (chunk[0] === 0xff) throw new Error(MODEL_FAILURE);
            if (chunks.length < 100) chunks.push(chunk.slice());
            await turn();
          },
          finish: () => {
            this.#state = new Uint8Array(Buffer.concat(chunks)).slice(0, 1 << 20);
            if (this.#state[1] === 0xfe) throw new Error(MODEL_FAILURE);
          },
        };
      },
      stateChanged: async (_from, to) => {
        if (to === 'preCopy') await turn();
      },
    };
  }

  attach(client: Client): void {
    this.#client = client;
    this.#file = createSharedMemory(BAR_SIZE);
  }

  detach(): void {
    this.#client = null;
    if (this.#file >= 0) closeFd(this.#file);
    this.#file = -1;
  }

  unmapping({ iova }: ClientRange): Promise<void> | undefined {
    return iova % 0x4000n === 0n ? turn() : undefined;
  }

  async reset(): Promise<void> {
    this.#state = new Uint8Array(5000);
    await turn();
  }

  close(): void {
    this.detach();
    this.#event.close();
    closeFd(this.#shadow);
    for (const socket of this.#sockets) socket.close();
  }

  /**
   * Does what a write of 16 bytes to region 2 orders (u8 what, u8 how, u16 vector, u32 length, u64 iova): access to the client's
   * memory, interrupts. With bit 0 of `how` the write is answered when it is done.
   */
  #obey(data: Uint8Array): Promise<void> | undefined {
    const client = this.#client;
    if (data.length !== 16 || client === null) return undefined;
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    const vector = view.getUint16(2, true);
    const length = view.getUint32(4, true) & 0x1f_ffff;
    const iova = view.getBigUint64(8, true);
    const { memory } = client;
    const work = async (): Promise<void> => {
      switch (data[0] ?? 0) {
        case 0:
        case 1:
          await memory.read(iova, length);
          break;
        case 2:
        case 3:
          await memory.write(iova, new Uint8Array(length));
          break;
        case 4:
          await Promise.all([
            memory.read(iova, 64),
            memory.write(iova, new Uint8Array(64)),
            memory.read(iova, 8),
          ]);
          break;
        case 5: {
          const place = memory.place(iova, 64, 'readwrite');
          if (place === null) break;
          new Uint8Array(place.buffer, place.offset, 64).fill(1);
          memory.markDirty(iova, 64);
          break;
        }
        case 6:
          client.trigger(PciIrq.err + (vector % 3), vector >>> 3);
          break;
        default:
          client.setInterrupt((vector & 0x8000) === 0, vector % VECTORS);
      }
    };
    const done = work();
    if (((data[1] ?? 0) & 1) !== 0) return done;
    // What fails without an answer is nobody's.
    done.catch(() => undefined);
    return undefined;
  }

  *#early(): Generator<Uint8Array> {
    for (let i = 0; i < 4; i++) yield new Uint8Array(100 * i);
  }

  async *#late(): AsyncGenerator<Uint8Array> {
    for (let at = 0; at < this.#state.length; at += 1500) {
      await turn();
      yield this.#state.subarray(at, at + 1500);
    }
  }
}

/** Refuses accesses from 0x800 on, and fails from 0xc00 on. */
function failing(): ServedRegion {
  const check = (offset: number): void => {
    if (offset >= 0xc00) throw new Error(MODEL_FAILURE);
    if (offset >= 0x800) throw new CommandError(Errno.EBUSY, 'refused on purpose');
  };
  return { size: 0x1000, read: check, write: check };
}

/** Takes its time; its reads overlap. */
function slow(): ServedRegion {
  return {
    size: 0x1000,
    concurrent: true,
    read: async (offset, data) => {
      data.fill(offset);
      await turn();
    },
    write: async () => {
      await turn();
    },
  };
}
