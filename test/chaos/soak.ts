// SPDX-License-Identifier: MIT
/** `npm run soak`: see HELP. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { LatencyHistogram } from '../../lib/latency-histogram';
import { Xoshiro128 } from '../../lib/random';
import { atEnd, endWanted } from './children';
import { Drive } from './drive';
import { afterWarmUp, growth, slowing } from './flat';
import { FOOTPRINT_HEADER, footprintText, ownFootprint, type Footprint } from './footprint';
import { CELL_BYTES, Ledger } from './ledger';
import { Load } from './load';
import { machine } from './report';
import { ServerProcess } from './server-process';
import { MISTAKES, Tally, type Mistake } from './tally';
import { UsageError, readInteger, readValues, runMain } from './usage';

const MIB = 2 ** 20;
const CELLS = 4096;
/** Commands between two disturbances. */
const BATCH = 400;
/** Milliseconds without load after each batch, so that others on the machine get something done. */
const PAUSE = 10;
/** Ranges that are mapped and unmapped as a batch, and their size. */
const RANGES = 64;
const RANGE_BYTES = 8192;
/** Where they are mapped, far from what the container allocates. */
const RANGES_AT = 0x10_0000_0000;

/** By how much the fitted line may rise from the first sample that counts to the last. */
const MOST_GROWTH = { rss: 16 * MIB, heap: 4 * MIB, external: MIB, mappings: 64 } as const;
/** What must be the same in all samples. */
const CONSTANT = ['fds', 'eventfds', 'shared'] as const;
/** By what factor the median latency of the last third may be longer than that of the first. */
const MOST_SLOWING = 3;
/** Samples without which latency is not judged: in few of them it is other work on the machine that shows. */
const LEAST_FOR_LATENCY = 9;

const HELP = `Drives the emulated controller for long, and judges whether memory, descriptors, mappings and latency stay flat.

  npm run soak -- [options]

  --minutes N      how long (default 60)
  --interval S     seconds between two samples (default 60)
  --seed S         0 to 4294967295 (default: random)
  --help

A verified load of reads, writes and flushes is disturbed after every ${BATCH} commands: the controller or the device is reset,
with or without interrupts afterwards, ${RANGES} DMA ranges are mapped and unmapped, or the client disconnects and connects again.

Flat, over all samples but the first quarter, for client and server: descriptors, eventfds and shared mappings are the same in
all of them, and the line fitted by least squares rises by at most ${MOST_GROWTH.rss / MIB} MiB of resident memory, ${MOST_GROWTH.heap / MIB} MiB of heap, ${MOST_GROWTH.external / MIB} MiB of external
memory and ${MOST_GROWTH.mappings} mappings from the first to the last. The median latency, of commands without interrupts, is in the last third at most ${MOST_SLOWING} times that of the first.

Ctrl-C ends it early, with the verdict over the samples so far.

Exit codes: 0 flat, and nothing lost; 1 not; 2 wrong usage.
`;

interface Sample {
  readonly minute: number;
  readonly ios: number;
  /** Microseconds. */
  readonly p50: number;
  readonly p999: number;
  readonly client: Footprint;
  readonly server: Footprint;
}

interface Options {
  readonly minutes: number;
  readonly interval: number;
  readonly seed: number;
}

function readOptions(args: string[]): Options | null {
  const values = readValues(args, {
    minutes: { type: 'string', default: '60' },
    interval: { type: 'string', default: '60' },
    seed: { type: 'string', default: String(Math.floor(Math.random() * 2 ** 32)) },
    help: { type: 'boolean', default: false },
  });
  if (values.help) return null;
  const minutes = Number(values.minutes);
  if (!(minutes > 0 && minutes < 1e6))
    throw new UsageError(`--minutes is a number above 0, not ${values.minutes}`);
  return {
    minutes,
    interval: readInteger('interval', values.interval, 1, 3600),
    seed: readInteger('seed', values.seed, 0, 2 ** 32 - 1),
  };
}

/** A client under load, which is disturbed. */
class Soak {
  readonly #tally: Tally;
  readonly #server: ServerProcess;
  readonly #ledger: Ledger;
  readonly #random: Xoshiro128;
  #drive: Drive;
  #vectors = 0;
  /** Of reads and writes without interrupts, which wait for nothing but the server. */
  latency = new LatencyHistogram();

  constructor(tally: Tally, server: ServerProcess, drive: Drive, seed: number) {
    this.#tally = tally;
    this.#server = server;
    this.#drive = drive;
    this.#ledger = new Ledger(CELLS, seed);
    this.#random = Xoshiro128.fromSeed(seed);
  }

  async cycle(): Promise<void> {
    const load = new Load(this.#drive, this.#ledger, this.#tally, this.#random);
    load.latency = this.#vectors === 0 ? this.latency : null;
    await load.run(BATCH);
    const vectors = this.#random.below(2) * 2;
    const choice = this.#random.below(4);
    if (choice !== 2) this.#vectors = vectors;
    switch (choice) {
      case 0:
        this.#disturbed('controller reset');
        await this.#attach(vectors);
        break;
      case 1:
        this.#disturbed('device reset');
        await this.#drive.device.reset();
        await this.#attach(vectors);
        break;
      case 2:
        this.#disturbed('maps');
        await this.#map();
        break;
      default:
        this.#disturbed('reconnect');
        await this.#drive.close();
        this.#drive = await Drive.open(this.#server.path, vectors);
    }
    await sleep(PAUSE);
  }

  /** Always in the same state: connected, without interrupts, and with everything read back. */
  async rest(): Promise<void> {
    this.#vectors = 0;
    await this.#attach(0);
    await this.#drive.verify(this.#ledger, this.#tally);
  }

  close(): Promise<void> {
    return this.#drive.close();
  }

  /** Brings the controller up again. */
  async #attach(vectors: number): Promise<void> {
    await this.#drive.detach();
    this.#drive = await Drive.attach(this.#drive.device, vectors);
  }

