// SPDX-License-Identifier: MIT
import { CommandError, Errno } from '../../transport';
import {
  Register,
  ShutdownNotification,
  ShutdownStatus,
  adminQueueAttributes,
  controllerConfiguration,
  controllerStatus,
  joinWords,
} from '../spec';

/** The admin queues as the host has set them up. */
export interface AdminQueues {
  readonly submissionAddress: number;
  readonly submissionEntries: number;
  readonly completionAddress: number;
  readonly completionEntries: number;
}

/** What the registers ask of the controller. */
export interface RegisterEvents {
  /** CC.EN was set. Answer with {@link Registers.ready} or {@link Registers.fail}. */
  enable(queues: AdminQueues): void;
  /** CC.EN was set with values that this controller does not have. Answer with {@link Registers.fail}. */
  refused(reason: string): void;
  /** CC.EN was cleared: a controller reset. Answer with {@link Registers.stopped}. */
  disable(): void;
  /** CC.SHN was set. Answer with {@link Registers.shutDown}. */
  shutdown(): void;
}

const CC_WRITABLE = 0x00ff_fff1;
const BYTES = 0x1000;

/** The registers below the doorbells, and the state machine of CC and CSTS (NVMe base 2.0, 3.1.3 and 3.5). */
export class Registers {
  readonly #events: RegisterEvents;
  readonly #words = new Uint32Array(BYTES / 4);
  #ready = false;
  #fatal = false;
  #shutdown: number = ShutdownStatus.normal;
  /** CC.EN was cleared, and {@link stopped} is awaited. */
  #stopping = false;

  /** @param cap the lower and the upper word of CAP */
  constructor(cap: readonly [low: number, high: number], version: number, events: RegisterEvents) {
    this.#events = events;
    this.#words[Register.cap / 4] = cap[0];
    this.#words[Register.cap / 4 + 1] = cap[1];
    this.#words[Register.vs / 4] = version;
  }

