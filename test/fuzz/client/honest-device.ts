// SPDX-License-Identifier: MIT
import { EventFd, Socket, closeFd, createSharedMemory } from '../../../lib/native';
import { ConfigSpace, PciRegion } from '../../../lib/pci';
import {
  Command,
  DmaUnmapFlag,
  encodeDeviceInfoReply,
  encodeIrqInfoReply,
  encodeRegionInfoReply,
  encodeRegionIoFdsReply,
} from '../../../lib/protocol';
import { Fields } from '../requests';

export interface HonestReply {
  readonly payload: Uint8Array;
  readonly fds?: readonly number[];
}

const fields = new Fields();
const REGIONS = 10;
const IRQS = 5;
/** Bytes of regions that are not named here. */
const REGION_BYTES = 0x4000;
const EVENT_ENTRY = { offset: 0, size: 4, flags: 0, fdIndex: 0, datamatch: 0 };

/** The byte that a region has at an offset, so that what is read can be checked. */
export function patternAt(offset: number): number {
  return (offset * 7 + (offset >>> 8)) & 0xff;
}

/** A device that answers each request as the specification has it; its replies are what is spoilt. */
export class HonestDevice {
  readonly config = new ConfigSpace({
    vendorId: 0x494f,
    deviceId: 0x0f23,
    classCode: 0xff0000,
    bars: { 0: { kind: 'memory64', size: REGION_BYTES }, 2: { kind: 'io', size: 64 } },
    capabilities: [{ kind: 'power-management' }, { kind: 'express', functionLevelReset: true }],
  });
  readonly #memory = createSharedMemory(REGION_BYTES);
  readonly #event = EventFd.create();
  #state = 2;
  #stateBytes = 0;
  /** The device's end of the ioregionfd that it gave last. */
  ioRegion: Socket | null = null;
  /** The device's end of the twin socket. */
  twin: Socket | null = null;
  readonly #given: Socket[] = [];

