// SPDX-License-Identifier: MIT
import {
  className,
  deviceName,
  parseCapabilities,
  parseConfigHeader,
  parseExtendedCapabilities,
} from '../../lib/pci';

/**
 * The first 256 bytes of SPDK's NVMe controller (spdk lib/nvmf/vfio_user.c, vfio_user_dev_info_fill):
 * 4e58:0001, class 010802, PM at 40h, PCI Express at 48h, MSI-X at 84h with table in BAR 4 and PBA in BAR 5.
 */
function spdk(size = 256): Uint8Array {
  const config = new Uint8Array(size);
  config.set([0x58, 0x4e, 0x01, 0x00, 0x06, 0x04, 0x10, 0x00, 0x00, 0x02, 0x08, 0x01], 0x00);
  config.set([0x04, 0x00, 0x20, 0xfe, 0x38, 0x00, 0x00, 0x00], 0x10); // BAR 0: 64 bits at 38fe200000h
  config.set([0x08, 0x00, 0x00, 0xe0], 0x18); // BAR 2: 32 bits, prefetchable, at e0000000h
  config.set([0x01, 0xc0, 0x00, 0x00], 0x1c); // BAR 3: I/O at c000h
  config.set([0x58, 0x4e, 0x00, 0x00], 0x2c);
  config[0x34] = 0x40;
  config.set([0x0b, 0x01], 0x3c);
  config.set([0x01, 0x48, 0x00, 0x00, 0x08, 0x00], 0x40);
  config.set([0x10, 0x84, 0x02, 0x00, 0x00, 0x80, 0x00, 0x10, 0x30, 0x28], 0x48);
  config.set([0x11, 0x00, 0xff, 0x81, 0x04, 0x00, 0x00, 0x00, 0x05, 0x00, 0x00, 0x00], 0x84);
  return config;
}

describe('parseConfigHeader', () => {
  test('decodes the header of a function', () => {
    expect(parseConfigHeader(spdk())).toEqual({
      vendorId: 0x4e58,
      deviceId: 0x0001,
      command: 0x0406,
      status: 0x0010,
      revisionId: 0,
      classCode: 0x010802,
      headerType: 0,
      multiFunction: false,
      bars: [
        { index: 0, kind: 'memory64', address: 0x38fe200000, prefetchable: false },
        { index: 2, kind: 'memory32', address: 0xe0000000, prefetchable: true },
        { index: 3, kind: 'io', address: 0xc000, prefetchable: false },
        { index: 4, kind: 'memory32', address: 0, prefetchable: false },
        { index: 5, kind: 'memory32', address: 0, prefetchable: false },
      ],
      subsystemVendorId: 0x4e58,
      subsystemId: 0,
      capabilityPointer: 0x40,
      interruptLine: 11,
      interruptPin: 1,
    });
  });

  test('decodes a multi-function bridge, which has 2 BARs and no subsystem', () => {
    const config = spdk();
    config[0x0e] = 0x81;
    const header = parseConfigHeader(config);
    expect(header.multiFunction).toBe(true);
    expect(header.headerType).toBe(1);
    expect(header.bars.map((bar) => bar.index)).toEqual([0]);
    expect(header.subsystemVendorId).toBeUndefined();
  });

  test('calls a 64-bit BAR without an upper half reserved', () => {
    const config = spdk();
    config[0x24] = 0x04;
    expect(parseConfigHeader(config).bars.at(-1)).toMatchObject({ index: 5, kind: 'reserved' });
    config[0x24] = 0x06;
    expect(parseConfigHeader(config).bars.at(-1)).toMatchObject({ index: 5, kind: 'reserved' });
  });

  test('ignores the capability pointer when the status register denies the list', () => {
    const config = spdk();
    config[0x06] = 0;
    expect(parseConfigHeader(config).capabilityPointer).toBe(0);
    expect(parseCapabilities(config)).toEqual({ capabilities: [], problem: undefined });
  });

  test('refuses a short header and an absent device', () => {
    const pciError = expect.objectContaining({ code: 'ERR_VFIO_USER_PCI' });
    expect(() => parseConfigHeader(new Uint8Array(63))).toThrow(pciError);
    expect(() => parseConfigHeader(new Uint8Array(64).fill(0xff))).toThrow(pciError);
  });
});

