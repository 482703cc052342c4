// SPDX-License-Identifier: MIT
import { connect } from '../../lib/client';
import { DmaContainer } from '../../lib/dma/container';
import {
  DMA_MAP,
  VERSION,
  atEnd,
  bare,
  failure,
  fakeDevice,
  fakeServer,
  sharedMemory,
  version,
} from '../client/support';

import { PAGE } from './support';

describe("the server's limits", () => {
  const limited = (json: string): ReturnType<typeof version> => version(`{"capabilities":{${json}}}`);

  test('page sizes: maps are checked, allocations rounded', async () => {
    const { device, server } = await fakeDevice(
      { [VERSION]: limited('"max_msg_fds":1,"pgsizes":2162688') }, // 64 KiB and 2 MiB
      { dma: { hugePages: 'never' } },
    );
    await expect(device.dma.map({ iova: 0x1000, size: 0x10000 })).rejects.toMatchObject({
      code: 'ERR_INVALID_ARG_VALUE',
    });
    await expect(device.dma.map({ iova: 0, size: 0x1000 })).rejects.toMatchObject({
      code: 'ERR_INVALID_ARG_VALUE',
    });
    await expect(device.dma.batch().map({ iova: 0, size: 0x1000 }).commit()).rejects.toMatchObject({
      code: 'ERR_INVALID_ARG_VALUE',
    });
    expect(server.count(DMA_MAP)).toBe(0);
    const memory = await device.dma.allocate(1);
    expect([memory.size, memory.iova % 0x10000]).toEqual([0x10000, 0]);
    await device.dma.map({ iova: 0, size: 0x10000 });
  });

  test.each([
    ['pages that it does not take', '"pgsizes":65536', 'pages of 65536 bytes'],
    ['more ranges than it takes', '"max_dma_maps":1', 'at most 1'],
  ])('a container with %s is not attached', async (_what, json, text) => {
    const dma = new DmaContainer();
    atEnd(() => {
      dma.close();
    });
    await dma.map({ iova: 0x1000, size: PAGE });
    await dma.map({ iova: 0x3000, size: PAGE });
    const server = fakeServer({ [VERSION]: limited(json) });
    await expect(connect(server.endpoint, { dma })).rejects.toMatchObject(failure('ERR_VFIO_USER_DMA', text));
    expect(server.count(DMA_MAP)).toBe(0);
    expect(dma.ranges.length).toBe(2);
  });

  test('no descriptors: memory is shown without, and reached by message', async () => {
    const { fd } = sharedMemory(2 * PAGE);
    const { device, server } = await fakeDevice({ [VERSION]: limited('"max_msg_fds":0') });
    await device.dma.map({ iova: 0, size: PAGE, fd, offset: PAGE });
    expect(server.payloads(DMA_MAP)).toEqual([
      bare('20000000 03000000 0000000000000000 0000000000000000 0010000000000000'),
    ]);
    expect(server.heard.at(-1)?.fds.length).toBe(0);
  });
});
