// SPDX-License-Identifier: MIT
import {
  IDENTIFY_CONTROLLER_MNEMONICS,
  asyncEvent,
  asyncEventConfiguration,
  currentLbaFormat,
  decodeChangedNamespaces,
  decodeCommandEffectsLog,
  decodeCommandSetVectors,
  decodeControllerList,
  decodeErrorLog,
  decodeFirmwareSlotLog,
  decodeIdentifyController,
  decodeIdentifyNamespace,
  decodeIdentifyNvmController,
  decodeNamespaceDescriptors,
  decodeNamespaceList,
  decodeSmartLog,
  decodeSupportedLogPages,
  encodeChangedNamespaces,
  encodeCommandEffectsLog,
  encodeCommandSetVectors,
  encodeControllerList,
  encodeErrorLog,
  encodeFirmwareSlotLog,
  encodeIdentifyController,
  encodeIdentifyNamespace,
  encodeIdentifyNvmController,
  encodeNamespaceDescriptors,
  encodeNamespaceList,
  encodeSmartLog,
  encodeSupportedLogPages,
  maxTransferSize,
  numberOfQueues,
} from '../../../lib/nvme/spec';

const outOfRange = expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' });
const controllerError = expect.objectContaining({ code: 'ERR_VFIO_USER_NVME_CONTROLLER' });

/** A page with bytes at offsets of struct spdk_nvme_ctrlr_data and its like (spdk include/spdk/nvme_spec.h). */
function page(parts: Readonly<Record<number, readonly number[] | string>>, size = 4096): Uint8Array {
  const bytes = new Uint8Array(size);
  for (const [offset, part] of Object.entries(parts)) {
    bytes.set(typeof part === 'string' ? Buffer.from(part, 'latin1') : part, Number(offset));
  }
  return bytes;
}

describe('Identify Controller', () => {
  const bytes = page({
    0: [0x58, 0x4e, 0x58, 0x4e],
    4: 'SPDK1'.padEnd(20),
    24: 'SPDK bdev Controller'.padEnd(40),
    64: '26.09   ',
    72: [6, 0x39, 0x58, 0x00],
    77: [5, 1, 0],
    80: [0, 0, 2, 0],
    92: [0, 1, 0, 0],
    111: [1],
    128: [1, 0, 0, 0, 2, 0],
    256: [0, 1, 3, 3, 2, 0x26, 127, 1],
    280: [0, 0, 0, 0, 1],
    320: [100, 0],
    512: [0x66, 0x44, 128, 0, 32, 0, 0, 0],
    520: [0x0d, 0x01, 1, 0, 0, 7],
    536: [2],
    768: 'nqn.2019-07.io.spdk:cnode1',
    2048: [0xc4, 0x09, 0, 2, 1],
    2080: [5],
  });

  test('decodes by the offsets of SPDK', () => {
    expect(decodeIdentifyController(bytes)).toMatchObject({
      vendorId: 0x4e58,
      subsystemVendorId: 0x4e58,
      serialNumber: 'SPDK1',
      modelNumber: 'SPDK bdev Controller',
      firmwareRevision: '26.09',
      recommendedArbitrationBurst: 6,
      ieeeOui: 0x005839,
      mdts: 5,
      controllerId: 1,
      version: 0x20000,
      optionalEvents: 0x100,
      controllerType: 1,
      retryDelays: [1, 0, 2],
      optionalAdminCommands: 0x100,
      abortLimit: 3,
      asyncEventLimit: 3,
      firmwareUpdates: 2,
      logPageAttributes: 0x26,
      errorLogEntries: 127,
      totalCapacity: 2n ** 32n,
      keepAliveGranularity: 100,
      submissionEntrySizes: 0x66,
      completionEntrySizes: 0x44,
      maxCommands: 128,
      maxNamespaceId: 32,
      optionalNvmCommands: 0x10d,
      fusedOperations: 1,
      volatileWriteCache: 7,
      sglSupport: 2,
      subsystemNqn: 'nqn.2019-07.io.spdk:cnode1',
    });
    expect(decodeIdentifyController(bytes).powerStates).toMatchObject([
      { maxPower: 2500, maxPowerScale: 0, nonOperational: 1, entryLatency: 1 },
      { maxPower: 5 },
    ]);
  });

  test('encodes the same bytes', () => {
    expect(encodeIdentifyController(decodeIdentifyController(bytes))).toEqual(bytes);
  });

  test('is blank where nothing is given, and names its fields as nvme-cli does', () => {
    const blank = encodeIdentifyController({});
    expect(Buffer.from(blank.subarray(4, 72)).toString()).toBe(' '.repeat(68));
    expect(blank[263]).toBe(0);
    expect(Object.values(IDENTIFY_CONTROLLER_MNEMONICS).slice(0, 9)).toEqual([
      'vid',
      'ssvid',
      'sn',
      'mn',
      'fr',
      'rab',
      'ieee',
      'cmic',
      'mdts',
    ]);
  });

  test('does no harm when it is hostile', () => {
    const hostile = decodeIdentifyController(new Uint8Array(4096).fill(0xff));
    expect(hostile.powerStates).toHaveLength(32);
    expect(hostile.serialNumber).toBe('?'.repeat(20));
    expect(() => decodeIdentifyController(new Uint8Array(4095))).toThrow(controllerError);
  });

  test('refuses what does not fit', () => {
    expect(() => encodeIdentifyController({ serialNumber: 'x'.repeat(21) })).toThrow(outOfRange);
    expect(() => encodeIdentifyController({ modelNumber: 'é' })).toThrow(outOfRange);
    expect(() => encodeIdentifyController({ mdts: 256 })).toThrow(outOfRange);
    expect(() => encodeIdentifyController({ totalCapacity: 1n << 128n })).toThrow(outOfRange);
    expect(() => encodeIdentifyController({ fruGuid: '00' })).toThrow(outOfRange);
    expect(() => encodeIdentifyController({ powerStates: [] })).toThrow(outOfRange);
  });

  test('MDTS', () => {
    expect(maxTransferSize(5, 4096)).toBe(131072);
    expect(maxTransferSize(0, 4096)).toBe(Infinity);
  });
});