  get enabled(): boolean {
    return controllerConfiguration.decode(this.#word(Register.cc)).enable;
  }

  /** CSTS.CFS */
  get failed(): boolean {
    return this.#fatal;
  }

  /** CC as it is. */
  get configuration(): ReturnType<typeof controllerConfiguration.decode> {
    return controllerConfiguration.decode(this.#word(Register.cc));
  }

  /**
   * Reads 4 or 8 bytes at their natural alignment; 8 bytes are two registers, or one of 64 bits.
   * @throws CommandError EINVAL for other accesses
   */
  read(offset: number, data: Uint8Array): void {
    checkAccess(offset, data.length);
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    for (let at = 0; at < data.length; at += 4) view.setUint32(at, this.#readWord(offset + at), true);
  }

  /**
   * Writes 4 bytes, or all 8 of a register of 64 bits. What is read-only or reserved is left alone.
   * @throws CommandError EINVAL for other accesses
   */
  write(offset: number, data: Uint8Array): void {
    checkAccess(offset, data.length);
    if (data.length === 8 && offset !== Register.cap && offset !== Register.asq && offset !== Register.acq) {
      throw new CommandError(Errno.EINVAL, `8 bytes at 0x${offset.toString(16)} are not one register`);
    }
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    for (let at = 0; at < data.length; at += 4) this.#writeWord(offset + at, view.getUint32(at, true));
  }

  /** The controller processes commands now. */
  ready(): void {
    this.#ready = this.enabled && !this.#fatal;
  }

  /** The controller cannot go on: CSTS.CFS, until it is reset. */
  fail(): void {
    this.#fatal = true;
  }

  /** Nothing is left of what CC.EN = 0 stopped. When the host has set CC.EN meanwhile, the start follows now. */
  stopped(): void {
    if (!this.#stopping) return;
    this.#stopping = false;
    this.#ready = false;
    if (this.enabled) this.#start();
  }

  /** The shutdown that was asked for is complete. */
  shutDown(): void {
    if (this.#shutdown === ShutdownStatus.occurring) this.#shutdown = ShutdownStatus.complete;
  }

  /** As after power-on. */
  reset(): void {
    this.#clear();
    this.#stopping = false;
    this.#ready = false;
    for (const register of [Register.aqa, Register.asq, Register.asq + 4, Register.acq, Register.acq + 4]) {
      this.#words[register / 4] = 0;
    }
  }

  #word(offset: number): number {
    return this.#words[offset / 4] as number;
  }

  #readWord(offset: number): number {
    if (offset === Register.csts) {
      return controllerStatus.encode({ ready: this.#ready, fatal: this.#fatal, shutdown: this.#shutdown });
    }
    return this.#word(offset);
  }

  #writeWord(offset: number, value: number): void {
    switch (offset) {
      case Register.cc:
        this.#writeConfiguration(value & CC_WRITABLE);
        return;
      case Register.aqa:
        this.#words[offset / 4] = value & 0x0fff_0fff;
        return;
      case Register.asq:
      case Register.acq:
        this.#words[offset / 4] = value & ~0xfff;
        return;
      case Register.asq + 4:
      case Register.acq + 4:
        this.#words[offset / 4] = value;
        return;
      // Both read as the mask. It is for INTx and MSI, which this controller does not have.
      case Register.intms:
        this.#setInterruptMask(this.#word(Register.intms) | value);
        return;
      case Register.intmc:
        this.#setInterruptMask(this.#word(Register.intms) & ~value);
        return;
    }
  }

  #setInterruptMask(mask: number): void {
    this.#words[Register.intms / 4] = mask;
    this.#words[Register.intmc / 4] = mask;
  }

  #writeConfiguration(value: number): void {
    const previous = this.configuration;
    const next = controllerConfiguration.decode(value);
    if (previous.enable && !next.enable) {
      // A controller reset puts CC back to 0, and keeps only AQA, ASQ and ACQ (NVMe base 2.0, 3.7.2).
      this.#clear();
      this.#stopping = true;
      this.#events.disable();
      return;
    }
    this.#words[Register.cc / 4] = value;
    if (!previous.enable && next.enable && !this.#stopping) this.#start();
    if (next.shutdown !== ShutdownNotification.none && this.#shutdown === ShutdownStatus.normal) {
      this.#shutdown = ShutdownStatus.occurring;
      this.#events.shutdown();
    }
  }

  #clear(): void {
    this.#words[Register.cc / 4] = 0;
    this.#setInterruptMask(0);
    this.#fatal = false;
    this.#shutdown = ShutdownStatus.normal;
  }

  #start(): void {
    this.#shutdown = ShutdownStatus.normal;
    const { mps, commandSet, arbitration } = this.configuration;
    const sizes = adminQueueAttributes.decode(this.#word(Register.aqa));
    const queues = {
      ...sizes,
      submissionAddress: joinWords(this.#word(Register.asq), this.#word(Register.asq + 4)),
      completionAddress: joinWords(this.#word(Register.acq), this.#word(Register.acq + 4)),
    };
    // Entry sizes are not looked at: hosts may set them as late as before the first I/O queue.
    if (mps !== 0 || commandSet !== 0 || arbitration !== 0)
      this.#events.refused(
        `CC asks for MPS ${mps}, CSS ${commandSet}, AMS ${arbitration}; all of them must be 0`,
      );
    else if (sizes.submissionEntries < 2 || sizes.completionEntries < 2)
      this.#events.refused('AQA makes an admin queue of fewer than two entries');
    else this.#events.enable(queues);
  }
}

function checkAccess(offset: number, length: number): void {
  if ((length === 4 || length === 8) && offset % length === 0 && offset + length <= BYTES) return;
  throw new CommandError(
    Errno.EINVAL,
    `Registers are accessed by 4 or 8 aligned bytes, not by ${length} at 0x${offset.toString(16)}`,
  );
}
