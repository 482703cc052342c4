// SPDX-License-Identifier: MIT
import { constants } from 'node:os';
import { closeFd, fileSize } from '../../lib/native';
import { useServer } from './fixture';
import { BAR_SIZE, join, message, u16, u32, u64 } from './support';

const { EINVAL } = constants.errno;
const t = useServer();

describe('DEVICE_GET_INFO and its kin', () => {
  test('nine regions and five interrupt indexes, PCI, with reset', async () => {
    expect((await t.raw.ask(message(4, u32(16, 0, 0, 0)))).payload).toEqual(u32(16, 3, 9, 5));
    expect(await t.raw.errnoOf(4, u32(15, 0, 0, 0))).toBe(EINVAL);
    expect(await t.raw.errnoOf(4, u32(16))).toBe(EINVAL);
  });

  test('a region with sparse areas: first its size, then its areas and one descriptor', async () => {
    // struct vfio_region_info: argsz, flags, index, cap_offset, size, offset.
    const request = (argsz: number, index: number): Uint8Array => join(u32(argsz, 0, index, 0), u64(0, 0));
    const short = await t.raw.ask(message(5, request(32, 0)));
    expect(short.payload).toEqual(join(u32(64, 7, 0, 0), u64(BAR_SIZE, 0x1000)));
    expect(short.fds).toEqual([]);

    const whole = await t.raw.ask(message(5, request(4096, 0)));
    // struct vfio_region_info_cap_sparse_mmap: id 1, version 1, next 0, one area.
    const capability = join(u16(1, 1), u32(0, 1, 0), u64(0x1000, 0x2000));
    expect(whole.payload).toEqual(join(u32(64, 15, 0, 32), u64(BAR_SIZE, 0x1000), capability));
    expect(whole.fds.map(fileSize)).toEqual([0x1000 + BAR_SIZE]);
    whole.fds.forEach(closeFd);

    const all = await t.raw.ask(message(5, request(32, 4)));
    expect(all.payload).toEqual(join(u32(32, 7, 4, 0), u64(0x2000, 0)));
    expect(all.fds.length).toBe(1);
    all.fds.forEach(closeFd);
  });

  test('regions that are absent, one-way, or beyond the last', async () => {
    const request = (index: number): Uint8Array => join(u32(32, 0, index, 0), u64(0, 0));
    const flagsAndSize = async (index: number): Promise<number[]> => {
      const { payload } = await t.raw.ask(message(5, request(index)));
      const view = new DataView(payload.buffer);
      return [view.getUint32(4, true), view.getUint32(16, true)];
    };
    expect(await flagsAndSize(8)).toEqual([0, 0]);
    expect(await flagsAndSize(2)).toEqual([1, 64]);
    expect(await flagsAndSize(3)).toEqual([2, 64]);
    expect(await flagsAndSize(7)).toEqual([3, 4096]);
    expect(await t.raw.errnoOf(5, request(9))).toBe(EINVAL);
    expect(await t.raw.errnoOf(5, request(0xffffffff))).toBe(EINVAL);
    expect(await t.raw.errnoOf(5, u32(31, 0, 0, 0, 0, 0, 0, 0))).toBe(EINVAL);
  });

  test('no I/O descriptors', async () => {
    expect((await t.raw.ask(message(6, u32(4096, 0, 0, 0)))).payload).toEqual(u32(16, 0, 0, 0));
    expect(await t.raw.errnoOf(6, u32(16, 0, 9, 0))).toBe(EINVAL);
  });

  test('interrupt indexes', async () => {
    // struct vfio_irq_info: argsz, flags, index, count. EVENTFD is 1, MASKABLE 2, AUTOMASKED 4.
    expect((await t.raw.ask(message(7, u32(16, 0, 0, 0)))).payload).toEqual(u32(16, 7, 0, 1));
    expect((await t.raw.ask(message(7, u32(16, 0, 2, 0)))).payload).toEqual(u32(16, 1, 2, 4));
    expect((await t.raw.ask(message(7, u32(16, 0, 4, 0)))).payload).toEqual(u32(16, 1, 4, 0));
    expect(await t.raw.errnoOf(7, u32(16, 0, 5, 0))).toBe(EINVAL);
  });
});