describe('Identify Namespace', () => {
  const bytes = page({
    0: [0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 2],
    16: [0, 0, 1],
    24: [0x10, 1, 1, 3],
    33: [9],
    104: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
    120: [0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32, 0x10],
    128: [0, 0, 9, 1, 8, 0, 12, 0],
  });

  test('decodes, and encodes the same bytes', () => {
    const namespace = decodeIdentifyNamespace(bytes);
    expect(namespace).toMatchObject({
      size: 0x20000,
      capacity: 0x20000,
      utilization: 0x10000,
      features: 0x10,
      formattedSize: 1,
      deallocation: 9,
      nguid: '0102030405060708090a0b0c0d0e0f10',
      eui64: 'fedcba9876543210',
      lbaFormats: [
        { metadataSize: 0, dataSize: 512, relativePerformance: 1 },
        { metadataSize: 8, dataSize: 4096, relativePerformance: 0 },
      ],
    });
    expect(currentLbaFormat(namespace).dataSize).toBe(4096);
    expect(encodeIdentifyNamespace(namespace)).toEqual(bytes);
  });

  test('takes the upper bits of the format index only with more than 16 formats', () => {
    const wide = page({ 25: [63], 26: [0x21], [128 + 4 * 17]: [0, 0, 12, 0], 132: [0, 0, 9, 0] });
    expect(currentLbaFormat(decodeIdentifyNamespace(wide)).dataSize).toBe(4096);
    wide[25] = 15;
    expect(currentLbaFormat(decodeIdentifyNamespace(wide)).dataSize).toBe(512);
  });

  test('refuses formats and sizes that cannot be', () => {
    for (const parts of [{ 26: [5] }, { 128: [0, 0, 8] }, { 128: [0, 0, 255] }, { 128: [0, 0, 0] }]) {
      expect(() => currentLbaFormat(decodeIdentifyNamespace(page(parts)))).toThrow(controllerError);
    }
    const huge = page({ 0: [0, 0, 0, 0, 0, 0, 0x20] });
    expect(() => decodeIdentifyNamespace(huge)).toThrow(
      expect.objectContaining({ code: 'ERR_VFIO_USER_UNSUPPORTED' }),
    );
    const format = { metadataSize: 0, dataSize: 512, relativePerformance: 0 };
    for (const wrong of [
      { dataSize: 520 },
      { dataSize: 256 },
      { metadataSize: 65536 },
      { relativePerformance: 4 },
    ]) {
      expect(() => encodeIdentifyNamespace({ lbaFormats: [{ ...format, ...wrong }] })).toThrow(outOfRange);
    }
    expect(() => encodeIdentifyNamespace({ lbaFormats: [] })).toThrow(outOfRange);
    expect(() => encodeIdentifyNamespace({ lbaFormats: [format], size: -1 })).toThrow(outOfRange);
  });
});

