// SPDX-License-Identifier: MIT
/** libvfio-user's GPIO sample, killed and started again under a client. */
import { connect } from '../../lib/client';
import { Events, QUICK } from '../client/reconnect-support';
import { until } from '../support/wait';
import { Sample, whyNoSample } from './libvfio-user-sample';

const missing = whyNoSample('gpio-pci-idio-16');
const run = missing === undefined ? describe : describe.skip;

run(`libvfio-user, gpio-pci-idio-16${missing === undefined ? '' : ` (skipped: ${missing})`}`, () => {
  let sample: Sample;

  beforeEach(async () => {
    sample = await Sample.start('gpio-pci-idio-16');
  });
  afterEach(() => sample.stop());

  test('killed three times: registers, DMA and INTx work again', async () => {
    await using device = await connect(sample.path, { reconnect: QUICK });
    const events = new Events(device);
    const memory = await device.dma.allocate(4096);
    new Uint8Array(memory.buffer).fill(1);
    const pins = await device.region('bar2');
    const irq = await device.irq('intx');
    let signals = 0;
    await irq.enable([(count) => void (signals += count)]);

    for (let round = 1; round <= 3; round++) {
      // An input reads 1 while its output was written a multiple of three times.
      await pins.write8(0, 0x81);
      expect(await pins.read8(1)).toBe(0x7e);
      await sample.kill();
      await events.next('disconnect', round);
      await expect(pins.read8(1)).rejects.toMatchObject({ code: 'ERR_VFIO_USER_DISCONNECTED' });
      sample = await sample.startAgain('gpio-pci-idio-16');
      const [renewed] = await events.next('reconnect', round);
      expect(renewed).toMatchObject({ dmaRanges: 1, vectors: 1 });
      // The new server has counted nothing yet.
      expect(await pins.read8(1)).toBe(0xff);
      await irq.trigger();
      await until(() => signals === round);
    }
    await memory.close();
  });

  test('another device at its place', async () => {
    await using device = await connect(sample.path, { reconnect: QUICK });
    const events = new Events(device);
    await sample.kill();
    sample = await sample.startAgain('null');
    const [error] = await events.next('close');
    expect(error).toMatchObject({ code: 'ERR_VFIO_USER_IDENTITY' });
  });
});
