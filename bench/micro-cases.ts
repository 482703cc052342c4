// SPDX-License-Identifier: MIT
import { connect, type IrqOptions, type VfioUserDevice } from 'vfio-user';
import type { Measurement, OurLoads, Programs } from './micro-programs';
import { median } from './statistics';

/** One row: ours against the C client. Both return nanoseconds. */
export interface Case {
  readonly id: string;
  readonly name: string;
  /** Largest ratio, ours to C's, that is good enough; null for a row that only tells. */
  readonly bar: number | null;
  /** Rounds before those that count, until V8 has optimized the code; default 8. */
  readonly warmUp?: number;
  readonly ours: () => Promise<number>;
  readonly c: () => Promise<number>;
}

/** How much is measured in a round. */
export interface Counts {
  /** Round trips of which the median counts. */
  readonly roundTrips: number;
  /** Reads in flight at a time. */
  readonly pipelined: number;
  /** Times that {@link LOADS} registers are read. */
  readonly loads: number;
  readonly interrupts: number;
  readonly maps: number;
}

export const FULL: Counts = {
  roundTrips: 2000,
  pipelined: 1000,
  loads: 100,
  interrupts: 300,
  maps: 1024,
};

/** To try the script, not to measure. */
export const QUICK: Counts = { roundTrips: 20, pipelined: 20, loads: 2, interrupts: 5, maps: 16 };

/** Of bench/c/message.h: the registers of the server's BAR 0, and its page that can be mapped. */
const PAUSE_REGISTER = 0;
const SIGNALS_REGISTER = 4;
const PAGE = 4096;

/** Microseconds between signals: long enough for the receiver to fall asleep. */
const PAUSE = 1000;
/** As in bench/c/client.c: signals before those that are measured. */
const WARM_UP_SIGNALS = 3000;
const WARM_UP_PAUSE = 30;
/** Microseconds that the adaptive mode spins; more than {@link PAUSE}, as its documentation says. */
const SPIN = 2000;
const IOVA = 2 ** 40;
/** Of bench/c/client.c: loads that are timed together. */
const LOADS = 100_000;

/** Of bench/served-device.ts: BAR 2. */
const OUR_REGION = 2;

/** Of rows with a few thousand calls in a round. */
const LONG_WARM_UP = 24;

/** Kept, as `process` is a getter, which costs an idle processor as much as reading the clock. */
const { hrtime } = process;

/**
 * The rows that any vfio-user server can be measured with: they read the first word of configuration space.
 *
 * @param awakePath of a server that does not sleep between messages, so that nobody waits until its processor wakes
 */
export function messageCases(programs: Programs, path: string, counts: Counts, awakePath?: string): Case[] {
  const { roundTrips, pipelined } = counts;
  const awake =
    awakePath === undefined
      ? []
      : [readCase(programs, awakePath, roundTrips, 'sync-read-awake', 'the same, of a server that is awake')];
  return [
    readCase(programs, path, roundTrips, 'sync-read', 'region.read32Sync() by message, p50'),
    ...awake,
    {
      id: 'pipelined-reads',
      name: `${pipelined} x region.read32() in flight, total`,
      bar: 0.25,
      warmUp: LONG_WARM_UP,
      ours: () =>
        using(path, async (device) => {
          const region = await device.region('config');
          return timeOf(() => Promise.all(Array.from({ length: pipelined }, () => region.read32(0))));
        }),
      c: async () => total(await programs.measure('reads', path, pipelined)),
    },
  ];
}

/** Servers of a device with a register in a BAR. */
export interface RegisterServers {
  /** Ours, which sleeps after each message. */
  readonly sleeping: string;
  /** Ours as it is by default. */
  readonly adaptive: string;
  /** A server in C, and the region that its register is in. */
  readonly c: { readonly path: string; readonly region: number };
}

/** The rows of a server of ours, seen by the C client. */
export function serverCases(programs: Programs, servers: RegisterServers, { roundTrips }: Counts): Case[] {
  const { sleeping, adaptive, c } = servers;
  const read = async (path: string, region: number): Promise<number> =>
    median(await programs.measure('bar-read', path, roundTrips, region));
  const row = (id: string, name: string, bar: number, path: string): Case => ({
    id,
    name,
    bar,
    warmUp: LONG_WARM_UP,
    ours: () => read(path, OUR_REGION),
    c: () => read(c.path, c.region),
  });
  return [
    row('served-read', 'a register of a served device, spin 0, p50', 1, sleeping),
    row('served-read-adaptive', 'the same, by default', 0.6, adaptive),
  ];
}