describe('lists', () => {
  test('namespaces and controllers', () => {
    expect(decodeNamespaceList(page({ 0: [1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 9] }))).toEqual([1, 3]);
    expect(encodeNamespaceList([1, 3])).toEqual(page({ 0: [1, 0, 0, 0, 3] }));
    expect(decodeNamespaceList(new Uint8Array(4096).fill(1))).toHaveLength(1024);
    expect(() => encodeNamespaceList([0])).toThrow(outOfRange);
    expect(() => encodeNamespaceList(new Array<number>(1025).fill(1))).toThrow(outOfRange);
    expect(decodeControllerList(page({ 0: [2, 0, 1, 0, 2, 1] }))).toEqual([1, 0x102]);
    expect(encodeControllerList([1, 0x102])).toEqual(page({ 0: [2, 0, 1, 0, 2, 1] }));
    expect(decodeControllerList(new Uint8Array(4096).fill(0xff))).toHaveLength(2047);
    expect(() => encodeControllerList([65536])).toThrow(outOfRange);
  });

  test('namespace descriptors', () => {
    const uuid = '00112233-4455-6677-8899-aabbccddeeff';
    const bytes = page({
      0: [1, 8, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 3, 16, 0, 0],
      16: [...Buffer.from(uuid.replaceAll('-', ''), 'hex')],
      32: [4, 1, 0, 0, 0],
    });
    expect(decodeNamespaceDescriptors(bytes)).toEqual({ eui64: '0102030405060708', uuid, csi: 0 });
    expect(encodeNamespaceDescriptors({ eui64: '0102030405060708', uuid, csi: 0 })).toEqual(bytes);
    expect(() => encodeNamespaceDescriptors({ uuid: 'x' })).toThrow(outOfRange);
  });

  test('descriptors of unknown types and wrong lengths are skipped, and the page is not left', () => {
    expect(
      decodeNamespaceDescriptors(page({ 0: [9, 2, 0, 0, 1, 1, 1, 4, 0, 0, 1, 1, 1, 1, 4, 1, 0, 0, 2] })),
    ).toEqual({ csi: 2 });
    expect(decodeNamespaceDescriptors(new Uint8Array(4096).fill(0xff))).toEqual({});
    expect(decodeNamespaceDescriptors(new Uint8Array(4096))).toEqual({});
  });

  test('NVM command set and command set combinations', () => {
    const bytes = page({ 0: [5, 6, 7, 8, 1, 0, 0, 0, 2] });
    const fields = {
      verifySizeLimit: 5,
      writeZeroesSizeLimit: 6,
      writeUncorrectableSizeLimit: 7,
      datasetRangesLimit: 8,
      datasetRangeSizeLimit: 1,
      datasetSizeLimit: 2n,
    };
    expect(decodeIdentifyNvmController(bytes)).toEqual(fields);
    expect(encodeIdentifyNvmController(fields)).toEqual(bytes);
    expect(decodeCommandSetVectors(page({ 0: [1], 8: [5] }))).toEqual([1, 5]);
    expect(encodeCommandSetVectors([1, 5])).toEqual(page({ 0: [1], 8: [5] }));
    expect(decodeCommandSetVectors(page({}))).toEqual([]);
  });
});