describe('parseCapabilities', () => {
  test('decodes what SPDK offers', () => {
    const { capabilities, problem } = parseCapabilities(spdk());
    expect(problem).toBeUndefined();
    expect(capabilities).toEqual([
      {
        kind: 'power-management',
        id: 1,
        offset: 0x40,
        version: 0,
        d1: false,
        d2: false,
        pmeStates: 0,
        state: 0,
        noSoftReset: true,
      },
      {
        kind: 'express',
        id: 0x10,
        offset: 0x48,
        version: 2,
        deviceType: 0,
        functionLevelReset: true,
        maxPayloadSupported: 128,
        maxPayload: 256,
        maxReadRequest: 512,
        linkCapability: { speed: 0, width: 0 },
        link: { speed: 0, width: 0 },
      },
      {
        kind: 'msix',
        id: 0x11,
        offset: 0x84,
        enabled: true,
        functionMask: false,
        vectors: 512,
        table: { bar: 4, offset: 0 },
        pba: { bar: 5, offset: 0 },
      },
    ]);
  });

  test('decodes MSI and vendor specific, keeps what it does not know', () => {
    const config = spdk();
    config.set([0x05, 0xb0, 0xa7, 0x01], 0xa0); // MSI: enabled, 8 vectors, 4 enabled, 64 bits, masking
    config.set([0x09, 0xc0, 0xff], 0xb0); // claims 255 bytes, but only 80 are left
    config.set([0x12, 0x00], 0xc0);
    config[0x34] = 0xa2; // the two lowest bits are reserved
    expect(parseCapabilities(config)).toEqual({
      capabilities: [
        {
          kind: 'msi',
          id: 5,
          offset: 0xa0,
          enabled: true,
          vectors: 8,
          enabledVectors: 4,
          address64: true,
          perVectorMasking: true,
        },
        { kind: 'vendor', id: 9, offset: 0xb0, length: 0x50 },
        { kind: 'unknown', id: 0x12, offset: 0xc0 },
      ],
      problem: undefined,
    });
  });

  test.each([
    ['a loop', (c: Uint8Array) => (c[0x85] = 0x40), 3, /loop through 0x40/],
    ['a pointer to itself', (c: Uint8Array) => (c[0x41] = 0x40), 1, /loop through 0x40/],
    ['a pointer into the header', (c: Uint8Array) => (c[0x41] = 0x3c), 1, /header, to 0x3c/],
    [
      'a capability that is cut short',
      (c: Uint8Array) => ((c[0x41] = 0xf8), (c[0xf8] = 0x10)),
      2,
      /0xf8 is cut short/,
    ],
    [
      'a capability that does not answer',
      (c: Uint8Array) => ((c[0x41] = 0xf8), (c[0xf8] = 0xff)),
      1,
      /answers at 0xf8/,
    ],
  ])('stops at %s', (_, spoil, count, problem) => {
    const config = spdk();
    spoil(config);
    const list = parseCapabilities(config);
    expect(list.capabilities).toHaveLength(count);
    expect(list.problem).toMatch(problem);
  });

  test('stops where the bytes end', () => {
    expect(parseCapabilities(spdk().subarray(0, 64)).problem).toMatch(/0x40, beyond the 64 bytes/);
    expect(parseCapabilities(spdk().subarray(0, 32)).problem).toMatch(/cut short/);
  });

  test('survives any bytes', () => {
    for (let fill = 0; fill < 256; fill++) {
      const config = new Uint8Array(4096).fill(fill);
      expect(parseCapabilities(config).capabilities.length).toBeLessThanOrEqual(48);
      expect(parseExtendedCapabilities(config).capabilities.length).toBeLessThanOrEqual(960);
    }
  });
});

