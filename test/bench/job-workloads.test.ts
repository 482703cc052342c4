// SPDX-License-Identifier: MIT
/** What the commands of each workload are: opcodes, LBAs, lengths, FUA, in the order in which a device sees them. */
import type { BlockSplit } from '../../lib/bench/job';
import type { Job } from '../../lib/bench/job';
import { NvmOpcode } from '../../lib/nvme/spec';
import { finish, world, type Io } from './fake-device';

const { read: READ, write: WRITE, datasetManagement: TRIM } = NvmOpcode;
/** LBAs of a block of 4 KiB, and the first LBA of the region. */
const BLOCK = 8;
const FIRST = 80;

const blockOf = ({ lba }: Io): number => (lba - FIRST) / BLOCK;
const WAYS = ['loop', 'each turn'] as const;

function mix(bytes: readonly (readonly [bytes: number, share: number])[]): BlockSplit {
  const shares = bytes.map(([size, share]) => ({ bytes: size, share }));
  return { read: shares, write: shares, trim: shares };
}

function run(changes: Partial<Job>, way: (typeof WAYS)[number] = 'loop') {
  const { device, run: job } = world(changes, way);
  const result = finish(job);
  return { device, result, log: device.log };
}

describe('trims', () => {
  test.each([
    ['SGL', true],
    ['PRP', false],
  ])('each is one Dataset Management command with one range (%s)', (_, sgl) => {
    const { log, result } = run({ workload: 'trim', ioBlocks: 6, depth: 2, sgl, bufferBytes: 16 });
    expect(log.map((io) => [io.opcode, io.lba, io.blocks, io.psdt])).toEqual(
      [0, 1, 2, 3, 4, 5].map((block) => [TRIM, FIRST + block * BLOCK, BLOCK, sgl ? 1 : 0]),
    );
    // The buffer is that of the command id: 16 bytes each.
    expect(new Set(log.map(({ cid, pointer }) => pointer[0]! - cid * 16)).size).toBe(1);
    expect(result.trim).toMatchObject({ ios: 6, bytes: 6 * 4096 });
    expect([result.read.ios, result.write.ios]).toEqual([0, 0]);
  });

  test('at random, each block once', () => {
    const { log } = run({ workload: 'randtrim', ioBlocks: 32, depth: 4, bufferBytes: 16 });
    expect(new Set(log.map(blockOf)).size).toBe(32);
    expect(log.map(blockOf)).not.toEqual([...log.map(blockOf)].sort((a, b) => a - b));
    expect(log.every(({ opcode }) => opcode === TRIM)).toBe(true);
  });

  test.each([1, 2, 5, 32])(
    'trimwrite writes a block when its trim is complete, and never before, at a depth of %i',
    (depth) => {
      for (const workload of ['trimwrite', 'randtrimwrite'] as const) {
        const { device, run: job } = world({ workload, ioBlocks: 20, depth });
        device.hold = Math.min(depth, 3);
        const trimmed = new Set<number>();
        device.answer = (io) => {
          if (io.opcode === TRIM) trimmed.add(blockOf(io));
          else expect([io.opcode, trimmed.has(blockOf(io))]).toEqual([WRITE, true]);
          // The last ones are let through.
          if (device.log.length >= 20) device.hold = 1;
          return 0;
        };
        const result = finish(job);
        expect([result.trim.ios, result.write.ios]).toEqual([20, 20]);
        expect(new Set(device.log.filter((io) => io.opcode === WRITE).map(blockOf)).size).toBe(20);
        expect(device.deepest).toBeLessThanOrEqual(depth);
        expect(result.ended).toEqual({ reason: 'finished', message: '' });
      }
    },
  );

  test('a run that is stopped ends, with blocks that are trimmed and not written', () => {
    const { device, run: job, state } = world({ workload: 'trimwrite', runtimeMs: 1e6, depth: 4 });
    device.answer = () => {
      if (device.log.length >= 50) state.stop();
      return 0;
    };
    const result = finish(job);
    expect(result.ended.reason).toBe('stopped');
    expect(result.trim.ios + result.write.ios).toBe(device.log.length);
  });

  test('one that fails is named', () => {
    const { device, run: job } = world({ workload: 'trim', depth: 1, bufferBytes: 16 });
    device.answer = () => 0x81;
    expect(finish(job).ended.message).toMatch(/^failed Dataset Management at LBA 80: /);
  });
});

describe('a sequential mix', () => {
  test('reads and writes go through the region each for itself', () => {
    const { log } = run({ workload: 'rw', ioLimit: 40, ioBlocks: 64, depth: 1 });
    const of = (opcode: number): number[] => log.filter((io) => io.opcode === opcode).map(blockOf);
    expect(of(READ)).toEqual(of(READ).map((_, index) => index));
    expect(of(WRITE)).toEqual(of(WRITE).map((_, index) => index));
    expect(of(READ).length + of(WRITE).length).toBe(40);
    expect(Math.min(of(READ).length, of(WRITE).length)).toBeGreaterThan(5);
  });
});

