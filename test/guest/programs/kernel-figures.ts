// SPDX-License-Identifier: MIT
import { performance } from 'node:perf_hooks';
import type { IrqMode, KernelDevice } from '../../../lib';
import { AdminByHand } from './admin-by-hand';

/** As vfio-identify.c has them, whose lines have the same names. */
const [ROUNDS, READS, CALLS, SIGNALS] = [7, 20_000, 2_000, 200];
/** Offset of the version (NVM Express Base 2.1, section 3.1.4), which nothing changes. */
const VERSION = 8;

function print(name: string, nanoseconds: number): void {
  console.log(`figure ${name}: ${nanoseconds.toFixed(0)} ns`);
}

/** The least of some rounds, per operation: what disturbs a round makes it longer. */
function least(count: number, round: () => void): number {
  const times = Array.from({ length: ROUNDS }, () => {
    const begin = performance.now();
    round();
    return performance.now() - begin;
  });
  return (Math.min(...times) * 1e6) / count;
}

/** The middle one of the times that something took. */
async function median(action: () => Promise<void>): Promise<number> {
  const times: number[] = [];
  for (let index = 0; index < SIGNALS; index++) {
    const begin = performance.now();
    await action();
    times.push(performance.now() - begin);
  }
  return (times.sort((a, b) => a - b)[SIGNALS / 2] ?? 0) * 1e6;
}

/** Prints what a register and an interrupt cost. */
export async function figures(device: KernelDevice): Promise<void> {
  const admin = await AdminByHand.enable(device);
  await admin.ready();
  const { bar } = admin;
  const registers = new Uint32Array(bar.map(0, 4096).buffer);
  let sum = 0;
  const mapped = least(READS, () => {
    for (let index = 0; index < READS; index++) sum += registers[VERSION / 4] as number;
  });
  print('read of a mapped register', mapped);
  const called = least(CALLS, () => {
    for (let index = 0; index < CALLS; index++) sum -= bar.read32Sync(VERSION);
  });
  print('read of a register by system call', called);
  if (!Number.isSafeInteger(sum)) throw new Error('these were no registers');

  const irq = await device.irq('msix');
  for (const mode of ['interrupt', 'poll'] satisfies IrqMode[]) {
    let signalled: () => void = () => undefined;
    const handler = (): void => {
      signalled();
    };
    await irq.enable([handler], { mode });
    const signal = async (action: () => unknown): Promise<void> => {
      const arrived = new Promise<void>((resolve) => {
        signalled = resolve;
      });
      await action();
      await arrived;
    };
    print(`signal to itself, mode ${mode}`, await median(() => signal(() => irq.vector(0).trigger())));
    const command = async (): Promise<void> => {
      await signal(() => {
        admin.submit();
      });
      admin.take();
    };
    print(`Identify with its interrupt, mode ${mode}`, await median(command));
  }
  await irq.disable();
}
