// SPDX-License-Identifier: MIT
import {
  ConfigSpace,
  type CapabilityDeclaration,
  type ConfigSpaceDeclaration,
  parseCapabilities,
  parseExtendedCapabilities,
} from '../../lib/pci';
import { bare, toHex } from '../support/bytes';

const plain: ConfigSpaceDeclaration = {
  vendorId: 0x1b36,
  deviceId: 0x0010,
  classCode: 0x010802,
  bars: { 0: { kind: 'memory32', size: 0x2000 } },
};
const withMsi = (msi: Omit<CapabilityDeclaration & { kind: 'msi' }, 'kind'>): ConfigSpace =>
  new ConfigSpace({
    ...plain,
    capabilities: [
      { kind: 'msi', ...msi },
      { kind: 'vendor', data: Uint8Array.of(1) },
    ],
  });

// linux/pci_regs.h: PCI_MSI_FLAGS 2, ADDRESS_LO 4, ADDRESS_HI 8, DATA_32 8, MASK_32 0Ch, PENDING_32 10h, DATA_64 0Ch,
// MASK_64 10h, PENDING_64 14h; PCI_MSI_FLAGS_ENABLE 1, QMASK 0Eh, QSIZE 70h, 64BIT 80h, MASKBIT 100h.
test.each([
  {
    msi: { vectors: 1, address64: false },
    next: 0x4c,
    reset: '054c0000 00000000 00000000',
    ones: '054c0100 fcffffff ffff0000',
  },
  {
    msi: { vectors: 32, address64: false, perVectorMasking: true },
    next: 0x54,
    reset: '05540a01 00000000 00000000 00000000 00000000',
    ones: '05545b01 fcffffff ffff0000 ffffffff 00000000',
  },
  {
    msi: { vectors: 2 },
    next: 0x50,
    reset: '05508200 00000000 00000000 00000000',
    ones: '05509300 fcffffff ffffffff ffff0000',
  },
  {
    msi: { vectors: 8, perVectorMasking: true },
    next: 0x58,
    reset: '05588601 00000000 00000000 00000000 00000000 00000000',
    ones: '0558b701 fcffffff ffffffff ffff0000 ff000000 00000000',
  },
] as const)('$msi: bytes after a reset, and after ones were written', ({ msi, next, reset, ones }) => {
  const space = withMsi(msi);
  const length = next - 0x40;
  expect(toHex(space.read(0x40, length))).toBe(bare(reset));
  expect(parseCapabilities(space.read(0, 256))).toMatchObject({
    capabilities: [
      {
        kind: 'msi',
        offset: 0x40,
        enabled: false,
        vectors: msi.vectors,
        enabledVectors: 1,
        address64: 'address64' in msi ? msi.address64 : true,
        perVectorMasking: 'perVectorMasking' in msi,
      },
      { kind: 'vendor', offset: next },
    ],
    problem: undefined,
  });
  const mask = 'perVectorMasking' in msi ? 2 ** msi.vectors - 1 : 0;
  expect(space.write(0x40, new Uint8Array(length).fill(0xff))).toEqual([
    { kind: 'msi', enabled: true, vectors: msi.vectors, mask },
  ]);
  expect(toHex(space.read(0x40, length))).toBe(bare(ones));
  expect(parseCapabilities(space.read(0, 256)).capabilities[0]).toMatchObject({
    enabled: true,
    enabledVectors: msi.vectors,
  });
  space.reset();
  expect(toHex(space.read(0x40, length))).toBe(bare(reset));
});

test('tells what changed, and nothing of the address', () => {
  const space = withMsi({ vectors: 4, perVectorMasking: true });
  expect(space.msi).toEqual({ enabled: false, vectors: 1, mask: 0 });
  expect(space.write(0x44, Uint8Array.of(0, 0, 0xe0, 0xfe, 0, 0, 0, 0, 0x21, 0x40))).toEqual([]);
  expect(space.write(0x42, Uint8Array.of(0x21))).toEqual([
    { kind: 'msi', enabled: true, vectors: 4, mask: 0 },
  ]);
  expect(space.write(0x42, Uint8Array.of(0x21))).toEqual([]);
  // 32 vectors of a device with 4.
  expect(space.write(0x42, Uint8Array.of(0x51))).toEqual([]);
  expect(space.write(0x50, Uint8Array.of(0b1010))).toEqual([
    { kind: 'msi', enabled: true, vectors: 4, mask: 0b1010 },
  ]);
  expect(space.write(0x42, Uint8Array.of(0x10))).toEqual([
    { kind: 'msi', enabled: false, vectors: 2, mask: 0b1010 },
  ]);
  expect(space.msi).toEqual({ enabled: false, vectors: 2, mask: 0b1010 });
  expect(new ConfigSpace(plain).msi).toBeUndefined();
});

test.each([
  [true, 0x54],
  [false, 0x50],
])('pending bits, with a 64-bit address %p', (address64, at) => {
  const space = withMsi({ vectors: 32, address64, perVectorMasking: true });
  space.setMsiPending(0, true);
  space.setMsiPending(31, true);
  expect(toHex(space.read(at, 4))).toBe('01000080');
  expect(space.write(at, new Uint8Array(4))).toEqual([]);
  space.setMsiPending(0, false);
  expect(toHex(space.read(at, 4))).toBe('00000080');
  for (const vector of [-1, 32, 0.5])
    expect(() => {
      space.setMsiPending(vector, true);
    }).toThrow(expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }) as Error);
});

test('without a mask there are no pending bits', () => {
  const space = withMsi({ vectors: 2 });
  const before = space.read(0, 4096);
  space.setMsiPending(1, true);
  expect(space.read(0, 4096)).toEqual(before);
});

test('every kind of capability in one chain', () => {
  const config = new ConfigSpace({
    ...plain,
    capabilities: [
      { kind: 'power-management' },
      { kind: 'msi', vectors: 16, perVectorMasking: true },
      { kind: 'express' },
      { kind: 'msix', vectors: 16, table: { bar: 0, offset: 0 }, pba: { bar: 0, offset: 0x1000 } },
      { kind: 'vendor', data: new Uint8Array(5) },
      { kind: 'serial-number', serialNumber: 1n },
      { kind: 'advanced-errors' },
    ],
  }).read(0, 4096);
  expect(parseCapabilities(config).capabilities.map(({ id, offset }) => [id, offset])).toEqual([
    [0x01, 0x40],
    [0x05, 0x48],
    [0x10, 0x60],
    [0x11, 0x9c],
    [0x09, 0xa8],
  ]);
  expect(parseExtendedCapabilities(config).capabilities.map(({ id, offset }) => [id, offset])).toEqual([
    [0x03, 0x100],
    [0x01, 0x10c],
  ]);
});

test.each([0, 3, 64, -1, NaN])('refuses %p vectors', (vectors) => {
  expect(() => withMsi({ vectors: vectors as 1 })).toThrow(
    expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }) as Error,
  );
});
