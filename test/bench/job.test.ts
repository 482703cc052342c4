// SPDX-License-Identifier: MIT
import { WORKLOADS, type JobPlan } from '../../lib/bench/plan';
import { LBA, finish, world, type Io } from './fake-device';

const clean = { status: 0, mismatches: 0, stalled: false, firstMismatch: undefined };

test.each(WORKLOADS)('%s: every I/O is counted and recorded', (workload) => {
  const { device, job, state } = world({ workload });
  finish(job);
  expect(job.reads + job.writes).toBe(64);
  expect(device.log).toHaveLength(64);
  expect(job.writes).toBe(device.log.filter((io) => io.write).length);
  expect([job.readLatency.count, job.writeLatency.count]).toEqual([job.reads, job.writes]);
  expect([state.reads, state.writes]).toEqual([job.reads, job.writes]);
  expect(job.outcome).toMatchObject({ ...clean, verified: 0 });
  expect(job.elapsedMs).toBeGreaterThan(0);
  expect(new Set(device.log.map((io) => [io.nsid, io.blocks].join()))).toEqual(new Set(['7,8']));
  expect(job.batchCounts.reduce((sum, count) => sum + count)).toBeGreaterThan(0);
});

test.each([1, 3, 32])('a depth of %s is kept, and never exceeded', (depth) => {
  const { device, job } = world({ depth, ioBlocks: 96 });
  device.hold = 1;
  finish(job);
  expect(device.deepest).toBe(depth);
  for (const { cid } of device.log) expect(cid).toBeLessThan(depth);
});

test('more in flight than there are blocks', () => {
  const { device, job } = world({ depth: 32, ioBlocks: 5 });
  finish(job);
  expect(device.log.map((io) => io.lba)).toEqual([80, 88, 96, 104, 112]);
});

test('a sequential job covers its region in order, from its start on', () => {
  const { device, job } = world({ ioBlocks: 6, startBlock: 4, depth: 2 });
  finish(job);
  expect(device.log.map((io) => (io.lba - 80) / 8)).toEqual([4, 5, 0, 1, 2, 3]);
});

