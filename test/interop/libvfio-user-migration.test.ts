// SPDX-License-Identifier: MIT
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { until } from '../support/wait';
import { Sample, whyNoSample } from './libvfio-user-sample';
import { connect, type ConnectOptions, type VfioUserDevice } from '../../lib/client';

const why = whyNoSample('server');

(why === undefined ? describe : describe.skip)(
  `libvfio-user's server sample${why === undefined ? '' : `: skipped, ${why}`}`,
  () => {
    let samples: Sample[];
    let devices: VfioUserDevice[];

    beforeEach(() => {
      samples = [];
      devices = [];
    });
    afterEach(async () => {
      for (const device of devices) await device.close();
      for (const sample of samples) await sample.stop();
    });

    async function start(options: ConnectOptions = {}): Promise<VfioUserDevice> {
      const sample = await Sample.start('server', '-v');
      samples.push(sample);
      const device = await connect(sample.path, options);
      devices.push(device);
      return device;
    }

    /** What the sample migrates: BAR 1, and BAR 0 of 8 bytes. */
    async function prepared(device: VfioUserDevice): Promise<{ bytes: Uint8Array; stateSize: number }> {
      const bar1 = await device.region('bar1');
      const bytes = Uint8Array.from({ length: bar1.size }, (_, index) => (index * 13 + (index >>> 8)) & 0xff);
      await bar1.writeBytes(0, bytes);
      // A time in the future, for which the sample arms a timer whenever it starts to run.
      await (await device.region('bar0')).write64(0, BigInt(Math.floor(Date.now() / 1000) + 60));
      return { bytes, stateSize: bar1.size + 8 };
    }

    async function contents(device: VfioUserDevice): Promise<Uint8Array> {
      const bar1 = await device.region('bar1');
      return bar1.readBytes(0, bar1.size);
    }

    test('a device moves to a second instance', async () => {
      const [source, target] = [await start(), await start()];
      expect(await source.migration.supported()).toEqual({ stopCopy: true, preCopy: true, p2p: false });
      const { bytes, stateSize } = await prepared(source);
      const read = source.migration.createReadStream({ highWaterMark: 5000 });
      await pipeline(read, target.migration.createWriteStream());
      expect(read.bytesRead).toBe(stateSize);
      expect([await source.migration.state(), await target.migration.state()]).toEqual(['stop', 'running']);
      expect(Buffer.compare(await contents(target), bytes)).toBe(0);
    });

    // The sample gives BAR 1 in PRE_COPY, and all of it again when it is stopped; its target takes the second part only.
    test('PRE_COPY', async () => {
      const [source, target] = [await start(), await start()];
      const { bytes, stateSize } = await prepared(source);
      const data = Buffer.concat(await source.migration.createReadStream({ preCopy: true }).toArray());
      expect(data.length).toBe(bytes.length + stateSize);
      expect(Buffer.compare(data.subarray(0, bytes.length), bytes)).toBe(0);
      await pipeline(Readable.from([data.subarray(bytes.length)]), target.migration.createWriteStream());
      expect(Buffer.compare(await contents(target), bytes)).toBe(0);
    });

    test('a target that refuses the data is reset', async () => {
      const target = await start();
      const tooMuch = new Uint8Array((await prepared(target)).stateSize + 1);
      await expect(
        pipeline(Readable.from([tooMuch]), target.migration.createWriteStream()),
      ).rejects.toMatchObject({
        code: 'ERR_VFIO_USER_REMOTE',
        errnoName: 'EINVAL',
      });
      expect(await target.migration.state()).toBe('running');
    });

    test('STOP_COPY to PRE_COPY is refused by the server too', async () => {
      const source = await start();
      await source.migration.setState('stopCopy');
      // VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, state PRE_COPY.
      await expect(source.feature.set(2, Uint8Array.of(6, 0, 0, 0, 0, 0, 0, 0))).rejects.toMatchObject({
        errnoName: 'EINVAL',
      });
      expect(await source.migration.state()).toBe('stopCopy');
    });

    // Writing a time to BAR 0 makes the sample signal INTx then, store into its second DMA range, and write the first by message.
    test('dirty pages, of its stores and of its messages', async () => {
      // Its messages would cross with ours on one socket, which it does not stand (libvfio-user, issue 279).
      const device = await start({ twinSocket: true });
      const ranges = [
        await device.dma.allocate(0x1000),
        await device.dma.allocate(0x3000),
        await device.dma.allocate(0x2000),
      ];
      expect(await device.dirtyLog.supported()).toBe(true);
      expect(await device.dirtyLog.start()).toBe(4096);
      const all = async (): Promise<bigint[]> => {
        const first = ranges[0]?.iova ?? 0;
        return [...(await device.dirtyLog.report(first, 0x6000))];
      };
      expect(await all()).toEqual([]);
      const intx = await device.irq('intx');
      let fired = 0;
      await intx.enable([(signals) => (fired += signals)]);
      await (await device.region('bar0')).write64(0, BigInt(Math.floor(Date.now() / 1000) + 2));
      await until(() => samples[0]?.output.includes('MESSAGE success') === true);
      expect(fired).toBe(1);
      expect(await all()).toEqual([BigInt(ranges[0]?.iova ?? 0), BigInt(ranges[1]?.iova ?? 0)]);
      expect(await all()).toEqual([]);
      await device.dirtyLog.stop();
    });
  },
);
