// SPDX-License-Identifier: MIT
import {
  asyncEvent,
  asyncEventConfiguration,
  currentLbaFormat,
  decodeChangedNamespaces,
  decodeCommandEffectsLog,
  decodeErrorLog,
  decodeFirmwareSlotLog,
  decodeIdentifyController,
  decodeIdentifyNamespace,
  decodeIdentifyNvmController,
  decodeNamespaceDescriptors,
  decodeNamespaceList,
  decodeSmartLog,
  decodeSupportedLogPages,
  encodeCommandEffectsLog,
  encodeErrorLog,
  encodeFirmwareSlotLog,
  encodeIdentifyController,
  encodeIdentifyNamespace,
  encodeIdentifyNvmController,
  encodeNamespaceDescriptors,
  encodeNamespaceList,
  encodeSmartLog,
  encodeSupportedLogPages,
  pagesLimit,
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
      vid: 0x4e58,
      ssvid: 0x4e58,
      sn: 'SPDK1',
      mn: 'SPDK bdev Controller',
      fr: '26.09',
      rab: 6,
      ieee: 0x005839,
      mdts: 5,
      cntlid: 1,
      ver: 0x20000,
      oaes: 0x100,
      cntrltype: 1,
      crdt1: 1,
      crdt2: 0,
      crdt3: 2,
      oacs: 0x100,
      acl: 3,
      aerl: 3,
      frmw: 2,
      lpa: 0x26,
      elpe: 127,
      tnvmcap: 2n ** 32n,
      kas: 100,
      sqes: 0x66,
      cqes: 0x44,
      maxcmd: 128,
      nn: 32,
      oncs: 0x10d,
      fuses: 1,
      vwc: 7,
      sgls: 2,
      subnqn: 'nqn.2019-07.io.spdk:cnode1',
    });
    expect(decodeIdentifyController(bytes).psds).toMatchObject([
      { max_power: 2500, max_power_scale: 0, 'non-operational_state': 1, entry_lat: 1 },
      { max_power: 5 },
    ]);
  });

  test('encodes the same bytes', () => {
    expect(encodeIdentifyController(decodeIdentifyController(bytes))).toEqual(bytes);
  });

  test('is blank where nothing is given, and names its fields as nvme-cli does', () => {
    const blank = encodeIdentifyController({});
    expect(Buffer.from(blank.subarray(4, 72)).toString()).toBe(' '.repeat(68));
    expect(blank[263]).toBe(0);
    const names = ['vid', 'ssvid', 'sn', 'mn', 'fr', 'rab', 'ieee', 'cmic', 'mdts'];
    expect(Object.keys(decodeIdentifyController(blank)).slice(0, 9)).toEqual(names);
  });

  test('does no harm when it is hostile', () => {
    const hostile = decodeIdentifyController(new Uint8Array(4096).fill(0xff));
    expect(hostile.psds).toHaveLength(32);
    expect(hostile.sn).toBe('?'.repeat(20));
    expect(() => decodeIdentifyController(new Uint8Array(4095))).toThrow(controllerError);
  });

  test('refuses what does not fit', () => {
    expect(() => encodeIdentifyController({ sn: 'x'.repeat(21) })).toThrow(outOfRange);
    expect(() => encodeIdentifyController({ mn: 'é' })).toThrow(outOfRange);
    expect(() => encodeIdentifyController({ mdts: 256 })).toThrow(outOfRange);
    expect(() => encodeIdentifyController({ tnvmcap: 1n << 128n })).toThrow(outOfRange);
    expect(() => encodeIdentifyController({ fguid: '00' })).toThrow(outOfRange);
    expect(() => encodeIdentifyController({ psds: [] })).toThrow(outOfRange);
  });

  test('MDTS', () => {
    expect(pagesLimit(5, 4096)).toBe(131072);
    expect(pagesLimit(0, 4096)).toBe(Infinity);
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
      nsze: 0x20000,
      ncap: 0x20000,
      nuse: 0x10000,
      nsfeat: 0x10,
      flbas: 1,
      dlfeat: 9,
      nguid: '0102030405060708090a0b0c0d0e0f10',
      eui64: 'fedcba9876543210',
      lbafs: [
        { ms: 0, ds: 9, rp: 1 },
        { ms: 8, ds: 12, rp: 0 },
      ],
    });
    expect(currentLbaFormat(namespace).ds).toBe(12);
    expect(encodeIdentifyNamespace(namespace)).toEqual(bytes);
  });

  test('takes the upper bits of the format index only with more than 16 formats', () => {
    const wide = page({ 25: [63], 26: [0x21], [128 + 4 * 17]: [0, 0, 12, 0], 132: [0, 0, 9, 0] });
    expect(currentLbaFormat(decodeIdentifyNamespace(wide)).ds).toBe(12);
    wide[25] = 15;
    expect(currentLbaFormat(decodeIdentifyNamespace(wide)).ds).toBe(9);
  });

  test('refuses formats and sizes that cannot be', () => {
    for (const parts of [{ 26: [5] }, { 128: [0, 0, 8] }, { 128: [0, 0, 255] }, { 128: [0, 0, 0] }]) {
      expect(() => currentLbaFormat(decodeIdentifyNamespace(page(parts)))).toThrow(controllerError);
    }
    const huge = page({ 0: [0, 0, 0, 0, 0, 0, 0x20] });
    expect(() => decodeIdentifyNamespace(huge)).toThrow(
      expect.objectContaining({ code: 'ERR_VFIO_USER_UNSUPPORTED' }),
    );
    const format = { ms: 0, ds: 9, rp: 0 };
    for (const wrong of [{ ds: 9.5 }, { ds: 8 }, { ds: 32 }, { ms: 65536 }, { rp: 4 }]) {
      expect(() => encodeIdentifyNamespace({ lbafs: [{ ...format, ...wrong }] })).toThrow(outOfRange);
    }
    expect(() => encodeIdentifyNamespace({ lbafs: [] })).toThrow(outOfRange);
    expect(() => encodeIdentifyNamespace({ lbafs: [format], nsze: -1 })).toThrow(outOfRange);
  });
});

