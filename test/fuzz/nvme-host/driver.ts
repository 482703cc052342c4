// SPDX-License-Identifier: MIT
import { setImmediate as turn } from 'node:timers/promises';
import { NvmeController } from '../../../lib/nvme/host';
import { HostileDevice } from './device';
import { patternOf } from './honest-data';
import { Violation, type Tally } from '../role';
import { waitFor } from '../waiting';
import { CallsUnderWay } from '../calls-under-way';
import { CALLS, memoryOf, type CallFunction, type Program } from './calls';
import { compareLoops } from './queue-loops';
import type { Attach, Call, DriverStep } from './steps';

const ADMIN_TIMEOUT = 8;
/** Turns without anything new after which nothing is expected any more, and the device vanishes. */
const IDLE_TURNS = 40;

/** A driver and its device. */
export class FuzzedDriver {
  readonly #tally: Tally;
  readonly #calls: CallsUnderWay;
  #device: HostileDevice | null = null;
  #program: Program | null = null;

  constructor(tally: Tally) {
    this.#tally = tally;
    this.#calls = new CallsUnderWay(tally);
  }

  async step(step: DriverStep, before: readonly DriverStep[]): Promise<void> {
    switch (step.do) {
      case 'attach':
        await this.#attach(step, before);
        return;
      case 'lie':
        this.#device?.lies.push({ lie: step, left: step.skip });
        return;
      case 'show':
        this.#device?.shown.push({ offset: step.offset, value: step.value, left: step.times });
        return;
      case 'show config':
        return;
      case 'post':
        this.#device?.post(step.queue, step.words);
        return;
      case 'call':
        if (this.#program !== null) this.#calls.start(step.call, () => this.#run(step));
        return;
      case 'loop':
        this.#tally.messages += step.completions.length / 4;
        compareLoops(step);
        this.#tally.see('queue loops agree');
        return;
      case 'interrupt':
        for (let vector = 0; vector < 4; vector++) this.#device?.msix.signal(vector);
        return;
      case 'vanish':
        this.#device?.vanish();
        return;
      case 'wait':
        await this.wait();
    }
  }

  /** Everything that was called has to end; where the controller does not complete a command, when the device vanishes. */
  async wait(): Promise<void> {
    this.#tally.alive();
    await this.#settle();
    if (!this.#calls.none) {
      this.#tally.see('vanished with calls under way');
      this.#device?.vanish();
    }
    await waitFor(() => this.#calls.failed || this.#calls.none, `the end of ${this.#calls.names}`);
    this.#calls.assertSound();
  }

  /** After all, the driver reads rightly from an honest controller. Call it once, when nothing else was. */
  async readRightly(): Promise<void> {
    await this.#attach({ do: 'attach', mappable: true, dstrd: 0, vectors: 0, adminEntries: 8 }, []);
    const program = this.#program;
    if (program === null) throw new Violation('the driver does not attach to an honest controller');
    let word: number | undefined;
    this.#calls.start('the last read', async () => {
      const memory = await memoryOf(program);
      await program.nvme.namespace(1).read(memory, { lba: 77, blocks: 8 });
      word = new Uint32Array(memory.buffer)[5];
    });
    await this.wait();
    if (word !== patternOf(77)) throw new Violation(`the driver reads ${word} from an honest controller`);
  }

  /** Lets the controller work until all calls have ended, or nothing happens any more. */
  async #settle(): Promise<void> {
    let idle = 0;
    let before = this.#tally.messages;
    while (!this.#calls.none && !this.#calls.failed && idle < IDLE_TURNS) {
      await turn();
      if (this.#device?.tick() === true || this.#tally.messages !== before) idle = 0;
      else {
        idle++;
        if (idle > 20) await new Promise((resolve) => setTimeout(resolve, 1));
      }
      before = this.#tally.messages;
    }
  }

  async close(): Promise<void> {
    const program = this.#program;
    if (program !== null) {
      this.#calls.start('close', () => program.nvme.close());
      await this.wait();
    }
    await this.#device?.close();
    this.#calls.assertSound();
  }

  async #attach(
    { mappable, cap, dstrd, vectors, adminEntries }: Attach,
    before: readonly DriverStep[],
  ): Promise<void> {
    if (this.#device !== null) return;
    const device = new HostileDevice(
      this.#tally,
      mappable,
      cap === undefined ? null : BigInt(`0x${cap}`),
      dstrd,
    );
    this.#device = device;
    for (const step of before) {
      if (step.do === 'lie') device.lies.push({ lie: step, left: step.skip });
      if (step.do === 'show') device.shown.push({ offset: step.offset, value: step.value, left: step.times });
      if (step.do === 'show config') device.configLies.push({ at: step.at, value: step.value });
    }
    this.#calls.start('attach', async () => {
      const nvme = await NvmeController.attach(device, {
        adminTimeout: ADMIN_TIMEOUT,
        vectors,
        adminEntries,
      });
      this.#program = { device, nvme, memory: null, queue: null, pair: null, outstanding: 0 };
    });
    await this.wait();
  }

  #run({ call, a, b }: Call): unknown {
    if (this.#program === null) return undefined;
    const run: CallFunction = CALLS[call];
    return run(this.#program, a, b);
  }
}
