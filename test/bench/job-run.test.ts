// SPDX-License-Identifier: MIT
import { WORKLOADS, trims, type Job } from '../../lib/bench/job';
import { latencyOf } from '../../lib/bench/job-result';
import { LBA, failure, finish, stray, world, type Io } from './fake-device';

const clean = {
  errors: 0,
  firstError: undefined,
  mismatches: 0,
  ended: { reason: 'finished', message: '' },
};
const stopped = { ...clean, ended: { reason: 'stopped', message: '' } };

test.each(WORKLOADS.filter((workload) => !trims(workload)))(
  '%s: every I/O is counted and recorded',
  (workload) => {
    const { device, run, state } = world({ workload });
    const result = finish(run);
    const { read, write } = result;
    expect(read.ios + write.ios).toBe(64);
    expect(device.log).toHaveLength(64);
    expect(write.ios).toBe(device.log.filter((io) => io.write).length);
    expect([latencyOf(read).count, latencyOf(write).count]).toEqual([read.ios, write.ios]);
    expect([read.bytes, write.bytes]).toEqual([read.ios * 4096, write.ios * 4096]);
    expect([state.progress.reads, state.progress.writes]).toEqual([read.ios, write.ios]);
    expect(result).toMatchObject({ ...clean, jobs: 1, verified: 0 });
    expect(result.runtimeMs).toBeGreaterThan(0);
    expect([...result.depthCounts]).toEqual([0, 0, 64, 0, 0, 0, 0]);
    expect(new Set(device.log.map((io) => [io.nsid, io.blocks].join()))).toEqual(new Set(['7,8']));
    expect(result.batchCounts.reduce((sum, count) => sum + count)).toBeGreaterThan(0);
    // It crosses threads.
    expect(structuredClone(result)).toEqual(result);
  },
);

test.each([1, 3, 32])('a depth of %s is kept, and never exceeded', (depth) => {
  const { device, run } = world({ depth, ioBlocks: 96 });
  device.hold = 1;
  finish(run);
  expect(device.deepest).toBe(depth);
  for (const { cid } of device.log) expect(cid).toBeLessThan(depth);
});

test('more in flight than there are blocks', () => {
  const { device, run } = world({ depth: 32, ioBlocks: 5 });
  finish(run);
  expect(device.log.map((io) => io.lba)).toEqual([80, 88, 96, 104, 112]);
});

test('a sequential job covers its region in order, from its start on', () => {
  const { device, run } = world({ ioBlocks: 6, startBlock: 4, depth: 2 });
  finish(run);
  expect(device.log.map((io) => (io.lba - 80) / 8)).toEqual([4, 5, 0, 1, 2, 3]);
});

test('a random job stays in its region, and depends on seed and index only', () => {
  const order = (changes: Partial<Job>): string => {
    const { device, run } = world({ workload: 'randread', ioBlocks: 64, ...changes });
    finish(run);
    for (const { lba } of device.log) expect(lba >= 80 && lba < 80 + 64 * 8 && lba % 8 === 0).toBe(true);
    return device.log.map((io) => io.lba).join();
  };
  expect(order({})).toBe(order({}));
  expect(order({})).not.toBe(order({ seed: 43 }));
  expect(order({})).not.toBe(order({ index: 1 }));
});

test.each([
  [0, 0, 0],
  [1, 1, 1],
  [0.7, 0.6, 0.8],
])('randrw with a share of reads of %s', (readShare, least, most) => {
  const { run } = world({ workload: 'randrw', readShare, ioBlocks: 1000, depth: 8, blockSize: 512 });
  finish(run);
  const share = run.result.read.ios / (run.result.read.ios + run.result.write.ios);
  expect(share).toBeGreaterThanOrEqual(least);
  expect(share).toBeLessThanOrEqual(most);
});

test.each([512, 4096, 6144, 8192, 131072])('blocks of %s bytes go where they belong', (blockSize) => {
  const { device, run } = world({
    workload: 'write',
    verify: true,
    blockSize,
    depth: 3,
    firstLba: 8,
    ioBlocks: 12,
  });
  finish(run);
  expect(run.result).toEqual({ ...run.result, ...clean, verified: 12 });
  expect(device.disk.subarray(0, 8 * LBA).every((byte) => byte === 0)).toBe(true);
  expect(device.disk.subarray((8 + (12 * blockSize) / LBA) * LBA).every((byte) => byte === 0)).toBe(true);
  // Every block names its LBA in word 1.
  const words = new Uint32Array(device.disk.buffer);
  for (let lba = 8; lba < 8 + (12 * blockSize) / LBA; lba++) expect(words[lba * 128 + 1]).toBe(lba);
});

test('LBAs above 32 bits', () => {
  const { device, run } = world({ firstLba: 0x1_0000_0010, ioBlocks: 1, depth: 1 });
  finish(run);
  expect(device.log[0]!.lba).toBe(0x1_0000_0010);
});

describe('a run of a given time', () => {
  test('reads back each block that was written once', () => {
    const { run, state, device } = world({ runtimeMs: 5, workload: 'randwrite', verify: true });
    finish(run);
    const blocks = new Set(device.log.filter((io) => io.write).map((io) => io.lba));
    expect(run.result).toMatchObject({ ...clean, verified: blocks.size });
    expect(run.result.read.ios).toBe(0);
    expect(state.phase).toBe('done');
  });
});

