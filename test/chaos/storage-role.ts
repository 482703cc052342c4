// SPDX-License-Identifier: MIT
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  statfsSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { Xoshiro128 } from '../../lib/random';
import { FailingStorage } from '../support/failing-storage';
import { atEnd } from './children';
import { Drive, Status } from './drive';
import { BLOCKS_PER_CELL, BLOCK_BYTES, CELL_BYTES, Ledger, WORDS_PER_CELL } from './ledger';
import { Load } from './load';
import type { Fault } from './plan';
import { injectAll, type Role, type RunOptions, type World } from './role';
import { ServerProcess } from './server-process';
import type { Tally } from './tally';

const CELLS = 1024;
const SIZE = CELLS * CELL_BYTES;
/** Commands of the load of a fault, and of one that makes all slow. */
const COMMANDS = 150;
const SLOW_COMMANDS = 30;
/** MSI-X vectors: while the storage takes its time, this process sleeps. */
const VECTORS = 2;
/** Room on the small disk beside the namespace, in bytes. */
const SPARE = 1 << 20;

const KINDS = {
  'bad-write':
    'writes of some blocks fail with EIO: they fail alone, with Write Fault and an entry in the error log',
  'bad-read': 'reads of some blocks fail with EIO: they fail alone, with Unrecovered Read Error',
  'failed-flush': 'fdatasync fails: flush and FUA fail until all is written again',
  full: 'a tmpfs is full: writes without room fail with Capacity Exceeded, and work again when there is room',
  shrunk: 'the file is truncated: what is beyond its end fails, and the flush, and nothing is extended',
  power: 'everything that was not flushed is lost',
  kill: 'the server is killed: everything that was acknowledged is in the file',
  slow: 'each call takes up to 5 ms longer: nothing fails',
  short: 'calls transfer half of what they are asked for: nothing fails',
} as const;

/** A file backend whose storage fails. */
class StorageWorld implements World {
  readonly #tally: Tally;
  readonly #ledger: Ledger;
  readonly #storage = new FailingStorage({ size: SIZE, platter: true });
  readonly #random: Xoshiro128;
  readonly #folder: string;
  readonly #disk: string;
  readonly #unmount: (() => void) | null;
  #server: ServerProcess | undefined;
  #drive: Drive | undefined;
  #load: Load | undefined;

  constructor({ tally, seed, folder, lie }: RunOptions) {
    this.#tally = tally;
    this.#ledger = new Ledger(CELLS, seed);
    this.#random = Xoshiro128.fromSeed(seed ^ 0x10ad);
    this.#folder = folder;
    const small = join(folder, 'disk');
    mkdirSync(small);
    this.#unmount = mountSmall(small);
    this.#disk = join(small, 'disk');
    this.#storage.lie(lie);
    this.#newDisk();
  }

  async inject(fault: Fault): Promise<boolean> {
    await this.#start();
    switch (fault.kind) {
      case 'bad-write':
      case 'bad-read':
        await this.#badSector(fault, fault.kind === 'bad-write');
        break;
      case 'failed-flush':
        await this.#failedFlush(fault);
        break;
      case 'full':
        return this.#full(fault);
      case 'shrunk':
        await this.#shrunk(fault);
        break;
      case 'power':
        await this.#die(fault);
        this.#storage.cutPower(this.#disk);
        this.#checkFile(this.#disk, (cell) => this.#ledger.flushedOf(cell), true);
        break;
      case 'kill':
        await this.#die(fault);
        this.#checkFile(this.#disk, (cell) => this.#ledger.acknowledgedOf(cell), true);
        break;
      case 'slow':
        this.#storage.delay(1 + Math.floor(fault.much * 5000));
        await this.#work.run(SLOW_COMMANDS);
        this.#storage.delay(0);
        break;
      case 'short':
        this.#storage.short(true);
        await this.#work.run(COMMANDS);
        this.#storage.short(false);
        break;
      default:
        throw new Error(`there is no fault ${fault.kind}`);
    }
    return true;
  }

  /** Everything once more, through the device and past it. */
  async finish(): Promise<void> {
    await this.#start();
    await this.#device.verify(this.#ledger, this.#tally);
    await this.#flushAndCheck();
    await this.#device.close();
    await this.#process.end('SIGTERM');
    this.#checkFile(this.#disk, (cell) => this.#ledger.acknowledgedOf(cell));
  }

  async close(): Promise<void> {
    await this.#drive?.close().catch(() => undefined);
    await this.#server?.end('SIGKILL');
    this.#unmount?.();
    this.#storage[Symbol.dispose]();
  }

  get #process(): ServerProcess {
    if (this.#server === undefined) throw new Error('there is no server');
    return this.#server;
  }

  get #device(): Drive {
    if (this.#drive === undefined) throw new Error('there is no drive');
    return this.#drive;
  }

  get #work(): Load {
    if (this.#load === undefined) throw new Error('there is no load');
    return this.#load;
  }

