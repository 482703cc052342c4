// SPDX-License-Identifier: MIT
/** A client, or a device, that goes or misbehaves. */
import { connect } from '../../lib/client';
import { closeFd, createSharedMemory } from '../../lib/native';
import { PciIrq, PciRegion } from '../../lib/pci';
import { CommandError, Errno } from '../../lib/server';
import { like } from '../support/errors';
import { mappings, openFds } from '../support/resources';
import { turns, until } from '../support/wait';
import { RawClient, TestModel, access, dmaMap, message, setIrqs } from '../server/support';
import { useChains } from './fixture';

const PAGE = 0x1000;
const COMMAND = 4;
const chain = useChains();

describe('a client that goes', () => {
  test('leaves a device that is quiet and reset, for the next one', async () => {
    const model = new TestModel();
    const { socket, device, server } = await chain(model);
    const first = await connect(socket);
    await first.config.write16(COMMAND, 6);
    await (await first.irq('msix')).enable(4);
    await first.dma.allocate(PAGE);
    model.log.length = 0;
    await first.close();
    await using second = await connect(socket);
    expect(server.client?.name).toMatch(/client 2/);
    expect(model.log.slice(0, 3)).toEqual(['command', 'reset', expect.stringMatching('unmapping')]);
    expect(await second.config.read16(COMMAND)).toBe(0);
    expect(model.client?.setInterrupt(true, 0)).toBe(false);
    expect(device.dma.ranges).toEqual([]);
    await second.dma.allocate(PAGE);
  });

  test('is followed by one that never writes the command register, and has DMA and interrupts as the first would have had', async () => {
    const model = new TestModel();
    const { socket } = await chain(model);
    const first = await connect(socket);
    await first.config.write16(COMMAND, 6);
    await first.config.write32(0x10 + 4 * 4, 0xfe00_0000);
    await first.close();
    await using second = await connect(socket);
    await (await second.irq('msix')).enable(1);
    const { iova, buffer } = await second.dma.allocate(PAGE);
    new Uint8Array(buffer).fill(7);
    expect(await model.client?.memory.read(iova, 4)).toEqual(new Uint8Array(4).fill(7));
    expect(model.client?.setInterrupt(true, 0)).toBe(true);
    expect(await second.config.read32(0x10 + 4 * 4)).toBe(0);
    await second.config.write16(COMMAND, 2);
    expect(model.client?.memory.busMaster).toBe(false);
  });

  test('is waited for while the device lets go, and what it does not let go of is told', async () => {
    const model = new TestModel();
    const { socket, errors } = await chain(model);
    const first = await connect(socket);
    await first.dma.allocate(PAGE);
    let open = (): void => undefined;
    model.gate = new Promise((resolve) => {
      open = resolve;
    });
    await first.close();
    let served = false;
    const second = connect(socket).then((client) => {
      served = true;
      return client;
    });
    await until(() => model.log.at(-1) === 'reset', 'the device is being reset');
    await turns();
    expect(served).toBe(false);
    model.failure = new CommandError(Errno.EIO, 'stuck');
    open();
    await (await second).close();
    expect(errors).toEqual([
      expect.stringMatching(/did not let go of all that its client had given it: .*EIO/),
    ]);
  });

  test('leaves no descriptor and no mapping, a hundred times', async () => {
    const model = new TestModel();
    const { socket } = await chain(model);
    const visit = async (): Promise<void> => {
      const client = await connect(socket);
      await (await client.irq('msix')).enable(3);
      (await client.region('bar0')).map(0x1000, PAGE);
      await client.dma.allocate(PAGE);
      await client.close();
      await until(() => model.ranges.length === 0, 'the device has let go');
    };
    await visit();
    const before = [openFds(), mappings()];
    for (let index = 0; index < 100; index++) await visit();
    await until(() => openFds() <= (before[0] ?? 0), 'all descriptors are closed');
    // The collector decides when the last ones go: a few are nothing, one of each visit would be a hundred.
    expect(Math.abs(mappings() - (before[1] ?? 0))).toBeLessThan(10);
  });
});

describe('a device that goes', () => {
  test('takes its client with it; the next one is refused', async () => {
    const { socket, upstream, proxy } = await chain(new TestModel());
    await using client = await connect(socket);
    await client.dma.allocate(PAGE);
    const closed = new Promise<Error | null>((resolve) => client.once('close', resolve));
    await upstream.close();
    expect(await closed).toMatchObject({ code: 'ERR_VFIO_USER_DISCONNECTED' });
    expect(await proxy.gone).toMatchObject({
      code: 'ERR_VFIO_USER_DISCONNECTED',
      message: expect.stringMatching(/the device is gone: .*\.device closed the connection/),
    });
    await expect(connect(socket)).rejects.toThrow(
      like({ code: 'ERR_VFIO_USER_REMOTE', errnoName: 'ENODEV' }),
    );
  });

  test('one that does not answer is an error for the client, which stays', async () => {
    const model = new TestModel();
    let open = (): void => undefined;
    const stuck = new Promise<void>((resolve) => {
      open = resolve;
    });
    model.regions.set(PciRegion.bar5, { size: 16, read: () => stuck });
    const { socket } = await chain(model, { connect: { messageTimeout: 50 } });
    const raw = await RawClient.connect(socket);
    expect(await raw.errnoOf(9, access(5, 0, 4))).toBe(Errno.ETIMEDOUT);
    expect(await raw.errnoOf(9, access(0, 0, 4))).toBe(0);
    open();
    raw.close();
  });
});

test('a client that sends nonsense is refused or disconnected, and the next one is served', async () => {
  const model = new TestModel();
  const { socket } = await chain(model);
  const raw = await RawClient.connect(socket);
  const fd = createSharedMemory(PAGE);
  expect(await raw.errnoOf(8, setIrqs(0x24, PciIrq.msix, 0, 1), [fd])).toBe(Errno.EINVAL); // No eventfd.
  expect(await raw.errnoOf(8, setIrqs(0x24, 77, 0, 1))).toBe(Errno.EINVAL);
  expect(await raw.errnoOf(8, setIrqs(0x24, PciIrq.req, 0, 1))).toBe(Errno.EINVAL); // This device has none.
  expect(await raw.errnoOf(2, dmaMap(0, PAGE), [fd, fd])).toBe(Errno.EINVAL);
  expect(await raw.errnoOf(16, new Uint8Array(3))).toBe(Errno.EINVAL);
  expect(await raw.errnoOf(9, access(200, 0, 4))).toBe(Errno.EINVAL);
  raw.send(message(99, new Uint8Array(40)).subarray(0, 20));
  raw.close();
  closeFd(fd);
  await using client = await connect(socket);
  expect(await (await client.region('bar0')).read32(0)).toBe(0);
});