  answer(command: number, payload: Uint8Array): HonestReply {
    const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
    const u32 = (at: number): number => (at + 4 <= payload.length ? view.getUint32(at, true) : 0);
    switch (command) {
      case Command.version:
        return this.#version(Buffer.from(payload).includes('"twin_socket":{"supported":true'));
      case Command.dmaUnmap:
        return { payload: this.#unmapReply(payload, u32(4)) };
      case Command.deviceGetInfo:
        return { payload: encodeDeviceInfoReply({ flags: 3, numRegions: REGIONS, numIrqs: IRQS }) };
      case Command.deviceGetRegionInfo:
        return this.#region(u32(8), u32(0));
      case Command.deviceGetRegionIoFds:
        return this.#ioFds(u32(8), u32(0));
      case Command.deviceGetIrqInfo:
        return { payload: encodeIrqInfoReply({ index: u32(8), flags: 7, count: u32(8) < 3 ? 4 : 1 }) };
      case Command.regionRead:
        return { payload: this.#read(payload, u32(0), u32(8), u32(12)) };
      case Command.regionWrite:
        if (u32(8) === PciRegion.config) this.#writeConfig(u32(0), payload.subarray(16));
        return { payload: payload.slice(0, 16) };
      case Command.regionWriteMulti:
        return { payload: payload.slice(0, 8) };
      case Command.deviceFeature:
        return { payload: this.#feature(payload, u32(4)) };
      case Command.migDataRead: {
        const count = Math.min(u32(4), this.#stateBytes);
        this.#stateBytes -= count;
        return {
          payload: fields
            .u32(8 + count, count)
            .raw(new Uint8Array(count))
            .take(),
        };
      }
      default:
        return { payload: new Uint8Array(0) };
    }
  }

  /** Closes what the client got for good. */
  endSession(): void {
    this.ioRegion?.close();
    this.ioRegion = null;
    this.twin?.close();
    this.twin = null;
    this.sent();
    this.#state = 2;
    this.config.reset();
  }

  /** A reply has left, so that what it brought can be closed here. */
  sent(): void {
    for (const socket of this.#given.splice(0)) socket.close();
  }

  close(): void {
    this.endSession();
    this.#event.close();
    closeFd(this.#memory);
  }

  #version(twin: boolean): HonestReply {
    const capabilities = {
      max_msg_fds: 16,
      max_data_xfer_size: 65536,
      max_dma_maps: 1000,
      pgsizes: 4096,
      write_multiple: true,
      ...(twin && { twin_socket: { supported: true, fd_index: 0 } }),
    };
    const payload = fields
      .u16(0, 1)
      .raw(Buffer.from(`${JSON.stringify({ capabilities })}\0`))
      .take();
    if (!twin) return { payload };
    const [near, far] = Socket.pair();
    this.twin?.close();
    this.twin = near;
    this.#given.push(far);
    return { payload, fds: [far.fd] };
  }

  #unmapReply(payload: Uint8Array, flags: number): Uint8Array {
    if ((flags & DmaUnmapFlag.getDirtyBitmap) === 0 || payload.length < 40) return payload.slice(0, 24);
    const size = Math.min(new DataView(payload.buffer, payload.byteOffset).getUint32(32, true), 1 << 16);
    return fields.raw(payload.subarray(0, 40)).raw(new Uint8Array(size)).take();
  }

  #region(index: number, room: number): HonestReply {
    const info = { index, flags: 3, size: REGION_BYTES, offset: 0 };
    if (index === PciRegion.bar0) {
      const areas = [
        { offset: 0x1000, size: 0x1000 },
        { offset: 0x3000, size: 0x1000 },
      ];
      const payload = encodeRegionInfoReply(
        { ...info, flags: 7, capabilities: [{ kind: 'sparseMmap', areas }] },
        room,
      );
      return { payload, fds: [this.#memory] };
    }
    if (index === PciRegion.bar1)
      return {
        payload: encodeRegionInfoReply({ ...info, flags: 7, capabilities: [] }, room),
        fds: [this.#memory],
      };
    if (index === PciRegion.config)
      return {
        payload: encodeRegionInfoReply({ ...info, size: this.config.size, capabilities: [] }, room),
      };
    return {
      payload: encodeRegionInfoReply(
        { ...info, capabilities: index === 9 ? [{ kind: 'type', type: 1, subtype: 2 }] : [] },
        room,
      ),
    };
  }

  #ioFds(index: number, room: number): HonestReply {
    const [near, far] = Socket.pair();
    this.ioRegion?.close();
    this.ioRegion = near;
    this.#given.push(far);
    const payload = encodeRegionIoFdsReply(
      {
        index,
        entries: [
          { type: 'ioeventfd', ...EVENT_ENTRY },
          { type: 'ioeventfd', ...EVENT_ENTRY, offset: 8, size: 8, flags: 1, datamatch: 7 },
          { type: 'ioregionfd', offset: 0x100, size: 0x100, flags: 0, fdIndex: 1, userData: 5 },
          { type: 'ioeventfdShadow', ...EVENT_ENTRY, offset: 16, shadowFdIndex: 2, shadowOffset: 64 },
        ],
      },
      room,
      48,
    );
    return payload.length > 16 ? { payload, fds: [this.#event.fd, far.fd, this.#memory] } : { payload };
  }

  #read(payload: Uint8Array, offset: number, region: number, count: number): Uint8Array {
    const data = new Uint8Array(Math.min(count, 1 << 20));
    if (region === PciRegion.config) {
      if (offset + data.length <= this.config.size) data.set(this.config.read(offset, data.length));
    } else for (let i = 0; i < data.length; i++) data[i] = patternAt(offset + i);
    return fields.raw(payload.subarray(0, 16)).raw(data).take();
  }

  #writeConfig(offset: number, data: Uint8Array): void {
    if (offset + data.length <= this.config.size) this.config.write(offset, data);
  }

  #feature(payload: Uint8Array, flags: number): Uint8Array {
    const index = flags & 0xffff;
    const probe = (flags & (1 << 18)) !== 0;
    if (probe) return fields.u32(8, flags).take();
    if (index === 1) return fields.u32(16, flags).u64(5).take();
    if (index === 2) {
      if ((flags & (1 << 17)) !== 0) {
        this.#state = payload[8] ?? 2;
        this.#stateBytes = 3000;
      }
      return fields.u32(16, flags, this.#state, 0xffff_ffff).take();
    }
    if (index !== 8) return payload.slice();
    const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
    const pages =
      payload.length < 32 ? 0 : Number(view.getBigUint64(16, true)) / Number(view.getBigUint64(24, true));
    const bitmap = new Uint8Array(Math.min(Math.ceil(pages / 64) * 8, 1 << 16));
    return fields
      .u32(8 + 24 + bitmap.length, flags)
      .raw(payload.subarray(8, 32))
      .raw(bitmap)
      .take();
  }
}
