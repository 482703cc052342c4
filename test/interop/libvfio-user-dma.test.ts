// SPDX-License-Identifier: MIT
import { connect, type ConnectOptions, type VfioUserDevice } from '../../lib/client';
import { DmaBatchError } from '../../lib/dma/batch';
import { sharedMemory, until } from '../client/support';
import { Sample, whyNoSample } from './libvfio-user-sample';

const reason = whyNoSample('server');
if (reason !== undefined) console.warn(`tests against libvfio-user are skipped: ${reason}`);
const PAGE = 4096;

/**
 * libvfio-user's `samples/server.c`: BAR 0 is a timer in seconds. When it fires, the server triggers INTx, writes 4 × 1024
 * bytes 'A' to 'D' to the second DMA range directly and reads them back, then does the same to the first by message; it
 * exits with an error when what it reads differs or a reply is not as it expects.
 */
(reason === undefined ? describe : describe.skip)("libvfio-user's server sample", () => {
  let sample: Sample;
  let device: VfioUserDevice;

  const open = async (options: ConnectOptions = {}): Promise<void> => {
    device = await connect(sample.path, options);
  };
  beforeEach(async () => {
    sample = await Sample.start('server', '-v');
  });
  afterEach(async () => {
    await device.close();
    await sample.stop();
  });

  test.each([true, false])('message DMA and direct DMA (twin socket: %p)', async (twinSocket) => {
    await open({ twinSocket, dma: { directDma: false } });
    expect(device.negotiated.limits.twinSocket).toBe(twinSocket);
    const byMessage = await device.dma.allocate(PAGE);
    // The sample insists on mapping its second range.
    const direct = await device.dma.map({
      iova: 0x20_0000,
      size: PAGE,
      fd: sharedMemory(PAGE).fd,
      direct: true,
    });
    let fired = 0;
    const irq = await device.irq('intx');
    // Without a twin socket no command of ours may cross with the server's (libvfio-user issue 279), which come right
    // behind the interrupt: INTx is unmasked by a command when the promise settles.
    const handler = async (signals: number): Promise<void> => {
      fired += signals;
      if (!twinSocket) await until(() => sample.output.includes('MESSAGE success'));
    };
    await irq.enable([handler]);
    const bar0 = await device.region('bar0');
    await bar0.write64(0, BigInt(Math.floor(Date.now() / 1000) + 1));
    await until(() => sample.output.includes('MESSAGE success'));
    expect(sample.output).toContain('DIRECT success');
    expect(fired).toBe(1);
    const expected = Buffer.concat(['A', 'B', 'C', 'D'].map((letter) => Buffer.alloc(1024, letter)));
    expect(Buffer.from(byMessage.buffer).equals(expected)).toBe(true);
    expect(Buffer.from(direct.buffer ?? new ArrayBuffer(0)).equals(expected)).toBe(true);
    // 4 writes and 2 reads came; the server is still in step with us.
    await device.flush();
    expect(device.closed).toBe(false);
  });

  test('posted writes and flush', async () => {
    await open();
    expect(device.negotiated.limits.writeMultiple).toBe(false);
    const bar1 = await device.region('bar1');
    for (let i = 0; i < 2000; i++) void bar1.write32(4 * (i % 64), i, { posted: true });
    await device.flush();
    // The sample reads from the beginning of BAR 1 whatever the offset.
    const words = new Uint32Array((await bar1.readBytes(0, 256)).slice().buffer);
    expect([...words]).toEqual(Array.from({ length: 64 }, (_, i) => 1984 + (i < 16 ? i : i - 64)));
    expect(device.statistics).toMatchObject({ postedWrites: 2000, unexpectedReplies: 0 });
  });

  test('a batch of maps and unmaps, and the flag that unmaps all', async () => {
    await open();
    const { fd } = sharedMemory(PAGE);
    const batch = device.dma.batch();
    for (let i = 0; i < 60; i++) batch.map({ iova: i * PAGE, size: PAGE, fd });
    batch
      .unmap(0, PAGE)
      .unmap(5 * PAGE, PAGE)
      .map({ iova: 5 * PAGE, size: PAGE, access: 'read' });
    expect((await batch.commit()).length).toBe(61);
    expect(device.dma.ranges.length).toBe(59);
    const sent = device.statistics.messagesSent;
    await device.dma.unmapAll();
    expect(device.statistics.messagesSent - sent).toBe(1);
    expect(device.dma.ranges).toEqual([]);
    // All of it can be mapped again.
    const again = device.dma.batch();
    for (let i = 0; i < 60; i++) again.map({ iova: i * PAGE, size: PAGE, fd });
    await again.commit();
    expect(sample.output).toContain('flags=0x2');
  });

  test('what the server refuses of a batch', async () => {
    await open();
    // Above the largest range that libvfio-user takes, 8 TiB.
    const batch = device.dma
      .batch()
      .map({ iova: 0x1000, size: PAGE })
      .map({ iova: 2 ** 45, size: 2 ** 44 })
      .map({ iova: 0x3000, size: PAGE });
    const error = await batch.commit().then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(DmaBatchError);
    expect((error as DmaBatchError).outcomes.map((outcome) => outcome.error === null)).toEqual([
      true,
      false,
      true,
    ]);
    expect(device.dma.dump()).toBe('0x1000+0x1000, 0x3000+0x1000');
    await device.dma.unmapAll();
  });

  test('regions outlive a reset', async () => {
    await open();
    const bar1 = await device.region('bar1');
    const mapped = bar1.map(0x2000, 0x1000);
    new Uint8Array(mapped.buffer)[1] = 7;
    await device.reset();
    expect(await device.region('bar1')).toBe(bar1);
    expect(new Uint8Array(mapped.buffer)[1]).toBe(7);
    expect(bar1.type).toBeUndefined();
    await bar1.write32(0, 5);
    expect(await bar1.read32(0)).toBe(5);
  });
});
