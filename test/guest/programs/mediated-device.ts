// SPDX-License-Identifier: MIT
/**
 * What guests try on mediated devices of mtty, a driver of Linux (samples/vfio-mdev/mtty.c): serial ports in software, whose
 * transmitter is connected to their receiver. They migrate, and log what they write of memory, which is nothing.
 */
import { deepEqual, equal, match, ok, rejects } from 'node:assert/strict';
import { pipeline } from 'node:stream/promises';
import { openPci, type KernelDevice, type KernelRegion, type OpenPciOptions } from '../../../lib';

interface Place {
  readonly address: string;
  readonly other: string;
  readonly through: NonNullable<OpenPciOptions['through']>;
}

/** Registers of a 16550. */
const Uart = {
  data: 0,
  interruptEnable: 1,
  fifoControl: 2,
  lineControl: 3,
  lineStatus: 5,
  scratch: 7,
} as const;
const TRANSMITTER_EMPTY = 2;
const DATA_READY = 1;
const CLEAR_FIFO = 7;
/** Bytes of mtty's state before those of its ports (`struct mtty_data`). */
const HEADER = 24;
/** `VFIO_DEVICE_FEATURE_MIG_DATA_SIZE`. */
const DATA_SIZE = 9;

const TEXT = Buffer.from('a state');

async function fill(uart: KernelRegion): Promise<void> {
  await uart.write8(Uart.fifoControl, CLEAR_FIFO);
  await uart.write8(Uart.lineControl, 3);
  await uart.write8(Uart.scratch, 0x5a);
  for (const byte of TEXT) await uart.write8(Uart.data, byte);
}

/** What a port has, by what it says. */
async function contents(uart: KernelRegion): Promise<string> {
  const bytes: number[] = [];
  while (((await uart.read8(Uart.lineStatus)) & DATA_READY) !== 0) bytes.push(await uart.read8(Uart.data));
  return Buffer.from(bytes).toString();
}

async function saved(device: KernelDevice, preCopy = false): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of device.migration.createReadStream({ preCopy })) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

export const MEDIATED_PARTS: Readonly<Record<string, (place: Place) => Promise<void>>> = {
  /** It is a PCI device with registers, interrupts, and memory. */
  mediated: async ({ address, through }) => {
    await using device = await openPci(address.toUpperCase(), { through });
    equal(device.name, address);
    equal(device.through, through);
    const { vendorId, classCode } = await device.pci.header();
    equal(vendorId, 0x4348);
    equal(classCode >>> 8, 0x0700, 'a serial controller');
    const uart = await device.region('bar0');
    await fill(uart);
    equal(await contents(uart), TEXT.toString());
    for (const kind of ['intx', 'msi'] as const) {
      const irq = await device.irq(kind);
      await irq.enable(1);
      const signals = irq.vector(0).signals();
      for (let time = 0; time < 2; time++) {
        // Asked for first, which unmasks INTx: mtty forgets what it cannot signal.
        const signal = signals.next();
        await uart.write8(Uart.interruptEnable, TRANSMITTER_EMPTY);
        equal((await signal).done, false);
      }
      await irq.disable();
    }
    await device.dma.allocate(4096);
    await rejects(device.hotReset(), { code: 'ERR_VFIO_USER_UNSUPPORTED' });
    // It does not say that it has one.
    equal((await device.info()).resettable, false);
    await device.reset();
  },

  /** The state of one goes into the other, read while the first one runs, and while it does not. */
  migrates: async ({ address, other, through }) => {
    await using source = await openPci(address, { through });
    await using target = await openPci(other, { through });
    deepEqual(await source.migration.supported(), { stopCopy: true, preCopy: true, p2p: true });
    const [from, to] = [await source.region('bar1'), await target.region('bar1')];
    for (const preCopy of [false, true]) {
      await fill(from);
      equal(await contents(to), '');
      await pipeline(source.migration.createReadStream({ preCopy }), target.migration.createWriteStream());
      equal(await source.migration.state(), 'stop');
      equal(await target.migration.state(), 'running');
      const state = await saved(source);
      deepEqual(await saved(target), state);
      equal(Buffer.from(await source.feature.get(DATA_SIZE)).readUInt32LE(), state.length);
      for (const device of [source, target]) await device.migration.setState('running');
      equal(await to.read8(Uart.scratch), 0x5a);
      equal(await to.read8(Uart.lineControl), 3);
      equal(await contents(to), TEXT.toString());
    }
    await source.migration.setState('preCopy');
    deepEqual(await source.migration.preCopyInfo(), { initialBytes: HEADER, dirtyBytes: 0 });
    equal((await source.migration.readData(1000)).length, HEADER);
    deepEqual(await source.migration.preCopyInfo(), { initialBytes: 0, dirtyBytes: 0 });
    await source.migration.setState('running');
    await rejects(source.migration.preCopyInfo(), { code: 'ERR_VFIO_USER_SYSTEM' });
  },

  /** What is no state of it is refused, and the device goes on. */
  'no-state': async ({ address, through }) => {
    await using device = await openPci(address, { through });
    const state = await saved(device);
    await device.migration.setState('running');
    for (const [bad, errnoName] of [
      [Buffer.concat([state, state]), 'ENOMEM'],
      [Buffer.alloc(state.length), 'EFAULT'],
    ] as const) {
      await rejects(pipeline([bad], device.migration.createWriteStream()), { errnoName, syscall: 'write' });
      equal(await device.migration.state(), 'running');
    }
    await rejects(pipeline([state.subarray(1)], device.migration.createWriteStream()), (error: Error) => {
      match(error.message, /EFAULT/);
      return true;
    });
    await rejects(pipeline([state.subarray(0, HEADER)], device.migration.createWriteStream()), {
      code: 'ERR_VFIO_USER_MIGRATION',
      message: /failed to go from resuming to stop \(EINVAL\); it is in state resuming now/,
    });
    equal(await device.migration.state(), 'running');
    await pipeline([state], device.migration.createWriteStream());
  },

  /** It logs what it writes, and says that this is nothing. */
  logs: async ({ address, through }) => {
    await using device = await openPci(address, { through });
    ok(await device.dirtyLog.supported());
    const memory = await device.dma.allocate(1 << 20);
    for (let round = 0; round < 2; round++) {
      await device.dirtyLog.start();
      deepEqual([...(await device.dirtyLog.report(memory.iova, memory.size))], []);
      await device.dirtyLog.stop();
    }
  },
};
