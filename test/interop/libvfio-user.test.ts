// SPDX-License-Identifier: MIT
/**
 * Against the sample devices of libvfio-user. Set VFIO_USER_SAMPLES to the directory with the built samples
 * (`build/samples`), and VFIO_USER_SAMPLES_SHADOW too when they were built with `-Dshadow-ioeventfd=true`.
 */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { connect, EventFd, type VfioUserDevice } from '../../lib/client';
import { parseCapabilities, parseExtendedCapabilities } from '../../lib/pci';
import { until } from '../support/wait';
import { SAMPLES, Sample, whyNoSample } from './libvfio-user-sample';

const reason = whyNoSample('gpio-pci-idio-16');
const describeSamples = reason === undefined ? describe : describe.skip;
if (reason !== undefined) console.warn(`tests against libvfio-user are skipped: ${reason}`);

/** Only a libvfio-user that was built with `-Dshadow-ioeventfd=true` can run this sample; nothing tells before it fails. */
const describeShadow = process.env['VFIO_USER_SAMPLES_SHADOW'] === undefined ? describe.skip : describe;

async function withSample(
  name: string,
  use: (device: VfioUserDevice, sample: Sample) => Promise<void>,
  ...options: string[]
): Promise<void> {
  const sample = await Sample.start(name, ...options);
  try {
    await using device = await connect(sample.path);
    await use(device, sample);
  } finally {
    await sample.stop();
  }
}

describeSamples('gpio-pci-idio-16', () => {
  test('identifies itself, and has one BAR and one INTx', () =>
    withSample('gpio-pci-idio-16', async (device) => {
      expect(await device.pci.header()).toMatchObject({ vendorId: 0x494f, deviceId: 0x0dc8 });
      expect(await device.pci.readConfig(0, 256, { bulk: true })).toEqual(
        await device.pci.readConfig(0, 256),
      );
      expect((await device.region('bar2')).size).toBe(0x100);
      const counts = [];
      for (const name of ['intx', 'msi', 'msix', 'err', 'req'] as const)
        counts.push((await device.irq(name)).count);
      expect(counts).toEqual([1, 0, 0, 1, 1]);
    }));

  test('pins: inputs read 1 while their outputs were written a multiple of three times', () =>
    withSample('gpio-pci-idio-16', async (device) => {
      const pins = await device.region('bar2');
      expect([await pins.read8(1), pins.read8Sync(5)]).toEqual([0xff, 0xff]);
      const seen: number[] = [];
      for (let turn = 0; turn < 4; turn++) {
        await pins.write8(0, 0x81);
        pins.write8Sync(4, 0x10);
        seen.push(await pins.read8(1), await pins.read8(5));
      }
      expect(seen).toEqual([0x7e, 0xef, 0x7e, 0xef, 0xff, 0xff, 0x7e, 0xef]);
    }));

  test('interrupts: all ways to get them, none left out by a switch', () =>
    withSample('gpio-pci-idio-16', async (device) => {
      const intx = await device.irq('intx');
      const got: number[] = [];
      await intx.enable([(signals) => got.push(signals)]);
      await intx.trigger();
      await intx.trigger([true]);
      await intx.trigger([false]);
      await until(() => got.reduce((sum, count) => sum + count, 0) === 2);
      await intx.mask();
      await intx.unmask();

      await intx.enable(1);
      await intx.vector(0).trigger();
      const counts: number[] = [];
      for await (const count of intx.vector(0)) {
        counts.push(count);
        break;
      }
      expect(counts).toEqual([1]);
      const own = EventFd.create();
      await intx.enable([own]);
      await intx.vector(0).trigger();
      expect(own.read()).toBe(1);
      await intx.vector(0).bind('unmask', own);
      await intx.disable();
      await intx.vector(0).trigger();
      expect(own.read()).toBe(0);
      own.close();

      for (const name of ['err', 'req'] as const) {
        const irq = await device.irq(name);
        await irq.enable(1);
        await irq.trigger();
        expect(irq.vector(0).poll()).toBe(1);
        // libvfio-user takes nothing but triggers of these.
        await expect(irq.mask()).rejects.toMatchObject({ code: 'ERR_VFIO_USER_REMOTE', errnoName: 'EINVAL' });
        await irq.disable();
      }
    }));

  test('a region without descriptors for its accesses, and one that is not there', () =>
    withSample('gpio-pci-idio-16', async (device) => {
      expect(await (await device.region('bar2')).ioFds()).toEqual([]);
      await expect((await device.region('bar0')).ioFds()).rejects.toMatchObject({ errnoName: 'EINVAL' });
    }));

  test('BARs have their values again after they were sized by writes', () =>
    withSample('gpio-pci-idio-16', async (device) => {
      const before = await device.pci.readConfig(0, 64);
      await device.pci.probeBars();
      expect(await device.pci.readConfig(0, 64)).toEqual(before);
      expect(await device.pci.bars()).toMatchObject([{ index: 2, size: 0x100 }]);
      await device.pci.enable({ memory: true, busMaster: true, intx: false });
      expect(await device.pci.command()).toBe(0x406);
      await expect(device.pci.functionLevelReset()).rejects.toMatchObject({
        code: 'ERR_VFIO_USER_UNSUPPORTED',
      });
    }));
});

