// SPDX-License-Identifier: MIT
/** A program that uses all of the client: each call takes two numbers, which choose what it is about. */
import type { VfioUserDevice, VfioUserIrq, VfioUserRegion, SubRegion } from '../../../lib/client';
import type { DmaMapping } from '../../../lib/dma/memory';
import type { DmaMemory, MappedArea } from '../../../lib/pci';
import type { MigrationStateName } from '../../../lib/protocol';
import { MEMORY_BYTES, type Descriptors } from '../descriptors';

/** What calls leave for later ones. */
export interface Program {
  readonly device: VfioUserDevice;
  readonly descriptors: Descriptors;
  region: VfioUserRegion | null;
  irq: VfioUserIrq | null;
  readonly areas: MappedArea[];
  readonly memories: (DmaMemory | DmaMapping)[];
  subRegions: readonly SubRegion[];
}

const STATES: readonly MigrationStateName[] = [
  'running',
  'stop',
  'stopCopy',
  'resuming',
  'preCopy',
  'error',
  'runningP2p',
];
const PAGE = 4096;

/** The region that calls work with: the one that was asked for last, or region 2. */
async function regionOf(program: Program): Promise<VfioUserRegion> {
  return (program.region ??= await program.device.region(2));
}

async function irqOf(program: Program): Promise<VfioUserIrq> {
  return (program.irq ??= await program.device.irq('msix'));
}

/** Waits for something that may never come, for a few turns. */
async function briefly(iterator: AsyncIterator<unknown>): Promise<void> {
  await Promise.race([iterator.next(), new Promise((resolve) => setImmediate(resolve))]);
  await iterator.return?.();
}

type Call = (program: Program, a: number, b: number) => unknown;

