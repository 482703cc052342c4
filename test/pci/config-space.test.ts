// SPDX-License-Identifier: MIT
import {
  ConfigSpace,
  type BarDeclarations,
  type ConfigSpaceDeclaration,
  parseCapabilities,
  parseConfigHeader,
  parseExtendedCapabilities,
} from '../../lib/pci';

const nvme: ConfigSpaceDeclaration = {
  vendorId: 0x1b36,
  deviceId: 0x0010,
  subsystemVendorId: 0x1af4,
  subsystemId: 0x1100,
  revisionId: 2,
  classCode: 0x010802,
  interruptPin: 1,
  bars: {
    0: { kind: 'memory64', size: 0x4000 },
    2: { kind: 'io', size: 32 },
    3: { kind: 'memory32', size: 4096, prefetchable: true },
  },
  capabilities: [
    { kind: 'power-management' },
    { kind: 'express', functionLevelReset: true },
    { kind: 'msix', vectors: 65, table: { bar: 0, offset: 0x2000 }, pba: { bar: 0, offset: 0x3000 } },
    { kind: 'vendor', data: Uint8Array.of(1, 2) },
    { kind: 'serial-number', serialNumber: 0x0123456789abcdefn },
    { kind: 'advanced-errors' },
  ],
};

const u32 = (value: number): Uint8Array => new Uint8Array(Uint32Array.of(value).buffer);
const u16 = (value: number): Uint8Array => new Uint8Array(Uint16Array.of(value).buffer);
const read32 = (space: ConfigSpace, offset: number): number =>
  new DataView(space.read(offset, 4).buffer).getUint32(0, true);