describe('verify', () => {
  test('randrw compares what it reads, if it was written before the read was sent', () => {
    const { run, state, device } = world({
      workload: 'randrw',
      verify: true,
      runtimeMs: 10_000,
      ioBlocks: 16,
    });
    let count = 0;
    device.answer = () => {
      if (++count === 500) state.stop();
      return 0;
    };
    finish(run);
    expect(run.result).toMatchObject(stopped);
    expect(run.result.verified).toBeGreaterThan(100);
  });

  test('a read that a device executes before a write that it reports earlier is no error', () => {
    let overtaken = 0;
    for (let seed = 0; seed < 20; seed++) {
      // Both commands in flight are for the only block.
      const { run, state, device } = world({
        workload: 'randrw',
        verify: true,
        depth: 2,
        ioBlocks: 1,
        seed,
        runtimeMs: 10_000,
      });
      device.hold = 2;
      let first: Io | undefined;
      device.answer = (io) => {
        if (first === undefined) {
          first = io;
          return undefined;
        }
        if (device.log.length === 2 && !first.write && io.write) overtaken++;
        device.complete(io.cid);
        device.complete(first.cid);
        first = undefined;
        if (device.log.length >= 20) state.stop();
        return undefined;
      };
      finish(run);
      expect(run.result).toMatchObject(stopped);
    }
    expect(overtaken).toBeGreaterThan(0);
  });

  test('data that was changed', () => {
    const { run, device } = world({ workload: 'write', verify: true });
    device.answer = (io) => {
      if (io.write && io.lba === 96) device.disk[96 * LBA + 700] = device.disk[96 * LBA + 700]! ^ 0x10;
      return 0;
    };
    finish(run);
    expect(run.result).toMatchObject({ errors: 1, verified: 64, mismatches: 1 });
    expect(run.result.ended).toEqual({
      reason: 'mismatch',
      message: `did not keep what was written: 1 of 64 blocks read back differ; the first: ${run.result.firstError}`,
    });
    expect(run.result.firstError).toMatch(/^LBA 97: corrupt: first bad byte at offset 188 of 512/);
  });

  test('data that went elsewhere', () => {
    const { run, device } = world({ workload: 'write', verify: true });
    // LBA 112 gets its own block afterwards.
    device.redirect = (lba) => (lba === 104 ? 112 : lba);
    finish(run);
    expect(run.result.mismatches).toBe(1);
    expect(run.result.firstError).toMatch(/^LBA 104: corrupt: all 512 bytes are zero/);
  });

  test('a block of another place', () => {
    const { run, device } = world({ workload: 'write', verify: true, depth: 1 });
    device.redirect = (lba) => (lba === 136 ? 80 : lba);
    finish(run);
    expect(run.result.mismatches).toBe(2);
    expect(run.result.firstError).toMatch(/^LBA 80: misdirected: holds the block of LBA 136/);
  });
});

describe('trouble', () => {
  test.each(['read', 'write', 'randrw'] as const)('%s: an error status stops the run', (workload) => {
    const { run, device } = world({ workload, runtimeMs: 10_000, verify: workload !== 'read' });
    let count = 0;
    device.answer = () => (++count > 20 ? 0x0281 : 0);
    finish(run);
    const failed = device.log[20]!;
    const name = failed.write ? 'Write' : 'Read';
    expect(run.result).toMatchObject({
      ...failure(`${name} at LBA ${failed.lba}: Unrecovered read error (02/81)`),
      errors: 1,
      firstError: `${name} at LBA ${failed.lba}: Unrecovered read error (02/81)`,
    });
    expect(device.log.length).toBeLessThan(30);
  });

  test('the wish to stop: what is in flight is finished, nothing is read back', () => {
    const { run, state, device } = world({
      workload: 'write',
      runtimeMs: Infinity,
      ioBlocks: 2 ** 30,
      verify: false,
      firstLba: 0,
    });
    device.redirect = () => 0;
    expect(run.slice(1)).toBe('busy');
    state.stop();
    finish(run);
    expect(run.result.write.ios).toBe(device.log.length);
    expect(run.result).toMatchObject({ ...stopped, verified: 0 });
  });

  test('the wish to stop while blocks are read back', () => {
    const { run, state, device } = world({ workload: 'write', verify: true, ioBlocks: 64 });
    device.answer = (io) => {
      if (!io.write) state.stop();
      return 0;
    };
    finish(run);
    expect(run.result).toMatchObject(stopped);
    expect(run.result.verified).toBeGreaterThan(0);
  });

  test('a device that is gone: the job ends at once, and tells how long it ran', () => {
    const { run, state, device } = world({ runtimeMs: 10_000 });
    let count = 0;
    device.answer = () => (++count > 100 ? undefined : 0);
    expect(run.slice(1)).toBe('busy');
    expect(run.slice(1)).toBe('busy');
    state.abandon();
    expect(run.slice(1000)).toBe('done');
    expect(run.result.read.ios).toBe(100);
    expect(run.result.runtimeMs).toBeGreaterThan(0);
    expect(run.result.ended).toEqual({ reason: 'lost', message: 'went away during the run' });
  });

  test.each([4, 999, 0xffff])('command id %s, which was never sent, ends the run', (cid) => {
    for (const depth of [4, 1]) {
      const { run, device } = world({ runtimeMs: 10_000, depth, ioBlocks: 64 });
      let count = 0;
      device.answer = () => {
        if (++count === 30) device.complete(cid);
        return 0;
      };
      expect(finish(run)).toMatchObject({ ...stray(cid, depth), errors: 0 });
      expect(device.log.length).toBeLessThan(40);
    }
  });
});