/** The rows that need the device of bench/c/server.c. */
export function deviceCases(programs: Programs, path: string, counts: Counts): Case[] {
  const { roundTrips, loads, interrupts, maps } = counts;
  const perLoad = async (times: Promise<number[]>): Promise<number> => median(await times) / LOADS;
  const loadRow = (id: string, name: string, bar: number | null, ours: OurLoads, c: Measurement): Case => ({
    id,
    name,
    bar,
    ours: () => perLoad(programs.measureLoads(ours, path, loads)),
    c: () => perLoad(programs.measure(c, path, loads)),
  });
  const cInterrupt = async (): Promise<number> =>
    median(await programs.measure('interrupts', path, interrupts, PAUSE));
  return [
    loadRow('mapped-read', 'mapped register, Uint32Array', 3, 'loads', 'loads'),
    loadRow('mapped-read-argument', 'the same, array given to the function', null, 'argument-loads', 'loads'),
    loadRow('mapped-read-single', 'the same, one in a turn of a loop', null, 'single-loads', 'single-loads'),
    loadRow(
      'mapped-read-chained',
      'the same, each after the value of the last',
      null,
      'chained-loads',
      'chained-loads',
    ),
    loadRow('mapped-read-closed', 'the same, once a mapping was closed', null, 'loads-after-close', 'loads'),
    {
      id: 'mapped-read-sync',
      name: 'the same by region.read32Sync(), a message',
      bar: null,
      ours: () =>
        using(path, async (device) => {
          const region = await device.region('bar0');
          region.map(PAGE, PAGE);
          return median(timesOf(roundTrips, () => region.read32Sync(PAGE)));
        }),
      c: () => perLoad(programs.measure('loads', path, loads)),
    },
    {
      id: 'interrupt',
      name: 'interrupt to handler, mode interrupt, p50',
      bar: 1.3,
      ours: () => using(path, async (device) => median(await interruptTimes(device, interrupts, {}))),
      c: cInterrupt,
    },
    {
      id: 'interrupt-adaptive',
      name: 'interrupt to handler, mode adaptive, p50',
      bar: 0.3,
      ours: () =>
        using(path, async (device) =>
          median(await interruptTimes(device, interrupts, { mode: 'adaptive', spin: SPIN })),
        ),
      c: cInterrupt,
    },
    {
      id: 'dma-batch',
      name: `${maps} DMA maps in a batch, total`,
      bar: 0.25,
      warmUp: LONG_WARM_UP,
      ours: () => using(path, (device) => mapTime(device, maps)),
      c: async () => total(await programs.measure('maps', path, maps)),
    },
  ];
}

function readCase(programs: Programs, path: string, roundTrips: number, id: string, name: string): Case {
  return {
    id,
    name,
    bar: 0.8,
    warmUp: LONG_WARM_UP,
    ours: () =>
      using(path, async (device) => {
        const region = await device.region('config');
        return median(timesOf(roundTrips, () => region.read32Sync(0)));
      }),
    c: async () => median(await programs.measure('read', path, roundTrips)),
  };
}

async function using(path: string, measure: (device: VfioUserDevice) => Promise<number>): Promise<number> {
  // Maps of 4 KiB pages are measured, which huge pages cannot be cut into.
  await using device = await connect(path, { dma: { hugePages: 'never' } });
  return await measure(device);
}

/** From the end of one to the end of the next, as in bench/c/client.c. */
function timesOf(count: number, action: () => void): number[] {
  const times: number[] = [];
  let start = performance.now();
  for (let index = 0; index < count; index++) {
    action();
    const end = performance.now();
    times.push((end - start) * 1e6);
    start = end;
  }
  return times;
}

async function timeOf(action: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await action();
  return (performance.now() - start) * 1e6;
}

function total([time = NaN]: readonly number[]): number {
  return time;
}

/** From the moment that the server stored before each signal to the handler. Both clocks are CLOCK_MONOTONIC. */
async function interruptTimes(device: VfioUserDevice, count: number, options: IrqOptions): Promise<number[]> {
  const bar0 = await device.region('bar0');
  const stamp = new BigInt64Array(bar0.map(PAGE, PAGE).buffer);
  const irq = await device.irq('msix');
  let times: number[] = [];
  let left = 0;
  let taken = (): void => undefined;
  const handler = (signals: number): void => {
    times.push(Number(hrtime.bigint() - (stamp[0] as bigint)));
    left -= signals;
    if (left <= 0) taken();
  };
  await irq.enable([handler], options);
  const take = (signals: number, pause: number): Promise<void> =>
    new Promise((resolve, reject) => {
      [times, left, taken] = [[], signals, resolve];
      device.once('close', () => {
        reject(new Error('The server closed the connection'));
      });
      bar0
        .write32(PAUSE_REGISTER, pause)
        .then(() => bar0.write32(SIGNALS_REGISTER, signals))
        .catch(reject);
    });
  await take(WARM_UP_SIGNALS, WARM_UP_PAUSE);
  await take(count, PAUSE);
  return times;
}

async function mapTime(device: VfioUserDevice, count: number): Promise<number> {
  const memory = await device.dma.allocate(count * PAGE);
  return timeOf(() => {
    const batch = device.dma.batch();
    for (let page = 0; page < count; page++) {
      batch.map({
        iova: IOVA + page * PAGE,
        size: PAGE,
        fd: memory.fd,
        offset: memory.fdOffset + page * PAGE,
      });
    }
    return batch.commit();
  });
}
