// SPDX-License-Identifier: MIT
/** Reset, migration and features through a proxy, and whoever watches. */
import { pipeline } from 'node:stream/promises';
import { connect } from '../../lib/client';
import { ProxyModel } from '../../lib/proxy';
import { CommandError, Errno, type PciDeviceModel } from '../../lib/server';
import { like } from '../support/errors';
import { until } from '../support/wait';
import { MigratingModel, pattern } from '../server/migration-model';
import { TestModel } from '../server/support';
import { useChains } from './fixture';

const PAGE = 0x1000;
const chain = useChains();

describe('state', () => {
  test('is reset by the client, and migrates to another device through two proxies', async () => {
    const data = pattern(100_000);
    const source = new MigratingModel(data);
    source.early = pattern(3000);
    const destination = new MigratingModel();
    await using from = await connect((await chain(source)).socket);
    await using to = await connect((await chain(destination)).socket);
    expect(await from.migration.supported()).toMatchObject({ stopCopy: true, preCopy: true });
    await pipeline(from.migration.createReadStream({ preCopy: true }), to.migration.createWriteStream());
    expect(destination.data).toEqual(new Uint8Array([...source.early, ...data]));
    expect(await to.migration.state()).toBe('running');
    await to.reset();
    expect(destination.log.at(-1)).toBe('reset');
  });

  test('a client that stops the device leaves it running', async () => {
    const model = new MigratingModel(pattern(10));
    const { socket } = await chain(model);
    const first = await connect(socket);
    await first.migration.setState('stop');
    await first.close();
    await using second = await connect(socket);
    expect(await second.migration.state()).toBe('running');
  });

  test('pages that the device writes are told by the device', async () => {
    const model = new MigratingModel();
    const { socket } = await chain(model);
    await using client = await connect(socket);
    const memory = await client.dma.allocate(4 * PAGE);
    expect(await client.dirtyLog.supported()).toBe(true);
    await client.dirtyLog.start();
    model.client?.memory.markDirty(memory.iova + 2 * PAGE, 1);
    const dirty = await client.dirtyLog.report(memory.iova, 4 * PAGE);
    expect([...dirty]).toEqual([BigInt(memory.iova + 2 * PAGE)]);
    await client.dirtyLog.stop();
  });

  test('a device without migration does not offer it, nor a reset that it does not have', async () => {
    const model: PciDeviceModel = { name: 'plain', pci: { vendorId: 1, deviceId: 2, classCode: 0xff0000 } };
    const { socket } = await chain(model);
    await using client = await connect(socket);
    expect(await client.migration.supported()).toEqual({ stopCopy: false, preCopy: false, p2p: false });
    await expect(client.reset()).rejects.toThrow(like({ code: 'ERR_VFIO_USER_UNSUPPORTED' }));
    await expect(client.migration.readData(4)).rejects.toThrow(like({ code: 'ERR_VFIO_USER_REMOTE' }));
  });

  test('features of a device that no socket leads to are refused: their structures have addresses of this process', async () => {
    const { device } = await chain(new MigratingModel());
    // As the kernel's device: it has features, and nothing was negotiated.
    const other = await ProxyModel.of(
      new Proxy(device, {
        get: (target, key): unknown => {
          if (key === 'negotiated') return undefined;
          const value: unknown = Reflect.get(target, key);
          return typeof value === 'function' ? (value.bind(target) as unknown) : value;
        },
      }),
    );
    const request = { feature: 1, get: true, set: false, probe: false, argsz: 16, data: new Uint8Array(0) };
    await expect(other.passthrough.feature(request)).rejects.toMatchObject({ errno: Errno.ENOTSUP });
    await expect(other.passthrough.readMigrationData(1)).rejects.toMatchObject({ errno: Errno.ENOTSUP });
    await expect(other.passthrough.writeMigrationData(request.data)).rejects.toMatchObject({
      errno: Errno.ENOTSUP,
    });
  });
});

describe('whoever watches', () => {
  test('sees each access, range and interrupt, and why one was refused', async () => {
    const seen: string[] = [];
    const model = new TestModel();
    const { socket } = await chain(model, {
      proxy: {
        trap: true,
        observer: (step, error) =>
          void seen.push(
            step.kind +
              ('region' in step ? ` ${step.region}` : '') +
              (error === null ? '' : ` ${error.errno}`),
          ),
      },
    });
    const client = await connect(socket);
    await (await client.region('bar0')).write32(0, 0x01020304);
    await (await client.region('bar0')).read32(0);
    const memory = await client.dma.allocate(PAGE);
    let signals = 0;
    const irq = await client.irq('msix');
    await irq.enable([() => undefined, () => signals++]);
    model.client?.setInterrupt(true, 1);
    await until(() => signals === 1, 'the client is signalled');
    await irq.disable();
    await memory.close();
    model.failure = new CommandError(Errno.EBUSY, 'busy');
    await expect(client.reset()).rejects.toThrow(like({ errnoName: 'EBUSY' }));
    await client.close();
    await until(() => seen.at(-1) === 'reset', 'the device is reset');
    expect(seen).toEqual([
      ...['attach', 'write 0', 'read 0', 'map', 'set-irqs', 'signal', 'set-irqs', 'unmap'],
      ...['reset', `reset ${Errno.EBUSY}`, 'detach', 'reset'],
    ]);
  });
});
