// SPDX-License-Identifier: MIT
/** The client's memory, for the device behind a proxy. */
import { connect } from '../../lib/client';
import { Mapping, closeFd, createSharedMemory } from '../../lib/native';
import { CommandError, Errno } from '../../lib/server';
import { until } from '../support/wait';
import { EduDevice } from '../server/edu-device';
import { RawClient, TestModel, dmaMap, dmaUnmap } from '../server/support';
import { useChains } from './fixture';

const PAGE = 0x1000;
const chain = useChains();

describe('memory', () => {
  test('is mapped for the device at the same address, by the client’s own file', async () => {
    const model = new TestModel();
    const { socket } = await chain(model);
    await using client = await connect(socket);
    const fd = createSharedMemory(4 * PAGE);
    try {
      await client.dma.map({ iova: 0xabc000n, size: 2 * PAGE, fd, offset: PAGE, access: 'read' });
      const mapping = Mapping.map(fd, 0, 4 * PAGE);
      new Uint8Array(mapping.buffer)[PAGE + 3] = 9;
      const [range] = model.ranges;
      expect(range).toMatchObject({ iova: 0xabc000n, size: 2 * PAGE, readable: true, writable: false });
      expect(new Uint8Array(range?.buffer as ArrayBuffer)[3]).toBe(9);
      mapping.close();
      await client.dma.unmap(0xabc000n, 2 * PAGE);
      expect(model.ranges).toEqual([]);
    } finally {
      closeFd(fd);
    }
  });

  test('without a file is reached by messages that the proxy asks the client in turn', async () => {
    const { socket } = await chain(new EduDevice());
    await using client = await connect(socket, { dma: { directDma: false } });
    const bar0 = await client.region('bar0');
    const memory = await client.dma.allocate(PAGE);
    const bytes = new Uint8Array(memory.buffer);
    bytes.set([1, 2, 3, 4]);
    const [SOURCE, DESTINATION, COUNT, START] = [0x80, 0x88, 0x90, 0x98];
    await bar0.write64(SOURCE, BigInt(memory.iova));
    await bar0.write64(DESTINATION, 0x4_0000n);
    await bar0.write64(COUNT, 4n);
    await bar0.write64(START, 1n);
    await bar0.write64(SOURCE, 0x4_0000n);
    await bar0.write64(DESTINATION, BigInt(memory.iova) + 0x800n);
    await bar0.write64(START, 3n);
    expect([...bytes.subarray(0x800, 0x804)]).toEqual([1, 2, 3, 4]);
  });

  test('what overlaps is refused, and so is what the device does not take; the reason is told here', async () => {
    const model = new TestModel();
    const { socket, errors } = await chain(model, { serve: { capabilities: { maxDmaMaps: 2 } } });
    const raw = await RawClient.connect(socket);
    expect(await raw.errnoOf(2, dmaMap(0, PAGE))).toBe(0);
    expect(await raw.errnoOf(2, dmaMap(0, PAGE))).toBe(Errno.EEXIST);
    expect(await raw.errnoOf(2, dmaMap(0x800, PAGE))).toBe(Errno.EINVAL);
    expect(await raw.errnoOf(2, dmaMap(PAGE, PAGE, 0))).toBe(Errno.EINVAL); // Neither read nor write.
    expect(await raw.errnoOf(2, dmaMap(PAGE, PAGE))).toBe(0);
    expect(await raw.errnoOf(2, dmaMap(2 * PAGE, PAGE))).toBe(Errno.ENOSPC);
    expect(model.ranges.map(({ iova }) => iova)).toEqual([0n, 0x1000n]);
    expect(errors.join('\n')).toMatch(/EEXIST: .*overlaps[^]*EINVAL: [^]*ENOSPC: /);
    raw.close();
  });

  test('a range that the device refuses is the client’s no more, and one that it does not let go of is', async () => {
    const model = new TestModel();
    let refuse = true;
    const mapped = model.mapped.bind(model);
    model.mapped = (range) => {
      if (refuse) throw new CommandError(Errno.ENOMEM, 'no place');
      mapped(range);
    };
    const { socket, device } = await chain(model);
    const raw = await RawClient.connect(socket);
    const fd = createSharedMemory(PAGE);
    expect(await raw.errnoOf(2, dmaMap(0, PAGE), [fd])).toBe(Errno.ENOMEM);
    expect(device.dma.ranges).toEqual([]);
    refuse = false;
    expect(await raw.errnoOf(2, dmaMap(0, PAGE), [fd])).toBe(0);
    model.failure = new CommandError(Errno.EBUSY, 'in use');
    expect(await raw.errnoOf(3, dmaUnmap(0, PAGE))).toBe(Errno.EBUSY);
    expect(await raw.errnoOf(2, dmaMap(0, PAGE), [fd])).toBe(Errno.EEXIST);
    expect(await raw.errnoOf(3, dmaUnmap(0, PAGE))).toBe(0);
    expect(await raw.errnoOf(2, dmaMap(0, PAGE), [fd])).toBe(0);
    raw.close();
    closeFd(fd);
  });

  test('all of it is unmapped with one message, and when the client goes', async () => {
    const model = new TestModel();
    const { socket } = await chain(model);
    const client = await connect(socket);
    for (let index = 0; index < 5; index++) await client.dma.allocate(PAGE);
    expect(model.ranges).toHaveLength(5);
    await client.dma.unmapAll();
    expect(model.ranges).toEqual([]);
    for (let index = 0; index < 5; index++) await client.dma.allocate(PAGE);
    await client.close();
    await until(() => model.ranges.length === 0, 'the device has no range any more');
  });
});
