// SPDX-License-Identifier: MIT
/** What the device's interrupts become: INTx, MSI or MSI-X, by what the client has enabled and allows. */
import { connect, type VfioUserDevice } from '../../lib/client';
import { EventFd } from '../../lib/native';
import { PciCommand, PciStatus, type CapabilityDeclaration } from '../../lib/pci';
import { serve, type Client, type PciDeviceModel, type ServedFunction, type Server } from '../../lib/server';
import { EduCause, EduDevice } from './edu-device';
import { RawClient, access, join, setIrqs, u16, u32, until } from './support';

const path = `@vfio-user-interrupts-${process.pid}`;
// VFIO_IRQ_SET_*: data none 1, eventfd 4; action mask 8, unmask 16, trigger 32.
const [NONE, EVENTFD, MASK, UNMASK, TRIGGER] = [1, 4, 8, 16, 32];
const [INTX, MSI, MSIX] = [0, 1, 2];

let server: Server | undefined;
let raw: RawClient | undefined;
let events: EventFd[];

beforeEach(() => {
  events = Array.from({ length: 4 }, () => EventFd.create());
});
afterEach(async () => {
  raw?.close();
  await server?.close();
  raw = server = undefined;
  for (const event of events) event.close();
});

const counts = (): number[] => events.map((event) => event.read());
const errno = (command: number, payload: Uint8Array, fds?: number[]): Promise<number> =>
  (raw as RawClient).errnoOf(command, payload, fds);
