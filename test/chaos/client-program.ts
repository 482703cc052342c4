// SPDX-License-Identifier: MIT
/** The process of role client: drives a controller under a verified load until it is killed, or told otherwise. */
import { closeSync, ftruncateSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Xoshiro128 } from '../../lib/random';
import {
  Header,
  Phase,
  sharedNow,
  type ClientOrder,
  type ClientReport,
  type ClientTask,
} from './client-messages';
import { Drive, Status, statusOf } from './drive';
import { BLOCKS_PER_CELL, CELL_BYTES, Ledger } from './ledger';
import { Load } from './load';
import { Tally, type Mistake } from './tally';

const RANGE_BYTES = 4096;
const SHRINKING_BYTES = 64 * CELL_BYTES;
const SHRINKING_READS = 64;
/** Commands of the load before it looks for orders again. */
const BATCH = 64;

function tell(report: ClientReport): void {
  process.send?.(report);
}

/** Mistakes are told to the parent, who counts them. */
class TellingTally extends Tally {
  override mistake(kind: Mistake, text: string): void {
    tell({ kind: 'mistake', mistake: kind === 'lost' || kind === 'wrong' ? kind : 'broken', text });
  }
}

function openLedger({ ledger, cells, seed }: ClientTask): Ledger {
  const words = new Uint32Array(Ledger.wordsOf(cells));
  new Uint8Array(words.buffer).set(readFileSync(ledger));
  return new Ledger(cells, seed, { fd: openSync(ledger, 'r+'), words });
}

class Client {
  readonly #task: ClientTask;
  readonly #ledger: Ledger;
  readonly #tally = new TellingTally();
  readonly #random: Xoshiro128;
  #drive: Drive | undefined;
  readonly #orders: ClientOrder[] = [];

  constructor(task: ClientTask) {
    this.#task = task;
    this.#ledger = openLedger(task);
    this.#random = Xoshiro128.fromSeed(task.loadSeed);
  }

  order(order: ClientOrder): void {
    this.#orders.push(order);
  }

  async run(): Promise<void> {
    let drive = await this.#bringUp();
    this.#enter('verify');
    this.#check(await drive.read(0, 0, 1));
    tell({ kind: 'first-io', at: sharedNow() });
    await this.#readBack(drive);
    this.#enter('load');
    for (;;) {
      const order = this.#orders.shift();
      const load = this.#loadOf(drive);
      if (order === undefined) {
        await load.run(BATCH);
        continue;
      }
      if (order.do === 'close') break;
      if (order.do === 'shrink') await this.#shrink(drive);
      if (order.do === 'reset-controller' || order.do === 'reset-device')
        drive = await this.#reset(drive, load, order.do === 'reset-device');
      tell({ kind: 'done' });
    }
    this.#enter('close');
    await drive.close();
    tell({ kind: 'done' });
  }

  async #bringUp(): Promise<Drive> {
    this.#enter('connect');
    const { socket, vectors, ranges } = this.#task;
    const drive = await Drive.open(socket, vectors, () => {
      this.#enter('bring-up');
    });
    await Promise.all(Array.from({ length: ranges }, () => drive.device.dma.allocate(RANGE_BYTES)));
    return (this.#drive = drive);
  }

  #loadOf(drive: Drive): Load {
    const load = new Load(drive, this.#ledger, this.#tally, this.#random);
    load.onDone = () => {
      this.#countLoad();
    };
    return load;
  }

  /** Resets under load, and brings the controller up again: what is in flight then may be lost, and nothing else. */
  async #reset(drive: Drive, load: Load, whole: boolean): Promise<Drive> {
    const enough = 1 + this.#random.below(BATCH);
    const under = load.run(Infinity).catch(() => undefined);
    await new Promise<void>((resolve) => {
      load.onDone = () => {
        this.#countLoad();
        if (load.done >= enough) resolve();
      };
      void under.then(resolve);
    });
    // Nobody completes what is in flight then: closing the controller fails it.
    if (whole) await drive.device.reset();
    await drive.detach();
    const next = await Drive.attach(drive.device, this.#task.vectors);
    await under;
    this.#drive = next;
    this.#check(await next.read(0, 0, 1));
    await this.#readBack(next);
    this.#enter('load');
    return next;
  }

  async #shrink(drive: Drive): Promise<void> {
    const folder = mkdtempSync(join(tmpdir(), 'vfio-user-shrinking-'));
    const fd = openSync(join(folder, 'memory'), 'w+');
    rmSync(folder, { recursive: true });
    ftruncateSync(fd, SHRINKING_BYTES);
    const range = await drive.device.dma.map({ iova: 0x20_0000_0000, size: SHRINKING_BYTES, fd });
    const buffer = { iova: Number(range.iova), size: SHRINKING_BYTES };
    const { queue, namespace } = drive;
    const reads = Array.from({ length: SHRINKING_READS }, (_, index) => {
      const where = { lba: 0, blocks: BLOCKS_PER_CELL, offset: index * CELL_BYTES, queue };
      return statusOf(namespace.read(buffer, where));
    });
    ftruncateSync(fd, 0);
    const late = statusOf(namespace.read(buffer, { lba: 0, blocks: BLOCKS_PER_CELL, queue }));
    // Each may have come before; none may do harm.
    for (const status of await Promise.all([...reads, late])) {
      if (status !== Status.success && status !== Status.transferError)
        tell({
          kind: 'mistake',
          mistake: 'wrong',
          text: `a read into memory that has shrunk ended with ${status}`,
        });
    }
    await range.close();
    closeSync(fd);
  }

  async #readBack(drive: Drive): Promise<void> {
    await drive.verify(this.#ledger, this.#tally);
    this.#count(Header.verified);
  }

  #count(index: number): void {
    this.#ledger.setHeader(index, (this.#ledger.words[index] as number) + 1);
  }

  #countLoad(): void {
    this.#count(Header.done);
    this.#ledger.setHeader(Header.flushes, this.#tally.flushes);
  }

  #check(status: Status): void {
    if (status !== Status.success)
      tell({ kind: 'mistake', mistake: 'wrong', text: `the first read ended with ${status}` });
  }

  #enter(phase: Phase): void {
    this.#ledger.setHeader(Header.phase, Phase[phase]);
  }

  get drive(): Drive | undefined {
    return this.#drive;
  }
}

let client: Client | undefined;
process.on('message', (order: ClientOrder) => {
  if (order.do !== 'go') {
    client?.order(order);
    return;
  }
  client = new Client(order.task);
  client
    .run()
    .catch(async (error: unknown) => {
      await client?.drive?.close().catch(() => undefined);
      tell({ kind: 'refused', text: error instanceof Error ? error.message : String(error) });
    })
    .finally(() => {
      process.disconnect();
    });
});
process.on('disconnect', () => {
  // The parent is gone, or told that all is done.
  setImmediate(() => process.exit());
});
tell({ kind: 'ready' });
