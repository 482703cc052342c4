// SPDX-License-Identifier: MIT
import { RegisterFile, type Client, type PciDeviceModel, type ServedFunction } from '../../lib/server';

/** Causes in the interrupt status register. */
export const EduCause = { factorial: 0x001, dma: 0x100 } as const;

/** Bits of the status register. */
const COMPUTING = 0x01;
const INTERRUPT_WHEN_COMPUTED = 0x80;
/** Bits of the DMA command register. */
const START = 1;
const TO_MEMORY = 2;
const INTERRUPT_WHEN_COPIED = 4;

/** The device has a page of memory, which only its DMA engine reaches. */
const BUFFER = 0x4_0000;
const PAGE = 0x1000;

/** The educational device of QEMU (docs/specs/edu.rst, hw/misc/edu.c), by INTx or one vector of MSI. */
export class EduDevice implements PciDeviceModel {
  readonly name = 'edu';
  readonly pci: ServedFunction;
  readonly buffer = new Uint8Array(PAGE);
  readonly #registers = new RegisterFile({
    size: 0x10_0000,
    accesses: [4, 8],
    registers: {
      identification: { offset: 0x00, width: 32, reset: 0x0100_00ed },
      liveness: { offset: 0x04, width: 32, writable: 0xffff_ffff, read: () => this.#inverted() },
      factorial: { offset: 0x08, width: 32, writable: 0xffff_ffff, write: (value) => this.#compute(value) },
      status: { offset: 0x20, width: 32, writable: INTERRUPT_WHEN_COMPUTED },
      causes: { offset: 0x24, width: 32 },
      raise: {
        offset: 0x60,
        width: 32,
        write: (_, causes) => {
          this.#raise(causes);
        },
      },
      acknowledge: {
        offset: 0x64,
        width: 32,
        write: (_, causes) => {
          this.#setCauses(this.#registers.get('causes') & ~causes);
        },
      },
      source: { offset: 0x80, width: 64, writable: ~0n },
      destination: { offset: 0x88, width: 64, writable: ~0n },
      count: { offset: 0x90, width: 64, writable: ~0n },
      command: { offset: 0x98, width: 64, writable: ~0n, write: (command) => this.#copy(Number(command)) },
    },
  });
  #client: Client | null = null;

  constructor(options: { readonly msi?: boolean } = {}) {
    this.pci = {
      vendorId: 0x1234,
      deviceId: 0x11e8,
      revisionId: 0x10,
      classCode: 0x00ff00,
      interruptPin: 1,
      bars: { 0: { kind: 'memory32', ...this.#registers.region } },
      capabilities: options.msi === false ? [] : [{ kind: 'msi', vectors: 1 }],
    };
  }

  attach(client: Client): void {
    this.#client = client;
  }

  detach(): void {
    this.#client = null;
  }

  reset(): void {
    this.#registers.reset();
    this.buffer.fill(0);
  }

  #inverted(): number {
    return ~this.#registers.get('liveness') >>> 0;
  }

  async #compute(number: number): Promise<void> {
    const registers = this.#registers;
    registers.set('status', registers.get('status') | COMPUTING);
    await new Promise(setImmediate);
    let result = 1;
    for (let factor = 2; factor <= number; factor++) result = Math.imul(result, factor) >>> 0;
    registers.set('factorial', result);
    registers.set('status', registers.get('status') & ~COMPUTING);
    if ((registers.get('status') & INTERRUPT_WHEN_COMPUTED) !== 0) this.#raise(EduCause.factorial);
  }

  async #copy(command: number): Promise<void> {
    if ((command & START) === 0) return;
    const registers = this.#registers;
    const [source, destination] = [registers.get('source'), registers.get('destination')];
    const count = Number(registers.get('count'));
    if ((command & TO_MEMORY) !== 0) {
      const at = Number(source) - BUFFER;
      await this.#client?.memory.write(destination, this.buffer.subarray(at, at + count));
    } else {
      const data = await this.#client?.memory.read(source, count);
      if (data !== undefined) this.buffer.set(data, Number(destination) - BUFFER);
    }
    registers.set('command', BigInt(command & ~START));
    if ((command & INTERRUPT_WHEN_COPIED) !== 0) this.#raise(EduCause.dma);
  }

  #raise(causes: number): void {
    this.#setCauses(this.#registers.get('causes') | causes);
  }

  #setCauses(causes: number): void {
    this.#registers.set('causes', causes >>> 0);
    this.#client?.setInterrupt(causes !== 0);
  }
}
