// SPDX-License-Identifier: MIT
/** What a driver sees of a device: registers, configuration space, interrupts, memory. */
import { EventFd, Mapping, closeFd, createSharedMemory } from '../../../lib/native';
import {
  type ConfigSpace,
  PciRegion,
  type DeviceIrq,
  type DeviceRegion,
  type DmaMemory,
  type MappedArea,
  type RegisterSpace,
} from '../../../lib/pci';
import { RegisterAccess, type RegisterWidth } from '../../../lib/pci/registers';
import type { HostileDevice } from './device';
import { BAR_BYTES, PAGE, VECTORS } from './honest-data';

/** Controller Configuration, Status and the others, with the values that they are told to show. */
export class Bar extends RegisterAccess implements DeviceRegion {
  readonly index = PciRegion.bar0;
  readonly size = BAR_BYTES;
  readonly readable = true;
  readonly writable = true;
  readonly areas;
  readonly #device: HostileDevice;

  constructor(device: HostileDevice, mappable: boolean) {
    super();
    this.#device = device;
    this.areas = mappable ? [{ offset: 0x1000, size: 0x1000 }] : [];
  }

  map(offset: number, length: number): MappedArea {
    return this.#device.mapDoorbells(offset, length);
  }

  readBytes(offset: number, length: number): Promise<Uint8Array> {
    return Promise.resolve(this.readBytesSync(offset, length));
  }

  readBytesSync(offset: number, length: number): Uint8Array {
    return this.#device.readRegisters(offset, length);
  }

  writeBytes(offset: number, data: Uint8Array): Promise<void> {
    this.writeBytesSync(offset, data);
    return Promise.resolve();
  }

  writeBytesSync(offset: number, data: Uint8Array): void {
    this.#device.writeRegisters(offset, data);
  }

  protected override async readRegister(offset: number, width: RegisterWidth): Promise<Uint8Array> {
    await Promise.resolve();
    return this.readBytesSync(offset, width);
  }

  protected override readRegisterSync(offset: number, width: RegisterWidth): Uint8Array {
    return this.readBytesSync(offset, width);
  }

  protected override async writeRegister(offset: number, data: Uint8Array): Promise<void> {
    await Promise.resolve();
    this.writeBytesSync(offset, data);
  }

  protected override writeRegisterSync(offset: number, data: Uint8Array): void {
    this.writeBytesSync(offset, data);
  }
}

/** Configuration space over a `ConfigSpace`. */
export class Config extends RegisterAccess implements RegisterSpace {
  readonly #device: HostileDevice;
  readonly #space: ConfigSpace;

  constructor(device: HostileDevice, space: ConfigSpace) {
    super();
    this.#device = device;
    this.#space = space;
  }

  async readBytes(offset: number, length: number): Promise<Uint8Array> {
    await Promise.resolve();
    return this.readBytesSync(offset, length);
  }

  readBytesSync(offset: number, length: number): Uint8Array {
    this.#device.assertThere();
    return this.#device.spoilConfig(offset, this.#space.read(offset, length).slice());
  }

  async writeBytes(offset: number, data: Uint8Array): Promise<void> {
    await Promise.resolve();
    this.writeBytesSync(offset, data);
  }

  writeBytesSync(offset: number, data: Uint8Array): void {
    this.#device.assertThere();
    this.#space.write(offset, data);
  }

  protected override readRegister(offset: number, width: RegisterWidth): Promise<Uint8Array> {
    return this.readBytes(offset, width);
  }

  protected override readRegisterSync(offset: number, width: RegisterWidth): Uint8Array {
    return this.readBytesSync(offset, width);
  }

  protected override writeRegister(offset: number, data: Uint8Array): Promise<void> {
    return this.writeBytes(offset, data);
  }

  protected override writeRegisterSync(offset: number, data: Uint8Array): void {
    this.writeBytesSync(offset, data);
  }
}

export class Msix implements DeviceIrq {
  readonly index = 2;
  readonly count = VECTORS;
  #handlers: readonly ((signals: number) => void)[] = [];
  readonly #events: EventFd[] = [];

  async enable(handlers: number | readonly ((signals: number) => void)[]): Promise<void> {
    await this.disable();
    if (typeof handlers !== 'number') this.#handlers = handlers;
    else for (let i = 0; i < handlers; i++) this.#events.push(EventFd.create());
  }

  fd(vector: number): number | null {
    return this.#events[vector]?.fd ?? null;
  }

  disable(): Promise<void> {
    this.#handlers = [];
    for (const event of this.#events.splice(0)) event.close();
    return Promise.resolve();
  }

  signal(vector: number): void {
    this.#handlers[vector]?.(1);
  }
}

/** Memory that the driver has allocated. */
export class Memory implements DmaMemory {
  readonly fd: number;
  readonly fdOffset = 0;
  readonly iova: number;
  readonly size: number;
  readonly #mapping: Mapping;

  constructor(iova: number, size: number) {
    this.iova = iova;
    this.size = Math.ceil(size / PAGE) * PAGE;
    this.fd = createSharedMemory(this.size);
    this.#mapping = Mapping.map(this.fd, 0, this.size);
  }

  get buffer(): ArrayBuffer {
    return this.#mapping.buffer;
  }

  close(): Promise<void> {
    if (!this.#mapping.closed) {
      this.#mapping.close();
      closeFd(this.fd);
    }
    return Promise.resolve();
  }
}