describe('parseExtendedCapabilities', () => {
  function extended(): { config: Uint8Array; view: DataView } {
    const config = spdk(4096);
    const view = new DataView(config.buffer);
    view.setUint32(0x100, 0x15010003, true); // serial number, version 1, next 150h
    view.setUint32(0x104, 0x89abcdef, true);
    view.setUint32(0x108, 0x01234567, true);
    view.setUint32(0x150, 0x1a020001, true); // advanced errors, version 2, next 1a0h
    view.setUint32(0x154, 0x00100000, true);
    view.setUint32(0x158, 0x00400000, true);
    view.setUint32(0x15c, 0x00062030, true);
    view.setUint32(0x160, 0x00000001, true);
    view.setUint32(0x164, 0x00002000, true);
    view.setUint32(0x1a0, 0x1c01000b, true); // vendor specific, next 1c0h
    view.setUint32(0x1a4, 0x01821af4, true);
    view.setUint32(0x1c0, 0x0001001e, true);
    return { config, view };
  }

  test('decodes serial number, advanced errors and vendor specific, keeps what it does not know', () => {
    expect(parseExtendedCapabilities(extended().config)).toEqual({
      capabilities: [
        { kind: 'serial-number', id: 3, offset: 0x100, version: 1, serialNumber: 0x0123456789abcdefn },
        {
          kind: 'advanced-errors',
          id: 1,
          offset: 0x150,
          version: 2,
          uncorrectableStatus: 0x00100000,
          uncorrectableMask: 0x00400000,
          uncorrectableSeverity: 0x00062030,
          correctableStatus: 1,
          correctableMask: 0x2000,
        },
        {
          kind: 'vendor-extended',
          id: 11,
          offset: 0x1a0,
          version: 1,
          vendorSpecificId: 0x1af4,
          revision: 2,
          length: 0x18,
        },
        { kind: 'unknown-extended', id: 0x1e, offset: 0x1c0, version: 1 },
      ],
      problem: undefined,
    });
  });

  test('finds none in conventional configuration space, or where 100h reads 0 or ones', () => {
    expect(parseExtendedCapabilities(spdk(256))).toEqual({ capabilities: [], problem: undefined });
    expect(parseExtendedCapabilities(spdk(4096))).toEqual({ capabilities: [], problem: undefined });
    const ones = spdk(4096).fill(0xff, 0x100);
    expect(parseExtendedCapabilities(ones)).toEqual({ capabilities: [], problem: undefined });
  });

  test.each([
    ['a loop', 0x1c0, 0x1000001e, /loop through 0x100/],
    ['a pointer below 100h', 0x1c0, 0x0401001e, /below 0x100, to 0x40/],
    ['a capability that is cut short', 0x1c0, 0xffc1001e, /0xffc is cut short/],
    ['a capability that does not answer', 0x1c0, 0xff81001e, /answers at 0xff8/],
  ])('stops at %s', (_, at, header, problem) => {
    const { config, view } = extended();
    view.setUint32(0xffc, 0x00010003, true);
    view.setUint32(0xff8, 0xffffffff, true);
    view.setUint32(at, header, true);
    expect(parseExtendedCapabilities(config).problem).toMatch(problem);
  });
});

test('names classes and devices', () => {
  expect(className(0x010802)).toBe('Non-volatile memory controller (NVM Express)');
  expect(className(0x020000)).toBe('Ethernet controller');
  expect(className(0x0c7f00)).toBe('Serial bus controller');
  expect(className(0x7f0100)).toBe('Class 7f01');
  expect(deviceName(0x4e58, 1)).toBe('SPDK NVMe controller');
  expect(deviceName(0x4e58, 2)).toBeUndefined();
});