describe('logs', () => {
  test('error', () => {
    const bytes = page({ 0: [7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 0, 1, 0x81, 0x28, 0, 9], 24: [1] }, 128);
    const entries = decodeErrorLog(bytes);
    expect(entries).toMatchObject([
      { errorCount: 7n, sqId: 1, cid: 2, status: 0x8101, parameterLocation: 0x28, lba: 9n, nsid: 1 },
    ]);
    expect(encodeErrorLog(entries, 2)).toEqual(bytes);
    expect(() => encodeErrorLog(entries, 0)).toThrow(outOfRange);
    expect(decodeErrorLog(new Uint8Array(63).fill(1))).toEqual([]);
  });

  test('SMART', () => {
    const bytes = page(
      {
        0: [2, 0x37, 0x01, 100, 10, 3],
        32: [1, 2],
        64: [3],
        127: [1],
        128: [4],
        176: [5],
        192: [6],
        200: [0x30, 1],
      },
      512,
    );
    const smart = decodeSmartLog(bytes);
    expect(smart).toMatchObject({
      criticalWarning: 2,
      temperature: 311,
      availableSpare: 100,
      availableSpareThreshold: 10,
      percentageUsed: 3,
      dataUnitsRead: 513n,
      hostReadCommands: 3n,
      powerCycles: 1n << 120n,
      powerOnHours: 4n,
      errorLogEntries: 5n,
      warningTemperatureTime: 6,
      temperatureSensors: [304, 0, 0, 0, 0, 0, 0, 0],
    });
    expect(encodeSmartLog(smart)).toEqual(bytes);
    expect(() => decodeSmartLog(new Uint8Array(511))).toThrow(controllerError);
  });

  test('firmware slots', () => {
    const bytes = page({ 0: [0x21], 8: '26.09   ', 16: '26.10   ' }, 512);
    const log = decodeFirmwareSlotLog(bytes);
    expect(log).toEqual({ activeSlot: 1, nextSlot: 2, revisions: ['26.09', '26.10', '', '', '', '', ''] });
    expect(encodeFirmwareSlotLog(log)).toEqual(bytes);
    expect(() => encodeFirmwareSlotLog({ ...log, revisions: new Array<string>(8).fill('') })).toThrow(
      outOfRange,
    );
  });

  test('changed namespaces, effects, supported pages', () => {
    expect(decodeChangedNamespaces(encodeChangedNamespaces([2, 5]))).toEqual([2, 5]);
    expect(decodeChangedNamespaces(page({ 0: [0xff, 0xff, 0xff, 0xff] }))).toBe('all');
    expect(encodeChangedNamespaces(new Array<number>(1025).fill(1))).toEqual(
      page({ 0: [0xff, 0xff, 0xff, 0xff] }),
    );
    const effects = page({ 24: [1], 1028: [3, 0, 1, 0] });
    const log = decodeCommandEffectsLog(effects);
    expect([...log.admin.keys()]).toEqual([6]);
    expect(log.io.get(1)).toMatchObject({ supported: true, blockContentChange: true, execution: 1 });
    expect(encodeCommandEffectsLog(log)).toEqual(effects);
    expect(() => encodeCommandEffectsLog({ admin: new Map([[256, {}]]), io: new Map() })).toThrow(outOfRange);
    expect(encodeSupportedLogPages([1, 2])).toEqual(page({ 4: [1], 8: [1] }, 1024));
    expect(decodeSupportedLogPages(page({ 4: [1], 8: [1] }, 1024))).toEqual([1, 2]);
    expect(() => encodeSupportedLogPages([256])).toThrow(outOfRange);
  });
});

test('features and events', () => {
  expect(numberOfQueues.decode(0x007e007e)).toEqual({ submission: 127, completion: 127 });
  expect(numberOfQueues.encode({ submission: 2, completion: 2 })).toBe(0x10001);
  expect(asyncEventConfiguration.decode(0x100)).toMatchObject({
    criticalWarnings: 0,
    namespaceAttributes: true,
    discovery: false,
  });
  expect(asyncEventConfiguration.encode({ discovery: true })).toBe(0x80000000);
  expect(asyncEvent.decode(0x00040002)).toEqual({ type: 2, info: 0, logPage: 4 });
});
