// SPDX-License-Identifier: MIT
import { constants as limits } from 'node:buffer';
import { closeFd, createSharedMemory } from '../../lib/native';
import { useServer } from './fixture';
import { dmaMap, hex, join, message, u16, u32, u64 } from './support';

const t = useServer();

describe('DMA_READ and DMA_WRITE', () => {
  beforeEach(async () => {
    // 1 MiB of transfer size on both sides; 3 MiB of memory without a descriptor.
    expect(await t.raw.errnoOf(2, dmaMap(0x10_0000, 0x30_0000))).toBe(0);
  });

  // QEMU loses what does not fit into its socket's send buffer (hw/vfio-user/proxy.c, vfio_user_send_one).
  test('reads in chunks that a socket takes whole', async () => {
    const result = t.model.client?.memory.read(0x10_0800, 0x8000 + 3);
    const first = await t.raw.receive();
    expect([first.command, first.flags]).toEqual([11, 0]);
    expect(first.payload).toEqual(u64(0x10_0800, 0x8000));
    const data = new Uint8Array(0x8000).fill(9);
    t.raw.send(message(11, join(first.payload, data), first.id, 1));
    const second = await t.raw.receive();
    expect(second.payload).toEqual(u64(0x10_8800, 3));
    t.raw.send(message(11, join(second.payload, Uint8Array.of(1, 2, 3)), second.id, 1));
    expect((await result)?.subarray(0x7fff)).toEqual(Uint8Array.of(9, 1, 2, 3));
  });

  test('writes', async () => {
    const result = t.model.client?.memory.write(0x10_0000, Uint8Array.of(1, 2, 3));
    const request = await t.raw.receive();
    expect(request.command).toBe(12);
    expect(request.payload).toEqual(join(u64(0x10_0000, 3), Uint8Array.of(1, 2, 3)));
    t.raw.send(message(12, u64(0x10_0000, 3), request.id, 1));
    await result;
  });

  // Up to QEMU 10.2 `count` is a uint32_t at offset 8 and the data begin at 12, in a message that is as long as the
  // specification's, whose count has 8 bytes (libvfio-user, struct vfio_user_dma_region_access).
  test('a count of 4 bytes in a reply, and then in all of this client', async () => {
    const answer = async (payload: Uint8Array): Promise<Uint8Array | undefined> => {
      const result = t.model.client?.memory.read(0x10_0000, 6);
      const request = await t.raw.receive();
      t.raw.send(message(11, payload, request.id, 1));
      return result;
    };
    const wide = '0000100000000000 0600000000000000 a1a2a3a4a5a6';
    const narrow = '0000100000000000 06000000 a1a2a3a4a5a6 00000000';
    const narrowZeros = '0000100000000000 06000000 00000000a5a6 00000000';
    expect(await answer(hex(wide))).toEqual(hex('a1a2a3a4a5a6'));
    expect(await answer(hex(narrow))).toEqual(hex('a1a2a3a4a5a6'));
    expect(await answer(hex(narrowZeros))).toEqual(hex('00000000a5a6'));
  });

  // 16 bytes: libvfio-user's clients. 12: the specification's table. None: QEMU.
  test.each(['0000100000000000 0300000000000000', '0000100000000000 03000000', ''])(
    'a DMA_WRITE that is answered with "%s"',
    async (text) => {
      const result = t.model.client?.memory.write(0x10_0000, Uint8Array.of(1, 2, 3));
      const request = await t.raw.receive();
      t.raw.send(message(12, hex(text), request.id, 1));
      await expect(result).resolves.toBeUndefined();
    },
  );

  test.each([
    ['less than asked for', join(u64(0x10_0000, 1), Uint8Array.of(1)), 0, 'ERR_VFIO_USER_DMA'],
    ['another address', join(u64(0x11_0000, 2), u16(1)), 0, 'ERR_VFIO_USER_PROTOCOL'],
    ['no data', u64(0x10_0000, 2), 0, 'ERR_VFIO_USER_PROTOCOL'],
    ['more than asked for', join(u64(0x10_0000, 9), new Uint8Array(9)), 0, 'ERR_VFIO_USER_PROTOCOL'],
    ['an error', undefined, 0x20, 'ERR_VFIO_USER_REMOTE'],
  ])('a client that answers with %s', async (_name, payload, flags, code) => {
    const result = t.model.client?.memory.read(0x10_0000, 2);
    const request = await t.raw.receive();
    t.raw.send(message(11, payload, request.id, 1 | flags));
    await expect(result).rejects.toMatchObject({ code });
    expect(await t.raw.errnoOf(4, u32(16, 0, 0, 0))).toBe(0);
  });

  test('a client that leaves instead of answering', async () => {
    const result = t.model.client?.memory.read(0x10_0000, 2);
    await t.raw.receive();
    t.raw.close();
    await expect(result).rejects.toMatchObject({ code: 'ERR_VFIO_USER_DISCONNECTED' });
  });

  // From Node 22 on an ArrayBuffer can be longer than any memory that could be made for this.
  const testWithLimit = limits.MAX_LENGTH > 2 ** 33 ? test.skip : test;
  testWithLimit('a range that is longer than an ArrayBuffer can be is reached by messages', async () => {
    const fd = createSharedMemory(limits.MAX_LENGTH + 0x1000);
    expect(await t.raw.errnoOf(2, dmaMap(1n << 40n, limits.MAX_LENGTH + 0x1000), [fd])).toBe(0);
    expect(t.model.ranges.at(-1)?.buffer).toBeNull();
    closeFd(fd);
  });
});