describe('lists', () => {
  test('namespaces', () => {
    expect(decodeNamespaceList(page({ 0: [1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 9] }))).toEqual([1, 3]);
    expect(encodeNamespaceList([1, 3])).toEqual(page({ 0: [1, 0, 0, 0, 3] }));
    expect(decodeNamespaceList(new Uint8Array(4096).fill(1))).toHaveLength(1024);
    expect(() => encodeNamespaceList([0])).toThrow(outOfRange);
    expect(() => encodeNamespaceList(new Array<number>(1025).fill(1))).toThrow(outOfRange);
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

  test('NVM command set', () => {
    const bytes = page({ 0: [5, 6, 7, 8, 1, 0, 0, 0, 2] });
    const fields = {
      vsl: 5,
      wzsl: 6,
      wusl: 7,
      dmrl: 8,
      dmrsl: 1,
      dmsl: 2n,
    };
    expect(decodeIdentifyNvmController(bytes)).toEqual(fields);
    expect(encodeIdentifyNvmController(fields)).toEqual(bytes);
  });
});

describe('logs', () => {
  test('error', () => {
    const head = [7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 0, 1, 0x81, 0x28, 0, 9];
    const bytes = page({ 0: head, 24: [1], 30: [2, 6] }, 128);
    const entries = decodeErrorLog(bytes);
    expect(entries).toMatchObject([
      {
        error_count: 7n,
        sqid: 1,
        cmdid: 2,
        phase_tag: 1,
        status_field: 0x4080,
        parm_error_location: 0x28,
        lba: 9n,
        nsid: 1,
        csi: 2,
        opcode: 6,
      },
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
      critical_warning: 2,
      temperature: 311,
      avail_spare: 100,
      spare_thresh: 10,
      percent_used: 3,
      data_units_read: 513n,
      host_read_commands: 3n,
      power_cycles: 1n << 120n,
      power_on_hours: 4n,
      num_err_log_entries: 5n,
      warning_temp_time: 6,
      temperature_sensors: [304, 0, 0, 0, 0, 0, 0, 0],
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
    expect(decodeChangedNamespaces(page({ 0: [2, 0, 0, 0, 5] }))).toEqual([2, 5]);
    expect(decodeChangedNamespaces(page({}))).toEqual([]);
    expect(decodeChangedNamespaces(page({ 0: [0xff, 0xff, 0xff, 0xff] }))).toBe('all');
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
