// SPDX-License-Identifier: MIT
import { ok } from 'node:assert/strict';
import type { DmaMemory, KernelDevice, KernelRegion } from '../../../lib';

/** Registers (NVM Express Base 2.1, section 3.1.4). */
const Reg = {
  cc: 0x14,
  csts: 0x1c,
  aqa: 0x24,
  asq: 0x28,
  acq: 0x30,
  sqTail: 0x1000,
  cqHead: 0x1004,
} as const;
const PAGE = 4096;
const ENTRIES = 8;
/** Entries of 64 and 16 bytes, and the controller on (figure 41). */
const ENABLED = 0x0046_0001;
const IDENTIFY = 6;
/** Words of the entries of both queues. */
const [SUBMISSION, COMPLETION] = [16, 4];

/** The admin queue of an NVMe controller without the driver of this package, for what the driver does not do: INTx, MSI, mistakes. */
export class AdminByHand {
  readonly bar: KernelRegion;
  readonly #memory: DmaMemory;
  readonly #words: Uint32Array;
  #index = 0;

  private constructor(bar: KernelRegion, memory: DmaMemory) {
    this.bar = bar;
    this.#memory = memory;
    this.#words = new Uint32Array(memory.buffer);
  }

  /**
   * Enables the controller.
   * @param queues where it is to look for its queues; memory of the device when left out
   */
  static async enable(device: KernelDevice, queues?: number): Promise<AdminByHand> {
    const bar = await device.region('bar0');
    await device.pci.enable({ memory: true, busMaster: true });
    const admin = new AdminByHand(bar, await device.dma.allocate(3 * PAGE));
    await bar.write32(Reg.cc, 0);
    await admin.#ready(0);
    const at = queues ?? admin.#memory.iova;
    await bar.write32(Reg.aqa, ((ENTRIES - 1) << 16) | (ENTRIES - 1));
    await bar.write64(Reg.asq, BigInt(at));
    await bar.write64(Reg.acq, BigInt(at + PAGE));
    await bar.write32(Reg.cc, ENABLED);
    return admin;
  }

  /** Submits Identify Controller. */
  submit(): void {
    const entry = this.#words.subarray((this.#index % ENTRIES) * SUBMISSION).fill(0, 0, SUBMISSION);
    entry[0] = IDENTIFY;
    const data = this.#memory.iova + 2 * PAGE;
    entry[6] = data;
    entry[7] = Math.floor(data / 2 ** 32);
    entry[10] = 1;
    this.bar.write32Sync(Reg.sqTail, (this.#index + 1) % ENTRIES);
  }

  /** Whether what was submitted is completed: the phase is 1 in the first round of the queue. */
  get isDone(): boolean {
    return ((this.#status >>> 16) & 1) === (Math.floor(this.#index / ENTRIES) + 1) % 2;
  }

  /** Takes the completion of what was submitted. */
  take(): void {
    ok(this.isDone, 'Identify is not completed');
    ok(this.#status >>> 17 === 0, `Identify ended with 0x${this.#status.toString(16)}`);
    this.#index++;
    this.bar.write32Sync(Reg.cqHead, this.#index % ENTRIES);
  }

  /** Waits until the controller is ready, or is not. */
  ready(): Promise<void> {
    return this.#ready(1);
  }

  get #status(): number {
    return this.#words[PAGE / 4 + (this.#index % ENTRIES) * COMPLETION + 3] ?? 0;
  }

  async #ready(wanted: number): Promise<void> {
    while (((await this.bar.read32(Reg.csts)) & 1) !== wanted) {
      // Each read goes to the device, which takes its time.
    }
  }
}
