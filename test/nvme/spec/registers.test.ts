// SPDX-License-Identifier: MIT
import {
  adminQueueAttributes,
  controllerConfiguration,
  controllerStatus,
  decodeCapabilities,
  encodeCapabilities,
  formatVersion,
  parseVersion,
} from '../../../lib/nvme/spec';

const outOfRange = expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' });

/** CAP of SPDK's vfio-user controller: 0x0800_0020_1e01_00ff. */
const spdkCap = {
  maxQueueEntries: 256,
  contiguousQueuesRequired: true,
  weightedRoundRobin: false,
  timeout: 15_000,
  dstrd: 0,
  subsystemReset: false,
  commandSets: 1,
  minPageSize: 4096,
  maxPageSize: 4096,
  persistentMemoryRegion: false,
  controllerMemoryBuffer: false,
  readyWithMedia: true,
  readyIndependentOfMedia: false,
};

test('CAP decodes and encodes', () => {
  expect(decodeCapabilities(0x0800_0020_1e01_00ffn)).toEqual(spdkCap);
  expect(encodeCapabilities(spdkCap)).toEqual([0x1e0100ff, 0x08000020]);
  // MQES ffffh, AMS 1, TO 1, DSTRD 4, NSSRS, CSS c1h, MPSMAX 4, PMRS, CMBS, CRIMS.
  expect(decodeCapabilities(0x1340_1834_0102_ffffn)).toMatchObject({
    maxQueueEntries: 65536,
    weightedRoundRobin: true,
    timeout: 500,
    dstrd: 4,
    subsystemReset: true,
    commandSets: 0xc1,
    minPageSize: 4096,
    maxPageSize: 65536,
    persistentMemoryRegion: true,
    controllerMemoryBuffer: true,
    readyWithMedia: false,
    readyIndependentOfMedia: true,
  });
  expect(encodeCapabilities(decodeCapabilities(0x1340_1834_0102_ffffn))).toEqual([0x0102ffff, 0x13401834]);
});

test('CAP refuses what does not fit', () => {
  expect(() => encodeCapabilities({ ...spdkCap, maxQueueEntries: 65537 })).toThrow(outOfRange);
  expect(() => encodeCapabilities({ ...spdkCap, timeout: 128_000 })).toThrow(outOfRange);
  expect(() => encodeCapabilities({ ...spdkCap, minPageSize: 6000 })).toThrow(outOfRange);
  // MPSMAX, bits 55:52.
  expect(encodeCapabilities({ ...spdkCap, maxPageSize: 134217728 })).toEqual([0x1e0100ff, 0x08f00020]);
  expect(() => encodeCapabilities({ ...spdkCap, minPageSize: 2048 })).toThrow(outOfRange);
  expect(() => encodeCapabilities({ ...spdkCap, maxPageSize: 2 ** 28 })).toThrow(outOfRange);
});

test('CC, CSTS and AQA', () => {
  expect(controllerConfiguration.encode({ enable: true, iosqes: 6, iocqes: 4 })).toBe(0x00460001);
  expect(controllerConfiguration.decode(0x00464001)).toMatchObject({
    enable: true,
    shutdown: 1,
    mps: 0,
    iosqes: 6,
  });
  expect(controllerConfiguration.decode(0x010038f0)).toMatchObject({
    enable: false,
    commandSet: 7,
    mps: 1,
    arbitration: 7,
    readyIndependentOfMedia: true,
  });
  expect(controllerStatus.decode(0x9)).toEqual({
    ready: true,
    fatal: false,
    shutdown: 2,
    subsystemReset: false,
    paused: false,
  });
  expect(controllerStatus.encode({ ready: true, fatal: true })).toBe(3);
  expect(adminQueueAttributes.decode(0x00ff003f)).toEqual({ submissionEntries: 64, completionEntries: 256 });
  expect(adminQueueAttributes.encode({ submissionEntries: 32, completionEntries: 32 })).toBe(0x001f001f);
  expect(() => adminQueueAttributes.encode({ submissionEntries: 0 })).toThrow(outOfRange);
});

test('versions', () => {
  expect(formatVersion(0x00020000)).toBe('2.0');
  expect(formatVersion(0x00010201)).toBe('1.2.1');
  expect(parseVersion('1.2.1')).toBe(0x00010201);
  expect(parseVersion('1.4')).toBe(0x00010400);
  for (const text of ['', '2', '1.256', 'x.0', '65536.0', '1.2.3.4']) {
    expect(() => parseVersion(text)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARG_VALUE' }));
  }
});