describe.each(WAYS)('FUA, %s', (way) => {
  test.each([
    [{ read: true, write: false }],
    [{ read: false, write: true }],
    [{ read: true, write: true }],
    [{ read: false, write: false }],
  ])('%j', (fua) => {
    const { log } = run({ workload: 'randrw', ioLimit: 100, ioBlocks: 64, fua }, way);
    for (const io of log) expect([io.fua, io.blocks]).toEqual([io.write ? fua.write : fua.read, BLOCK]);
    expect(new Set(log.map(({ write }) => write)).size).toBe(2);
  });
});

describe.each(WAYS)('blocks of different sizes, %s', (way) => {
  const split = mix([
    [4096, 0.6],
    [16_384, 0.3],
    [65_536, 0.1],
  ]);
  const sizes: Partial<Job> = {
    distribution: { kind: 'uniform' },
    split,
    blockSize: 65_536,
    unit: 4096,
    bufferBytes: 65_536,
    ioBlocks: 64,
    depth: 4,
  };

  test.each([
    ['SGL', true],
    ['PRP', false],
  ])('have their shares, lie within the region, and move their data (%s)', (_, sgl) => {
    const { log, result } = run({ ...sizes, workload: 'randread', ioLimit: 2000, sgl }, way);
    expect(log).toHaveLength(2000);
    const share = (blocks: number): number => log.filter((io) => io.blocks === blocks).length / log.length;
    // Four standard deviations of 2000 draws are 0.044 at most.
    for (const [blocks, wanted] of [
      [8, 0.6],
      [32, 0.3],
      [128, 0.1],
    ] as const)
      expect(Math.abs(share(blocks) - wanted)).toBeLessThan(0.045);
    for (const { lba, blocks } of log)
      expect(lba >= FIRST && lba % BLOCK === 0 && lba + blocks <= FIRST + 64 * BLOCK).toBe(true);
    expect(result.read.bytes).toBe(log.reduce((sum, { blocks }) => sum + blocks * 512, 0));
    if (sgl) for (const { pointer, blocks } of log) expect(pointer[2]).toBe(blocks * 512);
  });

  test('one after the other, each begins where the one before has ended', () => {
    const { log } = run({ ...sizes, workload: 'write', ioLimit: 200 }, way);
    let next = FIRST;
    for (const { lba, blocks } of log) {
      if (next + blocks > FIRST + 64 * BLOCK) next = FIRST;
      expect(lba).toBe(next);
      next += blocks;
    }
  });

  test('of reads and of writes', () => {
    const shares = (bytes: number) => [{ bytes, share: 1 }];
    const own = { read: shares(4096), write: shares(65_536), trim: shares(4096) };
    const { log, result } = run({ ...sizes, split: own, workload: 'randrw', ioLimit: 300 }, way);
    for (const io of log) expect(io.blocks).toBe(io.write ? 128 : 8);
    expect(result.read.bytes).toBe(result.read.ios * 4096);
    expect(result.write.bytes).toBe(result.write.ios * 65_536);
  });

  test('a limit of bytes ends the run with the I/O that reaches it', () => {
    const { log } = run({ ...sizes, workload: 'randread', ioLimit: Infinity, byteLimit: 1_000_000 }, way);
    const bytes = log.map(({ blocks }) => blocks * 512);
    const sum = (list: readonly number[]): number => list.reduce((all, each) => all + each, 0);
    expect(sum(bytes)).toBeGreaterThanOrEqual(1_000_000);
    expect(sum(bytes.slice(0, -1))).toBeLessThan(1_000_000);
  });

  test('the same seed gives the same sizes', () => {
    const drawn = (seed: number): string =>
      run({ ...sizes, workload: 'randread', ioLimit: 50, seed }, way)
        .log.map(({ blocks, lba }) => `${blocks}@${lba}`)
        .join();
    expect(drawn(1)).toBe(drawn(1));
    expect(drawn(1)).not.toBe(drawn(2));
  });
});

test('trims of different sizes, and the writes after them', () => {
  const split = mix([
    [4096, 0.5],
    [8192, 0.5],
  ]);
  const { device, run: job } = world({
    workload: 'randtrimwrite',
    distribution: { kind: 'uniform' },
    split,
    blockSize: 8192,
    unit: 4096,
    bufferBytes: 8192,
    ioLimit: Infinity,
    byteLimit: 400_000,
    depth: 4,
  });
  const open = new Map<number, number>();
  device.answer = (io) => {
    if (io.opcode === TRIM) open.set(io.lba, io.blocks);
    else expect(io.blocks).toBe(open.get(io.lba));
    return 0;
  };
  const { trim, write } = finish(job);
  expect(trim.bytes).toBe(write.bytes);
  expect(trim.bytes).toBeGreaterThanOrEqual(400_000);
  expect(new Set(device.log.map(({ blocks }) => blocks))).toEqual(new Set([8, 16]));
});
