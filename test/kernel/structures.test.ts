// SPDX-License-Identifier: MIT
/** Structures of the kernel, byte for byte as `linux/vfio.h` of Linux 6.12 declares them. */
import { contains, formatSpans, intersect } from '../../lib/dma/iova-spans';
import { decodeHotResetInfo } from '../../lib/kernel/hot-reset';
import { decodeIommuInfo } from '../../lib/kernel/iommu-info';
import { mappableAreas } from '../../lib/kernel/region';
import { pageSize } from '../../lib/native';
import { RegionFlag, type RegionInfo } from '../../lib/protocol';
import { hex, join, u16, u32, u64 } from '../support/bytes';

describe('struct vfio_iommu_type1_info', () => {
  const head = (flags: number, capabilities: number): Uint8Array =>
    join(u32(4096), u32(flags), u64(0x4000_1000n), u32(capabilities), u32(0));

  test('pages, ranges and what is left of the mappings', () => {
    const ranges = join(
      u16(1),
      u16(1),
      u32(72),
      u32(2),
      u32(0),
      u64(0n),
      u64(0xfedf_ffffn),
      u64(0xfef0_0000n),
      u64(0x7f_ffff_ffffn),
    );
    const available = join(u16(3), u16(1), u32(0), u32(65_530));
    expect(decodeIommuInfo(join(head(3, 24), ranges, available, new Uint8Array(64)))).toEqual({
      pageSize: 4096,
      spans: [
        { first: 0n, last: 0xfedf_ffffn },
        { first: 0xfef0_0000n, last: 0x7f_ffff_ffffn },
      ],
      available: 65_530,
      logs: false,
    });
  });

  test('a kernel that tells nothing', () => {
    expect(decodeIommuInfo(join(head(0, 0)))).toEqual({
      pageSize: 4096,
      spans: undefined,
      available: undefined,
      logs: false,
    });
  });

  test('a container that logs writes', () => {
    const migration = join(u16(2), u16(1), u32(0), u32(0), u32(0), u64(4096n), u64(0x1000_0000n));
    expect(decodeIommuInfo(join(head(3, 24), migration)).logs).toBe(true);
  });

  test('what makes no sense is refused, and no list goes on for ever', () => {
    expect(() => decodeIommuInfo(head(3, 200))).toThrow('cannot be read');
    expect(() => decodeIommuInfo(join(head(3, 24), u16(1), u16(1), u32(0), u32(9999), u32(0)))).toThrow(
      '9999 ranges',
    );
    expect(decodeIommuInfo(join(head(3, 24), u16(9), u16(1), u32(24), u32(0))).spans).toBeUndefined();
  });
});

describe('struct vfio_pci_hot_reset_info', () => {
  test('by groups', () => {
    const bytes = hex('ffff0000 00000000 02000000 0c000000 0000 81 00 0d000000 0100 02 fb');
    expect(decodeHotResetInfo(bytes)).toEqual({
      functions: [
        { address: '0000:81:00.0', group: 12, owned: undefined },
        { address: '0001:02:1f.3', group: 13, owned: undefined },
      ],
      owned: undefined,
    });
  });

  test('by devices, of which one is somebody else’s', () => {
    const bytes = hex(
      'ffff0000 01000000 03000000 01000000 0000 03 00 ffffffff 0000 03 01 00000000 0000 03 02',
    );
    expect(decodeHotResetInfo(bytes)).toMatchObject({
      functions: [{ owned: true }, { owned: false }, { owned: true }],
      owned: false,
    });
  });

  test('a count beyond the bytes is cut', () => {
    expect(decodeHotResetInfo(hex('ffff0000 00000000 ffffffff 0c000000 0000 81 00')).functions).toHaveLength(
      1,
    );
  });
});

describe('what of a region can be mapped', () => {
  const info = (more: Partial<RegionInfo> = {}): RegionInfo => ({
    index: 0,
    flags: RegionFlag.read | RegionFlag.write | RegionFlag.mmap,
    size: 8 * pageSize,
    offset: 0,
    capabilities: [],
    ...more,
  });

  test('all of it, or what the kernel lists', () => {
    expect(mappableAreas(info(), null)).toEqual([{ offset: 0, size: 8 * pageSize }]);
    expect(mappableAreas(info({ flags: RegionFlag.read }), null)).toEqual([]);
    const areas = [
      { offset: pageSize, size: pageSize },
      { offset: 4 * pageSize, size: 0 },
    ];
    expect(mappableAreas(info({ capabilities: [{ kind: 'sparseMmap', areas }] }), null)).toEqual(
      areas.slice(0, 1),
    );
  });

  test('but never the pages of the MSI-X table', () => {
    const table = { region: 0, offset: 2 * pageSize + 64, size: pageSize };
    expect(mappableAreas(info(), table)).toEqual([
      { offset: 0, size: 2 * pageSize },
      { offset: 4 * pageSize, size: 4 * pageSize },
    ]);
    expect(mappableAreas(info(), { ...table, offset: 0, size: 8 * pageSize })).toEqual([]);
    expect(mappableAreas(info(), { ...table, region: 4 })).toEqual([{ offset: 0, size: 8 * pageSize }]);
  });
});

describe('spans of addresses', () => {
  const spans = [
    { first: 0n, last: 0xfedf_ffffn },
    { first: 0xfef0_0000n, last: 0xffff_ffffn },
  ];

  test('those that are in both lists', () => {
    expect(intersect(spans, [{ first: 0x1000n, last: 0xfef0_0fffn }])).toEqual([
      { first: 0x1000n, last: 0xfedf_ffffn },
      { first: 0xfef0_0000n, last: 0xfef0_0fffn },
    ]);
    expect(intersect(spans, [])).toEqual([]);
  });

  test('a range is within one of them, up to its last byte', () => {
    expect(contains(spans, { iova: 0xfedf_f000n, size: 0x1000 })).toBe(true);
    expect(contains(spans, { iova: 0xfedf_f000n, size: 0x1001 })).toBe(false);
    expect(contains(spans, { iova: 0xfee0_0000n, size: 0x1000 })).toBe(false);
    expect(formatSpans(spans)).toBe('0x0-0xfedfffff, 0xfef00000-0xffffffff');
  });
});
