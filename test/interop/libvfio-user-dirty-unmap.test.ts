// SPDX-License-Identifier: MIT
import { connect, type VfioUserDevice } from '../../lib/client';
import { Feature, encodeDmaLoggingControl } from '../../lib/protocol';
import { until } from '../client/support';
import { Sample, whyNoSample } from './libvfio-user-sample';

const why = whyNoSample('server');

(why === undefined ? describe : describe.skip)(
  `DMA_UNMAP with a dirty bitmap, libvfio-user's server sample${why === undefined ? '' : `: skipped, ${why}`}`,
  () => {
    let sample: Sample;
    let device: VfioUserDevice;

    beforeEach(async () => {
      sample = await Sample.start('server', '-v');
      // Its messages would cross with ours on one socket, which it does not stand (libvfio-user, issue 279).
      device = await connect(sample.path, { twinSocket: true });
    });
    afterEach(async () => {
      await device.close();
      await sample.stop();
    });

    // At the time in BAR 0 the sample writes its first range by message, and stores into the first page of its second.
    test('what it wrote by message, by store, and not at all', async () => {
      const sizes = [0x1000, 0x3000, 0x2000];
      const ranges = [];
      for (const size of sizes) ranges.push(await device.dma.allocate(size));
      await device.dirtyLog.start();
      // It ends when it has no eventfd for INTx.
      await (await device.irq('intx')).enable([() => undefined]);
      await (await device.region('bar0')).write64(0, BigInt(Math.floor(Date.now() / 1000) + 1));
      await until(() => sample.output.includes('MESSAGE success'));
      const told = [];
      for (const { iova, size } of ranges)
        told.push([...(await device.dma.unmapAndReport(iova, size)).pages()]);
      expect(told).toEqual([[0], [0], []]);
      expect(device.dma.ranges).toEqual([]);
      expect(sample.output).toContain('flags=0x1');
    });

    test('while nothing is logged it refuses, and the range stays', async () => {
      const memory = await device.dma.allocate(0x1000);
      await device.dirtyLog.start();
      // Behind the back of our log, which asks nothing while it is stopped itself.
      const stop = encodeDmaLoggingControl({ pageSize: 4096, ranges: [] });
      await device.feature.set(Feature.dmaLoggingStop, stop);
      await expect(device.dma.unmapAndReport(memory.iova, memory.size)).rejects.toMatchObject({
        code: 'ERR_VFIO_USER_REMOTE',
      });
      expect(device.dma.ranges.length).toBe(1);
      await memory.close();
      expect(device.dma.ranges).toEqual([]);
    });
  },
);