describe('ConfigSpace', () => {
  test('lays out the header', () => {
    // Offsets of PCI Local Bus 3.0, figure 6-1.
    const header = new ConfigSpace(nvme).read(0, 64);
    expect([...header.subarray(0, 16)]).toEqual([
      0x36, 0x1b, 0x10, 0, 0, 0, 0x10, 0, 2, 0x02, 0x08, 0x01, 0, 0, 0, 0,
    ]);
    expect([...header.subarray(0x10, 0x28)]).toEqual([
      4, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ]);
    expect([...header.subarray(0x2c, 0x40)]).toEqual([
      0xf4, 0x1a, 0x00, 0x11, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0,
    ]);
  });

  test('lays out the capabilities where libvfio-user does, and links them', () => {
    const config = new ConfigSpace(nvme).read(0, 4096);
    const { capabilities, problem } = parseCapabilities(config);
    expect(problem).toBeUndefined();
    expect(capabilities.map(({ kind, offset }) => [kind, offset])).toEqual([
      ['power-management', 0x40],
      ['express', 0x48],
      ['msix', 0x84],
      ['vendor', 0x90],
    ]);
    expect([...config.subarray(0x84, 0x95)]).toEqual([
      0x11, 0x90, 64, 0, 0, 0x20, 0, 0, 0, 0x30, 0, 0, 0x09, 0, 5, 1, 2,
    ]);
    expect(capabilities[1]).toMatchObject({ version: 2, deviceType: 0, functionLevelReset: true });
    const extended = parseExtendedCapabilities(config);
    expect(extended.problem).toBeUndefined();
    expect(extended.capabilities).toMatchObject([
      { kind: 'serial-number', offset: 0x100, serialNumber: 0x0123456789abcdefn },
      { kind: 'advanced-errors', offset: 0x10c, uncorrectableSeverity: 0x00062030, correctableMask: 0x2000 },
    ]);
  });

  test('answers BAR sizing with the mask of the size', () => {
    const space = new ConfigSpace(nvme);
    for (let bar = 0; bar < 6; bar++) space.write(0x10 + 4 * bar, u32(0xffffffff));
    expect([0, 1, 2, 3, 4, 5].map((bar) => read32(space, 0x10 + 4 * bar))).toEqual([
      0xffffc004, 0xffffffff, 0xffffffe1, 0xfffff008, 0, 0,
    ]);
    expect(space.write(0x30, u32(0xfffff800))).toEqual([]);
    expect(read32(space, 0x30)).toBe(0);
  });

  test('sizes a 64-bit BAR of more than 4 GiB', () => {
    const space = new ConfigSpace({
      ...nvme,
      capabilities: [],
      bars: { 0: { kind: 'memory64', size: 2 ** 34 } },
    });
    space.write(0x10, new Uint8Array(8).fill(0xff));
    expect([read32(space, 0x10), read32(space, 0x14)]).toEqual([0x00000004, 0xfffffffc]);
  });

  test('tells that a BAR moved, and where to', () => {
    const space = new ConfigSpace(nvme);
    expect(space.write(0x10, u32(0xfe204123))).toEqual([{ kind: 'bar', index: 0, address: 0xfe204000 }]);
    expect(space.write(0x14, u32(0x38))).toEqual([{ kind: 'bar', index: 0, address: 0x38fe204000 }]);
    expect(space.barAddress(0)).toBe(0x38fe204000);
    expect(space.barAddress(1)).toBeUndefined();
    expect(parseConfigHeader(space.read(0, 64)).bars[0]).toEqual({
      index: 0,
      kind: 'memory64',
      address: 0x38fe204000,
      prefetchable: false,
    });
  });

  test('keeps ids, class and capability headers read-only', () => {
    const space = new ConfigSpace({ ...nvme, bars: { 0: nvme.bars?.[0] } });
    const before = space.read(0, 4096);
    for (const [offset, length] of [
      [0, 4],
      [8, 4],
      [0x0d, 3],
      [0x2c, 0x10],
      [0x40, 4],
      [0x48, 8],
      [0x84, 2],
      [0x88, 8],
      [0x100, 12],
    ] as const) {
      expect(space.write(offset, new Uint8Array(length).fill(0xff))).toEqual([]);
    }
    expect(space.read(0, 4096)).toEqual(before);
  });

  test('applies the command register, also by single bytes', () => {
    const space = new ConfigSpace(nvme);
    expect(space.write(4, u16(0x0406))).toEqual([{ kind: 'command', value: 0x0406, previous: 0 }]);
    expect(space.write(4, u16(0x0406))).toEqual([]);
    expect(space.write(5, Uint8Array.of(0))).toEqual([{ kind: 'command', value: 0x0006, previous: 0x0406 }]);
    space.write(4, u16(0xffff));
    expect(space.command).toBe(0x0547);
  });

  test('clears status bits that are written as 1, and keeps the others', () => {
    const space = new ConfigSpace(nvme);
    space.setInterruptStatus(true);
    space.write(6, u16(0xffff));
    expect(read32(space, 4) >>> 16).toBe(0x0018);
    space.setInterruptStatus(false);
    expect(read32(space, 4) >>> 16).toBe(0x0010);
  });

  test('tells MSI-X enable and mask', () => {
    const space = new ConfigSpace(nvme);
    expect(space.write(0x86, u16(0xffff))).toEqual([{ kind: 'msix', enabled: true, functionMask: true }]);
    expect(read32(space, 0x84) >>> 16).toBe(0xc040);
    expect(space.write(0x87, Uint8Array.of(0x80))).toEqual([
      { kind: 'msix', enabled: true, functionMask: false },
    ]);
    expect(space.msix).toEqual({ enabled: true, functionMask: false });
  });

  test('tells a function level reset, which reads back as 0', () => {
    const space = new ConfigSpace(nvme);
    expect(space.write(0x50, u16(0xa810))).toEqual([{ kind: 'function-level-reset' }]);
    expect(read32(space, 0x50)).toBe(0x2810);
    expect(space.write(0x51, Uint8Array.of(0x80))).toEqual([{ kind: 'function-level-reset' }]);
    expect(space.write(0x50, Uint8Array.of(0x80))).toEqual([]);
    const without = new ConfigSpace({ ...nvme, capabilities: [{ kind: 'express' }] });
    expect(without.write(0x48, u16(0x8000))).toEqual([]);
  });

  test('changes between D0 and D3hot, and drops writes of D1 and D2', () => {
    const space = new ConfigSpace(nvme);
    expect(space.write(0x44, u16(3))).toEqual([{ kind: 'power', state: 3, previous: 0 }]);
    expect(space.write(0x44, u16(1))).toEqual([]);
    expect(space.powerState).toBe(3);
    expect(space.write(0x44, u16(0))).toEqual([{ kind: 'power', state: 0, previous: 3 }]);
  });

  test('reports several changes of one write, and forgets them on reset', () => {
    const space = new ConfigSpace(nvme);
    const all = space.read(0, 256);
    all.set([0x06, 0x04], 4);
    all.set([0x00, 0x40], 0x10);
    all[0x87] = 0x80;
    expect(space.write(0, all).map((effect) => effect.kind)).toEqual(['bar', 'msix', 'command']);
    space.reset();
    expect(space.read(0, 4096)).toEqual(new ConfigSpace(nvme).read(0, 4096));
  });

  test('reads into a given array, a copy', () => {
    const space = new ConfigSpace(nvme);
    const into = new Uint8Array(8);
    expect(space.read(0, 4, into)).toBe(into);
    expect([...into]).toEqual([0x36, 0x1b, 0x10, 0, 0, 0, 0, 0]);
    into.fill(0);
    expect(space.read(0, 1)[0]).toBe(0x36);
  });

  test.each([
    [4096, 1],
    [-1, 2],
    [0, 4097],
    [0.5, 1],
    [4095, 2],
  ])('refuses access at %p of %p bytes', (offset, length) => {
    const space = new ConfigSpace(nvme);
    const error = expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' });
    expect(() => space.read(offset, length)).toThrow(error);
    expect(() => space.write(offset, new Uint8Array(length))).toThrow(error);
  });

  const msix = {
    kind: 'msix',
    vectors: 64,
    table: { bar: 0, offset: 0 },
    pba: { bar: 0, offset: 0x400 },
  } as const;
  test.each<[string, Partial<ConfigSpaceDeclaration>]>([
    ['vendor FFFFh', { vendorId: 0xffff }],
    ['a class of more than 24 bits', { classCode: 0x1000000 }],
    ['an interrupt pin above 4', { interruptPin: 5 }],
    ['7 BARs', { bars: { 6: { kind: 'io', size: 4 } } as BarDeclarations }],
    ['a BAR size that is no power of two', { bars: { 0: { kind: 'memory32', size: 0x3000 } } }],
    ['a BAR size that a logarithm takes for one', { bars: { 0: { kind: 'memory64', size: 2 ** 52 - 1 } } }],
    ['a BAR size in words', { bars: { 0: { kind: 'memory32', size: '64' as unknown as number } } }],
    ['a BAR that is too small', { bars: { 0: { kind: 'memory32', size: 8 } } }],
    ['an I/O BAR that is too large', { bars: { 0: { kind: 'io', size: 512 } } }],
    [
      'a 64-bit BAR without room',
      {
        bars: {
          0: { kind: 'memory64', size: 16 },
          1: { kind: 'io', size: 4 },
        },
      },
    ],
    ['a 64-bit BAR 5', { bars: { 5: { kind: 'memory64', size: 16 } } }],
    ['no MSI-X vectors', { capabilities: [{ ...msix, vectors: 0 }] }],
    ['2049 MSI-X vectors', { capabilities: [{ ...msix, vectors: 2049 }] }],
    [
      'an MSI-X table in a BAR that is not there',
      { capabilities: [{ ...msix, table: { bar: 5, offset: 0 } }] },
    ],
    ['an MSI-X table in an I/O BAR', { capabilities: [{ ...msix, table: { bar: 2, offset: 0 } }] }],
    ['an MSI-X table beyond its BAR', { capabilities: [{ ...msix, table: { bar: 0, offset: 0x3c08 } }] }],
    ['an MSI-X table that is not aligned', { capabilities: [{ ...msix, table: { bar: 0, offset: 4 } }] }],
    ['an MSI-X table over the pending bits', { capabilities: [{ ...msix, pba: { bar: 0, offset: 0x3f8 } }] }],
    ['a capability twice', { capabilities: [{ kind: 'express' }, { kind: 'express' }] }],
    ['capabilities beyond 256 bytes', { capabilities: [{ kind: 'vendor', data: new Uint8Array(190) }] }],
    ['a size of its own', { size: 512 as 256 }],
    ['a serial number below 0', { capabilities: [{ kind: 'serial-number', serialNumber: -1n }] }],
    ['a serial number of 65 bits', { capabilities: [{ kind: 'serial-number', serialNumber: 1n << 64n }] }],
    [
      'a serial number that is no bigint',
      { capabilities: [{ kind: 'serial-number', serialNumber: 7 as unknown as bigint }] },
    ],
    ['extended capabilities in 256 bytes', { size: 256, capabilities: [{ kind: 'advanced-errors' }] }],
  ])('refuses %s', (_, wrong) => {
    const plain: ConfigSpaceDeclaration = { ...nvme, capabilities: [] };
    expect(() => new ConfigSpace({ ...plain, ...wrong })).toThrow(
      expect.objectContaining({
        code: expect.stringMatching(/^ERR_(OUT_OF_RANGE|INVALID_ARG_VALUE)$/) as string,
      }),
    );
  });
});