export const CALLS = {
  info: ({ device }) => device.info(),
  region: async (program, a) => (program.region = await program.device.region(a % 12)),
  read8: async (program, a) => (await regionOf(program)).read8(a % 0x5000),
  read32: async (program, a) => (await regionOf(program)).read32((a % 0x1000) * 4),
  read64: async (program, a) => (await regionOf(program)).read64((a % 0x800) * 8),
  readBytes: async (program, a, b) =>
    (await regionOf(program)).readBytes(a % 0x4000, b % 3 === 0 ? b % 70000 : b % 300),
  write32: async (program, a, b) => (await regionOf(program)).write32((a % 0x1000) * 4, b),
  writeBytes: async (program, a, b) =>
    (await regionOf(program)).writeBytes(a % 0x4000, new Uint8Array(b % 300)),
  writePosted: async (program, a, b) =>
    (await regionOf(program)).writeBytes(a % 0x3f00, new Uint8Array(b % 17), { posted: true }),
  // More than the socket takes, so that they are collected into REGION_WRITE_MULTI.
  writeBurst: async (program, a) => {
    const region = await regionOf(program);
    const writes = Array.from({ length: 600 }, (_, index) => region.write32(index * 4, a, { posted: true }));
    await Promise.all(writes);
  },
  map: async (program, a) => {
    const region = await program.device.region(a % 2);
    const [area] = region.areas;
    const mapped = area === undefined ? region.map(0, PAGE) : region.map(area.offset, area.size);
    program.areas.push(mapped);
    touch(mapped.buffer);
  },
  closeArea: ({ areas }) => {
    areas.shift()?.close();
  },
  ioFds: async (program, a) => {
    const region = await regionOf(program);
    program.subRegions = await region.ioFds({ useForWrites: a % 2 === 0 });
  },
  subRegion: async ({ subRegions }, a, b) => {
    const one = subRegions[a % Math.max(1, subRegions.length)];
    if (one === undefined) return;
    if ('signal' in one) one.signal(b % 2 === 0 ? undefined : b);
    else if (b % 2 === 0) await one.read32((b % 64) * 4 + one.offset);
    else await one.write16((b % 128) * 2 + one.offset, b & 0xffff);
  },
  irq: async (program, a) => (program.irq = await program.device.irq(a % 6)),
  enable: async (program, a, b) =>
    (await irqOf(program)).enable(
      b % 3 === 0 ? a % 6 : Array.from({ length: a % 6 }, () => () => undefined),
      { mode: b % 5 === 0 ? 'adaptive' : 'interrupt' },
    ),
  disable: async (program) => (await irqOf(program)).disable(),
  mask: async (program, a) => (await irqOf(program)).mask({ start: a % 5 }),
  unmask: async (program, a) => (await irqOf(program)).unmask([a % 2 === 0, a % 3 === 0]),
  trigger: async (program, a) => (await irqOf(program)).vector(a % 5).trigger(),
  poll: async (program, a) => (await irqOf(program)).vector(a % 5).poll(),
  signals: async (program, a) => briefly((await irqOf(program)).vector(a % 5).signals()),
  bind: async (program, a) =>
    (await irqOf(program)).vector(a % 5).bind('unmask', a % 2 === 0 ? null : program.descriptors.event),
  reset: ({ device }) => device.reset(),
  flush: ({ device }) => device.flush(),
  allocate: async ({ device, memories }, a) => {
    const memory = await device.dma.allocate(PAGE * (1 + (a % 8)));
    memories.push(memory);
    touch(memory.buffer);
  },
  dmaMap: async ({ device, memories, descriptors }, a, b) => {
    const iova = PAGE * (a % 64);
    const size = PAGE * (1 + (a % 3));
    const direct = b % 3 !== 0;
    const fd = descriptors.get(b % 7 === 0 ? 'read-only' : b % 2 === 0 ? 'shrinking' : 'sealed');
    memories.push(await device.dma.map(b % 5 === 0 ? { iova, size } : { iova, size, fd, direct }));
  },
  dmaClose: ({ memories }) => memories.shift()?.close(),
  unmap: ({ device }, a) => device.dma.unmap(PAGE * (a % 64), PAGE * (1 + (a % 3))),
  unmapAll: ({ device }) => device.dma.unmapAll(),
  unmapAndReport: ({ device }, a) => device.dma.unmapAndReport(PAGE * (a % 64), PAGE * (1 + (a % 3))),
  batch: ({ device, descriptors }, a, b) => {
    const batch = device.dma.batch();
    for (let i = 0; i < 1 + (a % 6); i++) {
      const iova = PAGE * (((a >>> 3) + 4 * i) % 64);
      if (((b >>> i) & 1) === 0) batch.map({ iova, size: PAGE, fd: descriptors.get('sealed') });
      else batch.unmap(iova, PAGE);
    }
    return batch.commit();
  },
  logStart: ({ device }, a) => device.dirtyLog.start(a % 2 === 0 ? {} : { pageSize: 4096 << (a % 4) }),
  logReport: ({ device }, a, b) => device.dirtyLog.report(PAGE * (a % 64), PAGE * (1 + (b % 100))),
  logStop: ({ device }) => device.dirtyLog.stop(),
  logSupported: ({ device }) => device.dirtyLog.supported(),
  migrationSupported: ({ device }) => device.migration.supported(),
  migrationState: ({ device }) => device.migration.state(),
  setState: ({ device }, a) => device.migration.setState(STATES[a % STATES.length] ?? 'stop'),
  save: async ({ device }, a) => {
    const stream = device.migration.createReadStream({ preCopy: a % 2 === 0 });
    const chunks = stream[Symbol.asyncIterator]();
    for (let count = 0; count < 20 && (await chunks.next()).done !== true; count++);
    await chunks.return?.();
  },
  load: ({ device }, a, b) =>
    new Promise<void>((resolve, reject) => {
      const stream = device.migration.createWriteStream();
      stream.once('error', reject).once('close', resolve);
      stream.write(new Uint8Array(a % 5000));
      if (b % 4 === 0) stream.destroy();
      else stream.end(new Uint8Array(b % 100));
    }),
  featureGet: ({ device }, a, b) => device.feature.get(a % 10, undefined, b % 300),
  featureSet: ({ device }, a, b) => device.feature.set(a % 10, new Uint8Array(b % 64)),
  featureProbe: ({ device }, a) => device.feature.probe(a % 10, { get: a % 2 === 0 }),
  header: ({ device }) => device.pci.header(),
  capabilities: ({ device }) => device.pci.capabilities(),
  extendedCapabilities: ({ device }) => device.pci.extendedCapabilities(),
  bars: ({ device }) => device.pci.bars(),
  probeBars: ({ device }) => device.pci.probeBars(),
  pciEnable: ({ device }, a) => device.pci.enable({ memory: a % 2 === 0, busMaster: a % 3 === 0 }),
  functionLevelReset: ({ device }) => device.pci.functionLevelReset(),
  configBytes: ({ device }, a, b) => device.config.readBytes(a % 4096, b % 300),
} as const satisfies Record<string, Call>;

/** Calls that block the thread; their replies have to be in the socket before. */
export const SYNC_CALLS = {
  configRead32Sync: ({ device }, a) => device.config.read32Sync((a % 64) * 4),
  configWrite16Sync: ({ device }, a, b) => {
    device.config.write16Sync((a % 32) * 2 + 128, b & 0xffff);
  },
  readBytesSync: ({ device }, a, b) => device.config.readBytesSync(a % 128, 1 + (b % 64)),
  flushSync: ({ device }) => {
    device.flushSync();
  },
} as const satisfies Record<string, Call>;

export type CallName = keyof typeof CALLS;
export type SyncCallName = keyof typeof SYNC_CALLS;
export const CALL_NAMES = Object.keys(CALLS) as CallName[];
export const SYNC_CALL_NAMES = Object.keys(SYNC_CALLS) as SyncCallName[];

/** Reads mapped memory, which the server may have truncated, and another call unmapped. */
function touch(buffer: ArrayBuffer): void {
  if (buffer.byteLength === 0) return;
  const view = new DataView(buffer);
  for (let at = 0; at < view.byteLength && at < MEMORY_BYTES; at += PAGE) view.getUint8(at);
}
