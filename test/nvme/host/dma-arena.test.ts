// SPDX-License-Identifier: MIT
import { DmaArena } from '../../../lib/nvme/host/dma-arena';
import { like } from '../../client/support';

const BASE = 0x1_0000_0000;

function arena(pages: number): DmaArena {
  const buffer = new ArrayBuffer(pages * 4096);
  return new DmaArena({
    buffer,
    iova: BASE,
    size: buffer.byteLength,
    fd: -1,
    fdOffset: 0,
    close: () => Promise.resolve(),
  });
}

test('whole pages, in order, where the device sees them', () => {
  const memory = arena(4);
  expect(memory.allocate(1)).toEqual({ offset: 0, size: 4096, iova: BASE });
  expect(memory.allocate(4097)).toEqual({ offset: 4096, size: 8192, iova: BASE + 4096 });
  expect(memory.allocate(4096).offset).toBe(12288);
});

test('exhaustion tells what to do', () => {
  const memory = arena(2);
  memory.allocate(4096);
  expect(() => memory.allocate(8192)).toThrow(
    like({
      code: 'ERR_VFIO_USER_DMA',
      message: expect.stringContaining('arenaSize') as string,
    }),
  );
  memory.allocate(4096);
  expect(() => memory.allocate(1)).toThrow(like({ code: 'ERR_VFIO_USER_DMA' }));
});

test.each([[[0, 1, 2]], [[0, 2, 1]], [[1, 0, 2]], [[1, 2, 0]], [[2, 0, 1]], [[2, 1, 0]]])(
  'pieces released in the order %p become one again',
  (order) => {
    const memory = arena(3);
    const chunks = [memory.allocate(1), memory.allocate(1), memory.allocate(1)];
    for (const index of order) memory.release(chunks[index]!);
    expect(memory.allocate(3 * 4096).offset).toBe(0);
  },
);

test('a hole is used again, and does not merge with what is taken', () => {
  const memory = arena(4);
  const [first, second] = [memory.allocate(1), memory.allocate(1)];
  memory.allocate(1);
  memory.release(first);
  expect(memory.allocate(8192 - 4096).offset).toBe(0);
  memory.release(second);
  expect(() => memory.allocate(8192)).toThrow('DMA memory');
  expect(memory.allocate(1).offset).toBe(4096);
});

test('memory that is used again is zeroed', () => {
  const memory = arena(1);
  const chunk = memory.allocate(4096);
  memory.words(chunk).fill(0xffff_ffff);
  expect(memory.bytes(chunk)[4095]).toBe(0xff);
  memory.release(chunk);
  expect(memory.bytes(memory.allocate(4096)).every((byte) => byte === 0)).toBe(true);
});
