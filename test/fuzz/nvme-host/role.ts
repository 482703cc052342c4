// SPDX-License-Identifier: MIT
/** The NVMe driver is fuzzed: by a controller whose completions, registers and data are generated. */
import { setImmediate as turn } from 'node:timers/promises';
import { LIES } from './device';
import { type Fixture, type Role, type Step, type Tally } from '../role';
import { CALL_NAMES } from './calls';
import { FuzzedDriver } from './driver';
import { generate, type DriverStep } from './steps';

class HostFixture implements Fixture {
  readonly #tally: Tally;

  constructor(tally: Tally) {
    this.#tally = tally;
  }

  async run(steps: readonly Step[]): Promise<void> {
    const driver = new FuzzedDriver(this.#tally);
    this.#tally.connections++;
    const all = steps as readonly DriverStep[];
    try {
      for (const [index, step] of all.entries())
        await driver.step(step, all.slice(0, step.do === 'attach' ? index : 0));
    } finally {
      await driver.close();
    }
    const last = new FuzzedDriver(this.#tally);
    try {
      await last.readRightly();
    } finally {
      await last.close();
    }
  }

  async rest(): Promise<void> {
    await turn();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

export const nvmeHostRole: Role = {
  name: 'nvme-host',
  wanted: [
    ...CALL_NAMES.map((name) => `${name} ok`),
    ...LIES.map((how) => `lie: ${how}`),
    ...['TIMEOUT', 'DISCONNECTED', 'CLOSED', 'NVME_STATUS', 'NVME_CONTROLLER', 'PCI'].map(
      (code) => `fails with ERR_VFIO_USER_${code}`,
    ),
    'attach ok',
    'close ok',
    'queue loops agree',
    'vanished with calls under way',
  ],
  generate,
  open: (tally) => Promise.resolve(new HostFixture(tally)),
};