  async #map(): Promise<void> {
    const { dma } = this.#drive.device;
    const batch = dma.batch();
    const memory = await dma.allocate(RANGES * RANGE_BYTES);
    const at = (index: number): number => RANGES_AT + 2 * index * RANGE_BYTES;
    for (let index = 0; index < RANGES; index++)
      batch.map({
        iova: at(index),
        size: RANGE_BYTES,
        fd: memory.fd,
        offset: memory.fdOffset + index * RANGE_BYTES,
      });
    await batch.commit();
    const undo = dma.batch();
    for (let index = 0; index < RANGES; index++) undo.unmap(at(index), RANGE_BYTES);
    await undo.commit();
    await memory.close();
  }

  #disturbed(what: string): void {
    this.#tally.injected(what);
  }
}

const COLUMNS = '   min       I/Os   p50 us  p99.9 us';

function sampleLines({ minute, ios, p50, p999, client, server }: Sample): string {
  const numbers = [
    minute.toFixed(1).padStart(6),
    String(ios).padStart(11),
    p50.toFixed(0).padStart(9),
    p999.toFixed(0).padStart(10),
  ];
  const row = numbers.join('');
  return `${row}  client ${footprintText(client)}\n${' '.repeat(row.length)}  server ${footprintText(server)}`;
}

function judge(samples: readonly Sample[], tally: Tally): void {
  const counting = afterWarmUp(samples);
  tally.now = `over ${counting.length} samples`;
  for (const who of ['client', 'server'] as const) {
    for (const [name, most] of Object.entries(MOST_GROWTH) as [keyof typeof MOST_GROWTH, number][]) {
      const rise = growth(counting.map((sample) => sample[who][name]));
      const [unit, of] = name === 'mappings' ? [1, ''] : [MIB, ' MiB'];
      const text = `${who}: ${name} rises by ${(rise / unit).toFixed(2)}${of}, at most by ${most / unit}`;
      console.log(text);
      if (rise > most) tally.mistake('leaks', text);
    }
    for (const name of CONSTANT) {
      const found = [...new Set(counting.map((sample) => sample[who][name]))];
      if (found.length > 1) tally.mistake('leaks', `${who}: ${name} is not constant: ${found.join(', ')}`);
    }
  }
  if (counting.length < LEAST_FOR_LATENCY) {
    console.log(`median latency: not judged, since that takes ${LEAST_FOR_LATENCY} samples that count`);
    return;
  }
  const factor = slowing(counting.map(({ p50 }) => p50));
  const text = `median latency: the last third is ${factor.toFixed(2)} times the first, at most ${MOST_SLOWING}`;
  console.log(text);
  if (factor > MOST_SLOWING) tally.mistake('leaks', text);
}

async function main(): Promise<number> {
  const options = readOptions(process.argv.slice(2));
  if (options === null) {
    console.log(HELP);
    return 0;
  }
  const { minutes, interval, seed } = options;
  console.log(`soak --minutes ${minutes} --interval ${interval} --seed ${seed}\n${machine()}`);
  const folder = mkdtempSync(join(tmpdir(), 'vfio-user-soak-'));
  const remove = atEnd(() => {
    rmSync(folder, { recursive: true, force: true });
  });
  const serve = ['--backend', 'memory', '--size', String(CELLS * CELL_BYTES)];
  const server = await ServerProcess.start(join(folder, 'socket'), serve);
  const tally = new Tally();
  tally.now = 'under load';
  const soak = new Soak(tally, server, await Drive.open(server.path), seed);
  const samples: Sample[] = [];
  console.log(`${COLUMNS}         ${FOOTPRINT_HEADER}`);
  const start = performance.now();
  const elapsed = (): number => (performance.now() - start) / 1000;
  try {
    while (elapsed() < minutes * 60 && !endWanted()) {
      const next = elapsed() + interval;
      while (elapsed() < next && !endWanted()) await soak.cycle();
      await soak.rest();
      const [p50 = NaN, p999 = NaN] = [50, 99.9].map((share) => soak.latency.percentile(share) / 1000);
      const [client, ofServer] = [await ownFootprint(), await server.footprint()];
      const sample = { minute: elapsed() / 60, ios: tally.ios, p50, p999, client, server: ofServer };
      samples.push(sample);
      soak.latency = new LatencyHistogram();
      console.log(sampleLines(sample));
    }
    await soak.close();
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    tally.mistake('broken', [text, server.ending].filter((part) => part !== undefined).join('; '));
  }
  await server.end('SIGTERM');
  if (samples.length > 0) judge(samples, tally);
  const disturbances = [...tally.faults].map(([what, count]) => `${what} ${count}`).join(', ');
  console.log(`disturbances: ${disturbances}; ${(tally.verifiedBytes / MIB).toFixed(0)} MiB verified`);
  for (const text of tally.texts) console.log(text);
  const found = (Object.keys(MISTAKES) as Mistake[]).filter((kind) => tally.count(kind) > 0);
  console.log(
    found.length === 0
      ? 'flat, and nothing lost'
      : `found: ${found.map((kind) => MISTAKES[kind]).join(', ')}`,
  );
  remove();
  return tally.mistakes === 0 ? 0 : 1;
}

runMain(main);
