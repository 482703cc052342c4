// SPDX-License-Identifier: MIT
import { CommandError, Errno } from '../../transport';
import {
  type ControllerConfiguration,
  Register,
  ShutdownStatus,
  adminQueueAttributes,
  controllerConfiguration,
  controllerStatus,
  joinWords,
} from '../spec';

/** The admin queues as the host has set them up in AQA, ASQ and ACQ. */
export interface AdminQueues {
  readonly submissionAddress: number;
  readonly submissionEntries: number;
  readonly completionAddress: number;
  readonly completionEntries: number;
}

const CC_WRITABLE = 0x00ff_fff1;
const BYTES = 0x1000;

/**
 * The registers below the doorbells (NVMe base 2.0, 3.1.3). They hold values only: the controller acts on what the
 * host writes to CC, and answers in {@link status}.
 */
export class Registers {
  /** CSTS, which the host can only read. */
  readonly status: { ready: boolean; fatal: boolean; shutdown: number } = {
    ready: false,
    fatal: false,
    shutdown: ShutdownStatus.normal,
  };
  readonly #words = new Uint32Array(BYTES / 4);

  /** @param cap the lower and the upper word of CAP */
  constructor(cap: readonly [low: number, high: number], version: number) {
    this.#words[Register.cap / 4] = cap[0];
    this.#words[Register.cap / 4 + 1] = cap[1];
    this.#words[Register.vs / 4] = version;
  }

  /** CC. */
  get configuration(): ControllerConfiguration {
    return controllerConfiguration.decode(this.#word(Register.cc));
  }

  /** The vectors that INTMS and INTMC mask, one bit each. */
  get interruptMask(): number {
    return this.#word(Register.intms);
  }

  /** AQA, ASQ and ACQ. */
  get adminQueues(): AdminQueues {
    return {
      ...adminQueueAttributes.decode(this.#word(Register.aqa)),
      submissionAddress: joinWords(this.#word(Register.asq), this.#word(Register.asq + 4)),
      completionAddress: joinWords(this.#word(Register.acq), this.#word(Register.acq + 4)),
    };
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

  /** A controller reset clears CC and what the controller told, and keeps AQA, ASQ and ACQ (NVMe base 2.0, 3.7.2). */
  clear(): void {
    this.#words[Register.cc / 4] = 0;
    this.#setInterruptMask(0);
    this.status.fatal = false;
    this.status.shutdown = ShutdownStatus.normal;
  }

  /** Every register has the value that it has after power-on. */
  reset(): void {
    this.clear();
    this.status.ready = false;
    for (const register of [Register.aqa, Register.asq, Register.asq + 4, Register.acq, Register.acq + 4]) {
      this.#words[register / 4] = 0;
    }
  }

  #word(offset: number): number {
    return this.#words[offset / 4] as number;
  }

  #readWord(offset: number): number {
    return offset === Register.csts ? controllerStatus.encode(this.status) : this.#word(offset);
  }

  #writeWord(offset: number, value: number): void {
    switch (offset) {
      case Register.cc:
        this.#words[offset / 4] = value & CC_WRITABLE;
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
      // Both read as the mask.
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
}

function checkAccess(offset: number, length: number): void {
  if ((length === 4 || length === 8) && offset % length === 0 && offset + length <= BYTES) return;
  throw new CommandError(
    Errno.EINVAL,
    `Registers are accessed by 4 or 8 aligned bytes, not by ${length} at 0x${offset.toString(16)}`,
  );
}
