// SPDX-License-Identifier: MIT
// hostile-server KIND PATH: the process that bench/hostile.ts attacks. It tells its parent what an attack costs it. A process of
// its own for each attack, so that none finds what another has left.
import { openSync, readFileSync, readSync, writeFileSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { NvmeControllerModel, createBackend } from 'vfio-user/nvme';
import { PciIrq } from 'vfio-user/pci';
import { serve, type PciDeviceModel } from 'vfio-user/server';

/** What is served: the emulated controller, or a device that never ends a reset, nor a write to BAR 0. */
export type ServedKind = 'nvme' | 'stuck device';

/** What an attack has cost. Memory is in bytes, times are in milliseconds. */
export interface Cost {
  /** What the process grew by at its peak. */
  readonly memory: number;
  /** The longest turn of the event loop, by the clock. */
  readonly turn: number;
  /** The most processor time of a turn: what other processes take of the clock is not in it. */
  readonly processor: number;
}

/** What the parent asks for: to begin to measure, or to tell. */
export type Question = 'begin' | 'tell';

/** Interrupt vectors of the stuck device. */
const VECTORS = 4096;

/** Measures this process without pause: each turn of the event loop asks for the next. */
class Meter {
  readonly #file = openSync('/proc/thread-self/schedstat', 'r');
  readonly #text = Buffer.alloc(64);
  #before = 0;
  #clock = 0;
  #used = 0;
  #turn = 0;
  #processor = 0;

  begin(): void {
    // Sets the peak back (proc(5), clear_refs).
    writeFileSync('/proc/self/clear_refs', '5');
    this.#before = status('VmRSS');
    this.#look();
    this.#turn = 0;
    this.#processor = 0;
  }

  tell(): Cost {
    this.#look();
    return { memory: status('VmHWM') - this.#before, turn: this.#turn, processor: this.#processor };
  }

  async run(): Promise<never> {
    for (;;) {
      this.#look();
      await nextTurn();
    }
  }

  #look(): void {
    const clock = performance.now();
    const length = readSync(this.#file, this.#text, 0, this.#text.length, 0);
    const used = Number(this.#text.toString('latin1', 0, length).split(' ')[0]) / 1e6;
    this.#turn = Math.max(this.#turn, clock - this.#clock);
    this.#processor = Math.max(this.#processor, used - this.#used);
    this.#clock = clock;
    this.#used = used;
  }
}

/** A field of /proc/self/status, in bytes. */
function status(field: string): number {
  const text = readFileSync('/proc/self/status', 'latin1');
  return Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(text)?.[1]) * 1024;
}

function stuckDevice(): PciDeviceModel {
  const size = 1 << 20;
  return {
    name: 'stuck device',
    pci: {
      vendorId: 0x1234,
      deviceId: 0x5678,
      classCode: 0xff0000,
      bars: {
        0: { kind: 'memory32', size, write: () => new Promise<void>(() => undefined) },
        2: { kind: 'memory32', size, read: () => undefined, write: () => undefined },
      },
    },
    irqs: new Map([[PciIrq.req, VECTORS]]),
    reset: () => new Promise<void>(() => undefined),
  };
}

async function main([kind, path]: readonly string[]): Promise<void> {
  const model =
    (kind as ServedKind) === 'nvme'
      ? new NvmeControllerModel({ backend: createBackend({ kind: 'memory', size: 2 ** 24 }) })
      : stuckDevice();
  // A client that breaks the protocol is disconnected, and that is told; here it is what is meant to happen.
  await serve(path as string, model, { onError: () => undefined });
  const meter = new Meter();
  process.on('message', (question: Question) => {
    if (question === 'begin') meter.begin();
    process.send?.(question === 'begin' ? null : meter.tell());
  });
  process.once('disconnect', () => process.exit());
  process.send?.(null);
  await meter.run();
}

void main(process.argv.slice(2));