test('a random job stays in its region, and depends on seed and index only', () => {
  const order = (changes: Partial<JobPlan>): string => {
    const { device, job } = world({ workload: 'randread', ioBlocks: 64, ...changes });
    finish(job);
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
  const { job } = world({ workload: 'randrw', readShare, ioBlocks: 1000, depth: 8, blockSize: 512 });
  finish(job);
  const share = job.reads / (job.reads + job.writes);
  expect(share).toBeGreaterThanOrEqual(least);
  expect(share).toBeLessThanOrEqual(most);
});

test.each([512, 4096, 6144, 8192, 131072])('blocks of %s bytes go where they belong', (blockSize) => {
  const { device, job } = world({
    workload: 'write',
    verify: true,
    blockSize,
    depth: 3,
    firstLba: 8,
    ioBlocks: 12,
  });
  finish(job);
  expect(job.outcome).toEqual({ ...job.outcome, ...clean, verified: 12 });
  expect(device.disk.subarray(0, 8 * LBA).every((byte) => byte === 0)).toBe(true);
  expect(device.disk.subarray((8 + (12 * blockSize) / LBA) * LBA).every((byte) => byte === 0)).toBe(true);
  // Every block names its LBA in word 1.
  const words = new Uint32Array(device.disk.buffer);
  for (let lba = 8; lba < 8 + (12 * blockSize) / LBA; lba++) expect(words[lba * 128 + 1]).toBe(lba);
});

test('LBAs above 32 bits', () => {
  const { device, job } = world({ firstLba: 0x1_0000_0010, ioBlocks: 1, depth: 1 });
  finish(job);
  expect(device.log[0]!.lba).toBe(0x1_0000_0010);
});

describe('a run of a given time', () => {
  test('ends when it is over', () => {
    const { job } = world({ runtimeMs: 5 });
    finish(job);
    expect(job.elapsedMs).toBeGreaterThanOrEqual(5);
    expect(job.reads).toBeGreaterThan(64);
  });

  test('reads back each block that was written once', () => {
    const { job, state, device } = world({ runtimeMs: 5, workload: 'randwrite', verify: true });
    finish(job);
    const blocks = new Set(device.log.filter((io) => io.write).map((io) => io.lba));
    expect(job.outcome).toMatchObject({ ...clean, verified: blocks.size });
    expect(job.reads).toBe(0);
    expect(state.phase).toBe('done');
  });
});

describe('verify', () => {
  test('randrw compares what it reads, if it was written before the read was sent', () => {
    const { job, state, device } = world({
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
    finish(job);
    expect(job.outcome).toMatchObject(clean);
    expect(job.outcome.verified).toBeGreaterThan(100);
  });

  test('a read that a device executes before a write that it reports earlier is no error', () => {
    let overtaken = 0;
    for (let seed = 0; seed < 20; seed++) {
      // Both commands in flight are for the only block.
      const { job, state, device } = world({
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
      finish(job);
      expect(job.outcome).toMatchObject(clean);
    }
    expect(overtaken).toBeGreaterThan(0);
  });

  test('data that was changed', () => {
    const { job, device } = world({ workload: 'write', verify: true });
    device.answer = (io) => {
      if (io.write && io.lba === 96) device.disk[96 * LBA + 700] = device.disk[96 * LBA + 700]! ^ 0x10;
      return 0;
    };
    finish(job);
    expect(job.outcome).toMatchObject({ status: 0, verified: 64, mismatches: 1 });
    expect(job.outcome.firstMismatch).toMatch(/^LBA 97: corrupt: first bad byte at offset 188 of 512/);
  });

  test('data that went elsewhere', () => {
    const { job, device } = world({ workload: 'write', verify: true });
    device.redirect = (lba) => (lba === 104 ? 112 : lba);
    device.answer = (io) => {
      // The block of LBA 112 was written before.
      if (io.write && io.lba === 112) device.disk.copyWithin(112 * LBA, 104 * LBA, 104 * LBA);
      return 0;
    };
    finish(job);
    expect(job.outcome.mismatches).toBe(1);
    expect(job.outcome.firstMismatch).toMatch(/^LBA 104: corrupt: all 512 bytes are zero/);
  });

  test('a block of another place', () => {
    const { job, device } = world({ workload: 'write', verify: true, depth: 1 });
    device.redirect = (lba) => (lba === 136 ? 80 : lba);
    finish(job);
    expect(job.outcome.mismatches).toBe(2);
    expect(job.outcome.firstMismatch).toMatch(/^LBA 80: misdirected: holds the block of LBA 136/);
  });
});

describe('trouble', () => {
  test.each(['read', 'write', 'randrw'] as const)('%s: an error status stops the run', (workload) => {
    const { job, device } = world({ workload, runtimeMs: 10_000, verify: workload !== 'read' });
    let count = 0;
    device.answer = () => (++count > 20 ? 0x0281 : 0);
    finish(job);
    const failed = device.log[20]!;
    expect(job.outcome).toMatchObject({
      status: 0x0281,
      failedOpcode: failed.write ? 1 : 2,
      failedLba: failed.lba,
      stalled: false,
    });
    expect(device.log.length).toBeLessThan(30);
  });

  test('the wish to stop: what is in flight is finished, nothing is read back', () => {
    const { job, state, device } = world({
      workload: 'write',
      runtimeMs: Infinity,
      ioBlocks: 2 ** 30,
      verify: false,
      firstLba: 0,
    });
    device.redirect = () => 0;
    expect(job.slice(1)).toBe('busy');
    state.stop();
    finish(job);
    expect(job.writes).toBe(device.log.length);
    expect(job.outcome).toMatchObject({ ...clean, verified: 0 });
  });

  test('the wish to stop while blocks are read back', () => {
    const { job, state, device } = world({ workload: 'write', verify: true, ioBlocks: 64 });
    device.answer = (io) => {
      if (!io.write) state.stop();
      return 0;
    };
    finish(job);
    expect(job.outcome).toMatchObject(clean);
    expect(job.outcome.verified).toBeGreaterThan(0);
  });

  test('a device that is gone: the job ends at once, and tells how long it ran', () => {
    const { job, state, device } = world({ runtimeMs: 10_000 });
    let count = 0;
    device.answer = () => (++count > 100 ? undefined : 0);
    expect(job.slice(1)).toBe('busy');
    expect(job.slice(1)).toBe('busy');
    state.abandon();
    expect(job.slice(1000)).toBe('done');
    expect(job.reads).toBe(100);
    expect(job.elapsedMs).toBeGreaterThan(0);
    expect(job.elapsedMs).toBeLessThan(1000);
  });

  test.each([4, 999, 0xffff])('command id %s, which was never sent, ends the run', (cid) => {
    for (const depth of [4, 1]) {
      const { job, device } = world({ runtimeMs: 10_000, depth, ioBlocks: 64 });
      let count = 0;
      device.answer = () => {
        if (++count === 30) device.complete(cid);
        return 0;
      };
      const started = performance.now();
      finish(job);
      expect(performance.now() - started).toBeLessThan(9000);
      expect(job.outcome).toMatchObject({ stalled: true, status: 0 });
    }
  });
});