const set = async (flags: number, index: number, start = 0, count = 1): Promise<void> => {
  const fds = (flags & EVENTFD) === 0 ? [] : events.slice(start, start + count).map(({ fd }) => fd);
  expect(await errno(8, setIrqs(flags, index, start, count), fds)).toBe(0);
};
const config = async (offset: number, data: Uint8Array): Promise<void> => {
  expect(await errno(10, join(access(7, offset, data.length), data))).toBe(0);
};
const command = (value: number): Promise<void> => config(4, u16(value));
const readConfig = async (offset: number, length: number): Promise<Uint8Array> => {
  const header = [1, 0, 9, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
  return (
    await (raw as RawClient).ask(Uint8Array.from([...header, ...access(7, offset, length)]))
  ).payload.subarray(16);
};
const interruptStatus = async (): Promise<boolean> =>
  ((await readConfig(6, 1))[0]! & PciStatus.interrupt) !== 0;

/** Serves a device, and returns its client. */
async function served(
  pci: Partial<ServedFunction> = {},
  more: Partial<PciDeviceModel> = {},
): Promise<Client> {
  let client: Client | undefined;
  server = await serve(path, {
    name: 'device',
    pci: { vendorId: 0x1234, deviceId: 1, classCode: 0xff0000, interruptPin: 1, ...pci },
    attach: (attached) => {
      client = attached;
    },
    ...more,
  });
  raw = await RawClient.connect(path);
  return client as Client;
}

describe('INTx', () => {
  test('is a level: one signal while it is high, and another for each unmask that finds it high', async () => {
    const client = await served();
    await set(EVENTFD | TRIGGER, INTX);
    expect([client.setInterrupt(true), client.setInterrupt(true), client.setInterrupt(false)]).toEqual([
      true,
      false,
      false,
    ]);
    // The client has not said that it has served the interrupt: the line is masked (automask of VFIO).
    expect(client.setInterrupt(true)).toBe(false);
    expect(counts()).toEqual([1, 0, 0, 0]);
    await set(NONE | UNMASK, INTX);
    expect(counts()).toEqual([1, 0, 0, 0]);
    await set(NONE | UNMASK, INTX);
    expect(counts()).toEqual([1, 0, 0, 0]);
    client.setInterrupt(false);
    await set(NONE | UNMASK, INTX);
    expect(counts()).toEqual([0, 0, 0, 0]);
    expect(client.setInterrupt(true)).toBe(true);
  });

  test('the line is high while any vector of the device is', async () => {
    const client = await served();
    await set(EVENTFD | TRIGGER, INTX);
    client.setInterrupt(true, 3);
    client.setInterrupt(true, 5);
    client.setInterrupt(false, 3);
    expect(await interruptStatus()).toBe(true);
    await set(NONE | UNMASK, INTX);
    expect(counts()).toEqual([2, 0, 0, 0]);
    client.setInterrupt(false, 5);
    expect(await interruptStatus()).toBe(false);
    await set(NONE | UNMASK, INTX);
    expect(counts()).toEqual([0, 0, 0, 0]);
  });

  test('a line that is high before the client has an eventfd, or after it took it away, is signalled when it has one', async () => {
    const client = await served();
    expect(client.setInterrupt(true)).toBe(false);
    await set(EVENTFD | TRIGGER, INTX);
    expect(counts()).toEqual([1, 0, 0, 0]);
    expect(await errno(8, setIrqs(NONE | TRIGGER, INTX, 0, 0))).toBe(0);
    await set(EVENTFD | TRIGGER, INTX);
    expect(counts()).toEqual([1, 0, 0, 0]);
  });

  test('masks of the client, by message and by eventfd', async () => {
    const client = await served();
    const [, , , unmask] = events as [EventFd, EventFd, EventFd, EventFd];
    await set(EVENTFD | TRIGGER, INTX);
    await set(NONE | MASK, INTX);
    expect(client.setInterrupt(true)).toBe(false);
    expect(await errno(8, setIrqs(EVENTFD | UNMASK, INTX, 0, 1), [unmask.fd])).toBe(0);
    unmask.signal();
    await until(() => events[0]?.read() === 1);
    unmask.signal();
    await until(() => events[0]?.read() === 1);
  });

  test('Interrupt Status tells of the line, also while Interrupt Disable keeps it from being signalled', async () => {
    const client = await served();
    await set(EVENTFD | TRIGGER, INTX);
    await command(PciCommand.interruptDisable);
    expect(client.setInterrupt(true)).toBe(false);
    expect(await interruptStatus()).toBe(true);
    expect(counts()).toEqual([0, 0, 0, 0]);
    await command(0);
    expect(counts()).toEqual([1, 0, 0, 0]);
    client.setInterrupt(false);
    expect(await interruptStatus()).toBe(false);
  });

  test('Bus Master Enable does not concern it', async () => {
    const client = await served();
    await set(EVENTFD | TRIGGER, INTX);
    await command(PciCommand.memory);
    expect(client.setInterrupt(true)).toBe(true);
  });

  test('a device without a pin has neither the interrupt nor its status', async () => {
    const client = await served({ interruptPin: 0 });
    expect(await errno(8, setIrqs(NONE | TRIGGER, INTX, 0, 1))).toBe(22);
    expect(client.setInterrupt(true)).toBe(false);
    expect(await interruptStatus()).toBe(false);
  });

  test('a reset lowers the line, and the next client finds it low', async () => {
    let client = await served({}, { reset: () => undefined });
    await set(EVENTFD | TRIGGER, INTX);
    client.setInterrupt(true);
    expect(await errno(13, new Uint8Array(0))).toBe(0);
    expect(await interruptStatus()).toBe(false);
    await set(NONE | UNMASK, INTX);
    expect(counts()).toEqual([1, 0, 0, 0]);
    client.setInterrupt(true);
    raw?.close();
    await until(() => server?.client === null);
    raw = await RawClient.connect(path);
    client = server?.client as Client;
    expect(await interruptStatus()).toBe(false);
    expect(client.setInterrupt(true)).toBe(false);
  });
});

describe('messages', () => {
  const msi = (vectors: 1 | 4, perVectorMasking = false): CapabilityDeclaration => ({
    kind: 'msi',
    vectors,
    perVectorMasking,
  });
  const place = { bar: 0, offset: 0 };
  const msix: CapabilityDeclaration = {
    kind: 'msix',
    vectors: 4,
    table: place,
    pba: { bar: 0, offset: 0x800 },
  };
  const bars = { 0: { kind: 'memory32', size: 0x1000 } } as const;

  test('the client has enabled MSI: each call sends one, and the line is low', async () => {
    const client = await served({ capabilities: [msi(4)] });
    client.setInterrupt(true);
    expect(await interruptStatus()).toBe(true);
    await set(EVENTFD | TRIGGER, MSI, 0, 4);
    expect(await interruptStatus()).toBe(false);
    expect([0, 3, 3].map((vector) => client.setInterrupt(true, vector))).toEqual([true, true, true]);
    expect(client.setInterrupt(false, 3)).toBe(false);
    expect(counts()).toEqual([1, 0, 0, 2]);
    // MSI is disabled again, and what the device has not lowered holds the line.
    expect(await errno(8, setIrqs(NONE | TRIGGER, MSI, 0, 0))).toBe(0);
    expect(await interruptStatus()).toBe(true);
    client.setInterrupt(false);
    expect(await interruptStatus()).toBe(false);
  });

  test('fewer vectors of MSI than the device has: they are shared', async () => {
    const client = await served({ capabilities: [msi(4)] });
    await set(EVENTFD | TRIGGER, MSI, 0, 2);
    for (const vector of [0, 1, 2, 3, 3]) expect(client.setInterrupt(true, vector)).toBe(true);
    expect(counts()).toEqual([2, 3, 0, 0]);
  });

  test('vectors of MSI that are masked in configuration space are pending', async () => {
    const client = await served({ capabilities: [msi(4, true)] });
    await set(EVENTFD | TRIGGER, MSI, 0, 4);
    // Mask bits of a capability with a 64-bit address are 10h behind it, and the pending bits follow.
    await config(0x50, u32(0b1010));
    for (const vector of [0, 1, 3, 3]) client.setInterrupt(true, vector);
    expect(counts()).toEqual([1, 0, 0, 0]);
    expect([...(await readConfig(0x54, 4))]).toEqual([0b1010, 0, 0, 0]);
    await config(0x50, u32(0b0010));
    expect(counts()).toEqual([0, 0, 0, 1]);
    expect([...(await readConfig(0x54, 4))]).toEqual([0b0010, 0, 0, 0]);
  });

  test.each([
    ['MSI', MSI],
    ['MSI-X', MSIX],
  ])('%s of a device that is no bus master waits until it is', async (_, index) => {
    const client = await served({ bars, capabilities: [msi(4), msix] });
    await set(EVENTFD | TRIGGER, index, 0, 4);
    expect(client.setInterrupt(true, 1)).toBe(true); // The client has not touched the command register yet.
    await command(PciCommand.memory);
    expect([1, 1, 2].map((vector) => client.setInterrupt(true, vector))).toEqual([false, false, false]);
    expect(counts()).toEqual([0, 1, 0, 0]);
    await command(PciCommand.memory | PciCommand.busMaster);
    expect(counts()).toEqual([0, 1, 1, 0]);
    await command(0);
    await command(PciCommand.busMaster);
    expect(counts()).toEqual([0, 0, 0, 0]);
  });

  test('a reset forgets what is pending, and clears Bus Master Enable', async () => {
    const client = await served({ bars, capabilities: [msi(4), msix] }, { reset: () => undefined });
    await set(EVENTFD | TRIGGER, MSIX, 0, 4);
    await command(PciCommand.busMaster);
    await command(0);
    client.setInterrupt(true, 1);
    expect(await errno(13, new Uint8Array(0))).toBe(0);
    await command(PciCommand.memory);
    expect(client.setInterrupt(true, 2)).toBe(false);
    await command(PciCommand.busMaster);
    expect(counts()).toEqual([0, 0, 1, 0]);
  });

  test('MSI-X goes before the others, and what is enabled in configuration space keeps the line low', async () => {
    const client = await served({ bars, capabilities: [msix] });
    client.setInterrupt(true);
    // MSI-X Enable, bit 15 of Message Control.
    await config(0x42, u16(0x8000));
    expect(await interruptStatus()).toBe(false);
    expect(client.setInterrupt(true, 1)).toBe(false);
    await set(EVENTFD | TRIGGER, MSIX, 1);
    expect(client.setInterrupt(true, 1)).toBe(true);
    expect(counts()).toEqual([0, 1, 0, 0]);
  });
});

describe("QEMU's edu device", () => {
  const Register = { causes: 0x24, raise: 0x60, acknowledge: 0x64 };
  let device: VfioUserDevice | undefined;
  afterEach(async () => {
    await device?.close();
    device = undefined;
  });

  async function edu(options?: { msi: boolean }): Promise<VfioUserDevice> {
    server = await serve(path, new EduDevice(options));
    return (device = await connect(path));
  }

  test('three causes, of which one is acknowledged at each interrupt, are three interrupts', async () => {
    const bar = await (await edu({ msi: false })).region('bar0');
    const seen: number[] = [];
    const intx = await (device as VfioUserDevice).irq('intx');
    await intx.enable([
      // The line is unmasked when the promise of the function settles.
      async () => {
        const causes = await bar.read32(Register.causes);
        const first = causes & -causes;
        seen.push(first);
        await bar.write32(Register.acknowledge, first);
      },
    ]);
    await bar.write32(Register.raise, 0b111);
    await until(() => seen.length === 3);
    expect(seen).toEqual([1, 2, 4]);
    // Nothing is left: a question that is answered after all unmasks shows that no more came.
    expect(await bar.read32(Register.causes)).toBe(0);
    expect(await device?.pci.status()).toBe(0);
    expect(seen).toHaveLength(3);
  });

  test.each(['intx', 'msi'] as const)('computes and copies, with %s', async (name) => {
    const { dma, pci } = await edu();
    const bar = await (device as VfioUserDevice).region('bar0');
    expect(await bar.read32(0)).toBe(0x0100_00ed);
    await bar.write32(4, 0x1234_5678);
    expect(await bar.read32(4)).toBe(0xedcb_a987);
    const causes: number[] = [];
    await (
      await (device as VfioUserDevice).irq(name)
    ).enable([
      async () => {
        const cause = await bar.read32(Register.causes);
        if (cause !== 0) causes.push(cause);
        await bar.write32(Register.acknowledge, cause);
      },
    ]);
    await pci.enable({ memory: true, busMaster: true });
    await bar.write32(0x20, 0x80);
    await bar.write32(8, 10);
    await until(() => causes.length === 1);
    expect(await bar.read32(8)).toBe(3628800);
    const memory = await dma.allocate(4096);
    Buffer.from(memory.buffer).write('through the device');
    for (const [source, destination, how] of [
      [BigInt(memory.iova), 0x4_0000n, 1n],
      [0x4_0000n, BigInt(memory.iova) + 2048n, 7n],
    ] as const) {
      await bar.write64(0x80, source);
      await bar.write64(0x88, destination);
      await bar.write64(0x90, 18n);
      await bar.write64(0x98, how);
    }
    await until(() => causes.length === 2);
    expect(Buffer.from(memory.buffer, 2048, 18).toString()).toBe('through the device');
    expect(causes).toEqual([EduCause.factorial, EduCause.dma]);
    await expect(bar.read16(0)).rejects.toMatchObject({ errnoName: 'EINVAL' });
  });
});