describeSamples('server', () => {
  test('BAR0 counts the seconds since the time that was written', () =>
    withSample('server', async (device) => {
      const clock = await device.region('bar0');
      expect(clock.size).toBe(8);
      const now = BigInt(Math.floor(Date.now() / 1000));
      await clock.write64(0, now + 1000n);
      const delta = BigInt.asIntN(64, await clock.read64(0));
      expect(delta).toBeGreaterThanOrEqual(-1000n);
      expect(delta).toBeLessThan(-990n);
      await expect(clock.read32(0)).rejects.toMatchObject({ errnoName: 'EINVAL' });
    }));

  test('BAR1 has two areas that can be mapped, and a page between them that cannot', () =>
    withSample('server', async (device) => {
      const bar1 = await device.region('bar1');
      expect(bar1.areas).toEqual([
        { offset: 0, size: 0x1000 },
        { offset: 0x2000, size: 0x1000 },
      ]);
      const first = bar1.map(0, 0x1000);
      const last = bar1.map(0x2000, 0x1000);
      await bar1.write32(4, 0x11223344);
      await bar1.write32(0x2ffc, 0x55667788);
      expect(new Uint32Array(first.buffer)[1]).toBe(0x11223344);
      expect(new Uint32Array(last.buffer)[0x3ff]).toBe(0x55667788);
      new Uint32Array(first.buffer)[0] = 0xdecade;
      expect(await bar1.read32(0)).toBe(0xdecade);
      expect(() => bar1.map(0x1000, 0x1000)).toThrow(
        expect.objectContaining({ code: 'ERR_VFIO_USER_UNSUPPORTED' }) as Error,
      );
    }));

  test('its timer signals INTx, and then it uses memory: mapped, and by message', () =>
    withSample(
      'server',
      async (device, sample) => {
        const shared = await device.dma.allocate(0x1000);
        const distant = await device.dma.allocate(0x1000);
        const intx = await device.irq('intx');
        await intx.enable(1);
        await (await device.region('bar0')).write64(0, BigInt(Math.floor(Date.now() / 1000)) + 2n);
        // Polled: libvfio-user takes a command, such as the UNMASK at the end of an interrupt, for the reply to its own DMA
        // message when both are under way (github.com/nutanix/libvfio-user/issues/279).
        await until(() => intx.vector(0).poll() > 0 || sample.ended);
        // It writes 'A', 'B' and so on into both, and ends when it reads something else.
        await until(() => sample.output.includes('MESSAGE success') || sample.ended);
        const letters = (memory: { buffer: ArrayBuffer }): string =>
          String.fromCharCode(new Uint8Array(memory.buffer)[0] ?? 0);
        expect([letters(shared), letters(distant), sample.ended]).toEqual(['A', 'A', false]);
        expect(sample.output).not.toContain('failed:');
      },
      '-v',
    ));
});

describeSamples('null', () => {
  test('a device without anything', () =>
    withSample('null', async (device) => {
      expect(await device.info()).toMatchObject({ regionCount: 9, irqCount: 5 });
      expect(await device.pci.bars()).toEqual([]);
      expect((await device.pci.capabilities()).problem).toBeUndefined();
      const msix = await device.irq('msix');
      await expect(msix.enable(1)).rejects.toMatchObject({ code: 'ERR_OUT_OF_RANGE' });
    }));
});

describeSamples('lspci', () => {
  test('the capabilities that it prints', () => {
    const text = execFileSync(join(SAMPLES ?? '', 'lspci'), { encoding: 'utf8' });
    const bytes = text
      .split('\n')
      .slice(1)
      .flatMap((line) => line.split(' ').slice(1))
      .map((byte) => parseInt(byte, 16));
    const config = Uint8Array.from(bytes);
    expect(config.length).toBe(4096);
    const { capabilities, problem } = parseCapabilities(config);
    expect(problem).toBeUndefined();
    expect(capabilities).toMatchObject([
      { kind: 'power-management', noSoftReset: true },
      { kind: 'vendor', length: 0x10 },
      { kind: 'express', functionLevelReset: true },
    ]);
    const extended = parseExtendedCapabilities(config);
    expect(extended.problem).toBeUndefined();
    expect(extended.capabilities).toMatchObject([
      { kind: 'serial-number', serialNumber: 0xcafebabe_deadbeefn },
      { kind: 'vendor-extended', vendorSpecificId: 1, revision: 1, length: 0x15 },
      { kind: 'vendor-extended', offset: 0x400, vendorSpecificId: 2, revision: 2, length: 0x15 },
    ]);
  });
});

describeShadow('shadow_ioeventfd_server', () => {
  test('writes to its register go to shadow memory and an eventfd', async () => {
    await withSample('shadow_ioeventfd_server', async (device, sample) => {
      const bar0 = await device.region('bar0');
      const [subRegion] = await bar0.ioFds();
      expect(subRegion).toMatchObject({
        kind: 'ioeventfd',
        offset: 0,
        size: 4,
        datamatch: null,
        shadowed: true,
      });
      await device.flush();
      const sent = device.statistics.messagesSent;
      for (let value = 0; value < 100; value++) await bar0.write32(0, value);
      expect(device.statistics.messagesSent).toBe(sent);
      expect(sample.ended).toBe(false);
      await bar0.write32(4, 1);
      expect(device.statistics.messagesSent).toBe(sent + 1);
    });
  });
});
