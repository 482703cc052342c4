// SPDX-License-Identifier: MIT
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';
import { Xoshiro128 } from '../../lib/random';
import { DEPTH, Drive, Status } from './drive';
import { ownFootprint } from './footprint';
import { CELL_BYTES, Ledger, WORDS_PER_CELL } from './ledger';
import { Load } from './load';
import type { Fault } from './plan';
import { injectAll, type Role, type RunOptions, type World } from './role';
import { ServerProcess } from './server-process';
import type { Tally } from './tally';

const CELLS = 512;
const SIZE = CELLS * CELL_BYTES;
/** Commands of the load before a fault, at most. */
const COMMANDS = 100;
/** MSI-X vectors: while the server is away, this process sleeps. */
const VECTORS = 2;

const KINDS = {
  kill: 'the server is killed, and started again: commands in flight go on, but for flushes',
  twice: 'it is killed once more while the client comes back',
  restart: 'the server is ended by SIGTERM, and started again',
  stop: 'the server is stopped for up to 200 ms, and goes on: nothing fails',
} as const;

/** A client whose server goes away and comes back, with its data in a file. */
class ServerWorld implements World {
  readonly rest = ownFootprint;
  readonly #tally: Tally;
  readonly #ledger: Ledger;
  readonly #random: Xoshiro128;
  readonly #socket: string;
  readonly #disk: string;
  #server: ServerProcess | undefined;
  #drive: Drive | undefined;

  constructor({ tally, seed, folder }: RunOptions) {
    this.#tally = tally;
    this.#ledger = new Ledger(CELLS, seed);
    this.#random = Xoshiro128.fromSeed(seed ^ 0x10ad);
    this.#socket = join(folder, 'socket');
    this.#disk = join(folder, 'disk');
  }

  async inject(fault: Fault): Promise<boolean> {
    const drive = (this.#drive ??= await this.#open());
    const load = new Load(drive, this.#ledger, this.#tally, this.#random);
    // A flush is not repeated: what its success would tell of is gone. Everything else goes on.
    load.excuse = ({ kind }, status) => kind === 'flush' && status === Status.gone;
    const under = load.run(Infinity).then(
      () => null,
      (error: unknown) => error as Error,
    );
    const more = async (commands: number): Promise<void> => {
      if (!(await doneSoFar(load, load.done + commands, under)))
        throw new Error(`the load ended: ${(await under)?.message}`);
    };
    await more(1 + Math.floor(fault.when * COMMANDS));
    if (fault.kind === 'stop') {
      this.#process.signal('SIGSTOP');
      await sleep(4 * fault.pause);
      this.#process.signal('SIGCONT');
    } else {
      await this.#die(drive, fault);
    }
    await more(1);
    if (fault.kind !== 'stop') this.#tally.gaps.push(performance.now() - this.#process.readyAt);
    await more(DEPTH);
    load.stop();
    const error = await under;
    if (error !== null) throw error;
    await drive.verify(this.#ledger, this.#tally);
    return true;
  }

  async finish(): Promise<void> {
    this.#drive ??= await this.#open();
    await this.#drive.verify(this.#ledger, this.#tally);
    const before = this.#ledger.beforeFlush();
    if ((await this.#drive.flush()) === Status.success) this.#ledger.flush(before);
    await this.#drive.close();
    await this.#process.end('SIGTERM');
    this.#checkFile();
  }

  async close(): Promise<void> {
    await this.#drive?.close().catch(() => undefined);
    await this.#server?.end('SIGKILL');
  }

  get #process(): ServerProcess {
    if (this.#server === undefined) throw new Error('there is no server');
    return this.#server;
  }

  async #serve(): Promise<ServerProcess> {
    const options = ['--backend', 'file', '--file', this.#disk, '--size', String(SIZE)];
    return (this.#server = await ServerProcess.start(this.#socket, options));
  }

  async #open(): Promise<Drive> {
    await this.#serve();
    return Drive.openLasting(this.#socket, VECTORS);
  }

  /** The server ends, and another one is started. */
  async #die({ nvme }: Drive, { kind, where, pause }: Fault): Promise<void> {
    const gone = once(nvme, 'disconnect');
    await this.#process.end(kind === 'restart' ? 'SIGTERM' : 'SIGKILL');
    this.#server = undefined;
    await gone;
    // What the server had completed is acknowledged by now; what else was in flight waits.
    await turn();
    this.#checkFile();
    await sleep(Math.floor(where * pause));
    await this.#serve();
    if (kind !== 'twice') return;
    for (let turns = pause; turns > 0; turns--) await turn();
    await this.#process.end('SIGKILL');
    await this.#serve();
  }

  /** Compares the file, without a server, with what was acknowledged. */
  #checkFile(): void {
    const bytes = new Uint8Array(SIZE);
    bytes.set(readFileSync(this.#disk));
    const words = new Uint32Array(bytes.buffer);
    for (let cell = 0; cell < CELLS; cell++) {
      const { generation, mistake } = this.#ledger.inspect(words, cell * WORDS_PER_CELL, cell);
      if (mistake !== undefined) this.#tally.mistake('lost', `in the file: ${mistake}`);
      else this.#ledger.settle(cell, generation);
    }
    this.#tally.verifiedBytes += SIZE;
  }
}

/** Waits until a load has done so many commands; false when it has ended before. */
async function doneSoFar(load: Load, count: number, end: Promise<unknown>): Promise<boolean> {
  const done = new Promise<boolean>((resolve) => {
    load.onDone = () => {
      if (load.done >= count) resolve(true);
    };
  });
  return Promise.race([end.then(() => false), done]);
}

export const serverRole: Role = {
  summary:
    'the server of a client dies under its load and comes back; what was acknowledged must be in the file',
  kinds: KINDS,
  gap: 'server back to first I/O',
  run: (options) => injectAll(options, new ServerWorld(options), 'client'),
};