  async #start(): Promise<void> {
    if (this.#server !== undefined) return;
    const options = ['--backend', 'file', '--file', this.#disk, '--size', String(SIZE)];
    this.#server = await ServerProcess.start(
      join(this.#folder, 'socket'),
      options,
      this.#storage.environment,
    );
    this.#drive = await Drive.open(this.#server.path, VECTORS);
    this.#load = new Load(this.#drive, this.#ledger, this.#tally, this.#random);
  }

  /** Runs the load, and does something when a part of it is done. */
  async #during(fault: Fault, commands: number, act: () => void): Promise<void> {
    const load = this.#work;
    const at = Math.floor(fault.when * commands);
    load.onDone = () => {
      if (load.done !== at + 1) return;
      load.onDone = () => undefined;
      act();
    };
    await load.run(commands);
  }

  /** Blocks of which each access fails. */
  async #badSector(fault: Fault, writing: boolean): Promise<void> {
    const load = this.#work;
    const first = Math.floor(fault.where * (CELLS - 8));
    const count = 1 + Math.floor(fault.much * 7);
    const call = writing ? 'pwrite' : 'pread';
    const status = writing ? Status.writeFault : Status.unrecoveredReadError;
    load.excuse = (operation, found) =>
      found === status &&
      (operation.kind === 'read') === !writing &&
      operation.cell < first + count &&
      operation.cell + operation.cells > first;
    await this.#during(fault, COMMANDS, () => {
      this.#storage.fail(call, first * CELL_BYTES, count * CELL_BYTES);
    });
    const attempt = (cell: number): Promise<Status> => (writing ? load.write(cell) : load.read(cell));
    this.#expect(status, await attempt(first), `${fault.kind}: an access to a bad block`);
    this.#expect(Status.success, await attempt(first + count), `${fault.kind}: an access beside a bad block`);
    const [entry] = await this.#device.nvme.admin.errorLog(1);
    const lba = first * BLOCKS_PER_CELL;
    if (entry?.lba !== BigInt(lba))
      this.#tally.mistake('wrong', `the error log tells of block ${String(entry?.lba)}, not of ${lba}`);
    this.#storage.heal(call);
    this.#noExcuse();
    this.#expect(
      Status.success,
      await attempt(first),
      `${fault.kind}: an access to a block that is well again`,
    );
    await load.rewrite(Array.from({ length: count }, (_, index) => first + index));
  }

  async #failedFlush(fault: Fault): Promise<void> {
    const load = this.#work;
    load.excuse = ({ kind }, status) => (kind === 'flush' || kind === 'fua') && status === Status.writeFault;
    await this.#during(fault, COMMANDS, () => {
      this.#storage.fail('fdatasync');
    });
    const cell = Math.floor(fault.where * CELLS);
    this.#expect(Status.success, await load.write(cell), 'a write before the flush that fails');
    this.#expect(Status.writeFault, await load.flush(), 'a flush that fails');
    this.#storage.heal('fdatasync');
    // The system call succeeds from here on, which proves nothing.
    this.#expect(Status.writeFault, await load.flush(), 'a flush after one that failed');
    await load.rewrite(this.#ledger.unflushed());
    this.#noExcuse();
    await this.#flushAndCheck();
  }

  async #full(fault: Fault): Promise<boolean> {
    if (this.#unmount === null) {
      this.#tally.notes.add('full: not injected, since a tmpfs cannot be mounted here');
      return false;
    }
    await this.#device.close();
    await this.#process.end('SIGTERM');
    // A file without blocks, on a disk with room for a part of them.
    this.#newDisk();
    const ballast = join(this.#folder, 'disk', 'ballast');
    const { bavail, bsize } = statfsSync(join(this.#folder, 'disk'));
    const room = Math.floor((0.05 + 0.6 * fault.much) * SIZE);
    writeFileSync(ballast, new Uint8Array(Math.max(0, bavail * bsize - room)));
    await this.#start();
    const load = this.#work;
    load.excuse = ({ kind }, status) =>
      (kind === 'write' || kind === 'fua') && status === Status.capacityExceeded;
    await load.run(COMMANDS);
    // Until there is no room for sure.
    let [written, cell, status]: [number, number, Status] = [-1, 0, Status.success];
    for (; cell < CELLS; cell++) {
      status = await load.write(cell);
      if (status !== Status.success) break;
      written = cell;
    }
    this.#expect(Status.capacityExceeded, status, 'a write to a full disk');
    if (written >= 0)
      this.#expect(Status.success, await load.write(written), 'a write on a full disk to what has its place');
    await this.#flushAndCheck();
    rmSync(ballast);
    this.#noExcuse();
    this.#expect(Status.success, await load.write(cell), 'a write when there is room again');
    await load.rewrite(Array.from({ length: CELLS }, (_, index) => index));
    return true;
  }

  async #shrunk(fault: Fault): Promise<void> {
    const load = this.#work;
    // Not always at the end of a cell.
    const end = Math.floor(((0.4 + 0.5 * fault.where) * SIZE) / BLOCK_BYTES) * BLOCK_BYTES;
    const whole = Math.floor(end / CELL_BYTES);
    load.excuse = ({ kind, cell, cells }, status) => {
      if (kind === 'flush') return status === Status.writeFault;
      if (kind === 'fua' && status === Status.writeFault) return true;
      return (
        cell + cells > whole && status === (kind === 'read' ? Status.unrecoveredReadError : Status.writeFault)
      );
    };
    await this.#during(fault, COMMANDS, () => {
      truncateSync(this.#disk, end);
      // The tool did that: what was beyond the end is no loss of the server's.
      for (let cell = whole; cell < CELLS; cell++) this.#ledger.forget(cell);
    });
    // A write may have looked at the size in the instant before.
    truncateSync(this.#disk, end);
    for (let cell = whole; cell < CELLS; cell++) this.#ledger.forget(cell);
    this.#expect(Status.unrecoveredReadError, await load.read(CELLS - 1), 'a read beyond the end');
    this.#expect(Status.writeFault, await load.write(CELLS - 1), 'a write beyond the end');
    this.#expect(Status.success, await load.write(0), 'a write within the file');
    this.#expect(Status.writeFault, await load.flush(), 'the flush of a truncated file');
    const { size } = statSync(this.#disk);
    if (size !== end) this.#tally.mistake('wrong', `a file that was truncated to ${end} bytes has ${size}`);
    truncateSync(this.#disk, SIZE);
    this.#noExcuse();
    await load.rewrite(Array.from({ length: CELLS - whole }, (_, index) => whole + index));
    await this.#flushAndCheck();
  }

  /** Kills the server under load. */
  async #die(fault: Fault): Promise<void> {
    let dead: Promise<void> | undefined;
    try {
      await this.#during(fault, COMMANDS, () => {
        dead = this.#process.end('SIGKILL');
      });
    } catch (error) {
      if (dead === undefined) throw error;
    }
    await dead;
    await this.#device.close().catch(() => undefined);
    this.#server = undefined;
  }

  async #flushAndCheck(): Promise<void> {
    if ((await this.#work.flush()) !== Status.success)
      this.#tally.mistake('wrong', 'a flush failed although everything was written again');
    const platter = this.#storage.platter as string;
    const before = this.#tally.count('lost');
    this.#checkFile(platter, (cell) => this.#ledger.flushedOf(cell));
    if (this.#tally.count('lost') > before)
      this.#tally.mistake('lies', 'a flush succeeded, and not all is durable');
  }

  /**
   * Compares a file with the ledger.
   *
   * @param least the oldest generation of a cell that is right
   * @param settle whether what is found is what the cells hold from now on
   */
  #checkFile(path: string, least: (cell: number) => number, settle = false): void {
    const bytes = new Uint8Array(SIZE);
    bytes.set(readFileSync(path));
    const words = new Uint32Array(bytes.buffer);
    for (let cell = 0; cell < CELLS; cell++) {
      const { generation, mistake } = this.#ledger.inspect(words, cell * WORDS_PER_CELL, cell, least(cell));
      if (mistake !== undefined) this.#tally.mistake('lost', `in the file: ${mistake}`);
      else if (settle) this.#ledger.settle(cell, generation);
    }
    this.#tally.verifiedBytes += SIZE;
  }

  #expect(wanted: Status, found: Status, what: string): void {
    if (found === Status.success) this.#tally.ios++;
    else if (found === wanted) this.#tally.fails(`alone ${found}`);
    if (wanted === found) return;
    // A flush that succeeds where it must not is a lie, whatever is on the platter.
    const lie = what.includes('flush') && found === Status.success;
    this.#tally.mistake(lie ? 'lies' : 'wrong', `${what} ended with ${found}, not with ${wanted}`);
  }

  #noExcuse(): void {
    this.#work.excuse = () => false;
  }

  #newDisk(): void {
    this.#server = undefined;
    rmSync(this.#disk, { force: true });
    closeSync(openSync(this.#disk, 'w'));
    truncateSync(this.#disk, SIZE);
    this.#storage.clearPlatter();
    for (let cell = 0; cell < CELLS; cell++) this.#ledger.forget(cell);
  }
}

/** Mounts a small tmpfs; the function that takes it away, or null where that is not allowed. */
function mountSmall(folder: string): (() => void) | null {
  const size = `size=${SIZE + SPARE}`;
  if (spawnSync('mount', ['-t', 'tmpfs', '-o', size, 'vfio-user-chaos', folder]).status !== 0) return null;
  return atEnd(() => {
    spawnSync('umount', ['-l', folder]);
  });
}

export const storageRole: Role = {
  summary: 'the storage of a file backend fails, under load from this process',
  kinds: KINDS,
  gap: '',
  run: (options) => injectAll(options, new StorageWorld(options), 'server'),
};
