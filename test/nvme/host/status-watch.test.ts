// SPDX-License-Identifier: MIT
/** A controller that fails while commands are outstanding, as CSTS tells (NVMe base 2.0, 9.5): who notices, and what follows. */
import type { NvmeAttachOptions, NvmeController, QueueLoss } from '../../../lib/nvme/host';
import { StatusWatch, type StatusProblem } from '../../../lib/nvme/host/status-watch';
import { NvmeController as Controller } from '../../../lib/nvme/host';
import type { DeviceRegion } from '../../../lib/pci';
import { QUICK } from '../../client/reconnect-support';
import { atEnd, until } from '../../client/support';
import { rejection } from '../../support/errors';
import { attached, onRead, served, type World } from './support';

const CSTS = 0x1c;

describe('when the register is read', () => {
  /** CSTS as it is read next. */
  let csts = 1;
  let reads = 0;
  const answers: (() => void)[] = [];
  const problems: StatusProblem[] = [];
  const queue = { outstanding: 1, completed: 0 };
  let watch: StatusWatch;

  beforeEach(() => {
    jest.useFakeTimers();
    csts = 1;
    reads = 0;
    problems.length = answers.length = 0;
    Object.assign(queue, { outstanding: 1, completed: 0 });
    const read32 = (offset: number): Promise<number> => {
      expect(offset).toBe(CSTS);
      reads++;
      return new Promise((resolve) =>
        answers.push(() => {
          resolve(csts);
        }),
      );
    };
    watch = new StatusWatch({ read32 } as unknown as DeviceRegion);
    watch.queues.add(queue);
    watch.onProblem = (problem) => void problems.push(problem);
  });
  afterEach(() => {
    watch.stop();
    jest.useRealTimers();
  });

  async function answered(): Promise<void> {
    answers.shift()!();
    await Promise.resolve();
    await Promise.resolve();
  }

  test('never while commands are completed, and not when none is outstanding', () => {
    watch.begin();
    for (let i = 0; i < 100; i++) {
      queue.completed++;
      jest.advanceTimersByTime(50);
    }
    expect(reads).toBe(0);
    queue.outstanding = 0;
    jest.advanceTimersByTime(1000);
    expect(reads).toBe(0);
    expect(jest.getTimerCount()).toBe(0);
  });

  test('about every 100 ms while nothing is completed, one question at a time', async () => {
    watch.begin();
    jest.advanceTimersByTime(150);
    expect(reads).toBe(1);
    jest.advanceTimersByTime(1000);
    expect(reads).toBe(1);
    await answered();
    jest.advanceTimersByTime(100);
    expect(reads).toBe(2);
    expect(problems).toEqual([]);
  });

  // NVMe base 2.0, 3.1.3.6: RDY is bit 0, CFS bit 1. PCI Express base 5.0, 2.3.2: what is not there reads as ones.
  test.each([
    [0x3, 'has failed with a fatal error (CFS, CSTS 0x3)', true],
    [0x2, 'has failed with a fatal error (CFS, CSTS 0x2)', true],
    [0x0, 'is not ready any more (CSTS 0x0): somebody has reset it', true],
    [0xffff_ffff, 'is gone: its registers read as ones, as if it had been pulled out', false],
  ])('a problem: %i %s', async (value, text, resettable) => {
    csts = value;
    watch.begin();
    jest.advanceTimersByTime(150);
    await answered();
    expect(problems).toEqual([{ text, resettable }]);
  });

  test('an answer that comes when the commands are others says nothing of them', async () => {
    csts = 0x3;
    watch.begin();
    jest.advanceTimersByTime(150);
    watch.stop();
    watch.begin();
    await answered();
    expect(problems).toEqual([]);
  });
});

interface Losses {
  readonly losses: (readonly [message: string, loss: QueueLoss])[];
  readonly restarts: number;
}

/** What the controller tells of its losses. */
function lossesOf(nvme: NvmeController): Losses {
  const seen = { losses: [] as [string, QueueLoss][], restarts: 0 };
  nvme.on('disconnect', (error, loss) => seen.losses.push([error.message, loss]));
  nvme.on('reconnect', () => seen.restarts++);
  return seen;
}

async function brought(options: NvmeAttachOptions): Promise<World & { nvme: NvmeController }> {
  return attached({}, options);
}

describe('a reset', () => {
  test.each([
    ['polled', {}],
    ['with interrupts', { vectors: 2 }],
  ])('brings the controller back: reads are sent again, queues go on (%s)', async (_name, options) => {
    const { model, device, nvme } = await brought({ ...options, autoReset: true });
    const seen = lossesOf(nvme);
    const memory = await device.dma.allocate(8192);
    new Uint8Array(memory.buffer, 0, 512).fill(0x5a);
    const namespace = nvme.namespace(1);
    await namespace.write(memory, { lba: 3, blocks: 1 });
    model.faults.add('on=read,count=1,fatal');
    await namespace.read(memory, { lba: 3, blocks: 1, offset: 4096 });
    expect(new Uint8Array(memory.buffer, 4096, 512).every((byte) => byte === 0x5a)).toBe(true);
    await until(() => seen.restarts === 1);
    expect(seen.losses).toEqual([
      [expect.stringMatching(/fatal error \(CFS.*: it is reset$/), { failed: 0, resubmitted: 1 }],
    ]);
    expect(nvme.namespace(1)).toBe(namespace);
    expect((await nvme.admin.identifyController()).sn).toBe('HOST');
    await namespace.write(memory, { lba: 4, blocks: 1 });
  });

  test('a write that was in flight fails, with what happened', async () => {
    const { model, device, nvme } = await brought({ autoReset: true });
    const memory = await device.dma.allocate(4096);
    model.faults.add('on=write,count=1,fatal');
    const error = await rejection(nvme.namespace(1).write(memory, { lba: 3, blocks: 1 }));
    expect(error).toMatchObject({
      code: 'ERR_VFIO_USER_NVME_CONTROLLER',
      message: expect.stringMatching(/fatal error \(CFS.*may or may not have been carried out: it is reset$/),
    });
    await nvme.namespace(1).write(memory, { lba: 3, blocks: 1 });
    // Those of the device still work, as that of the doorbells: nothing was mapped twice.
    await nvme.close();
    await (await Controller.attach(device)).close();
  });

  test('a controller that fails at every command is given up after three', async () => {
    const { model, device, nvme } = await brought({ autoReset: true });
    const seen = lossesOf(nvme);
    const closed = new Promise((resolve) => nvme.once('close', resolve));
    const memory = await device.dma.allocate(4096);
    model.faults.add('on=read,fatal');
    const error = await rejection(nvme.namespace(1).read(memory, { lba: 0, blocks: 1 }));
    expect(error).toMatchObject({ message: expect.stringContaining('attach to it anew') });
    expect(await closed).toBe(error);
    expect(seen).toMatchObject({ restarts: 3, losses: { length: 3 } });
    expect(model.faults.list()).toMatchObject([{ struck: 4 }]);
  });

  test('is made without being asked for where the device comes back too', async () => {
    const { model, device } = await served({}, { reconnect: QUICK });
    const nvme = await Controller.attach(device);
    atEnd(() => nvme.close());
    const memory = await device.dma.allocate(4096);
    model.faults.add('on=read,count=1,fatal');
    await nvme.namespace(1).read(memory, { lba: 0, blocks: 1 });
    expect(model.faults.list()).toMatchObject([{ struck: 1 }]);
  });

  test('is not made when it is declined', async () => {
    const { model, device } = await served({}, { reconnect: QUICK });
    const nvme = await Controller.attach(device, { autoReset: false });
    atEnd(() => nvme.close());
    const memory = await device.dma.allocate(4096);
    model.faults.add('on=read,count=1,fatal');
    await expect(nvme.namespace(1).read(memory, { lba: 0, blocks: 1 })).rejects.toMatchObject({
      code: 'ERR_VFIO_USER_NVME_CONTROLLER',
    });
  });
});

test('a controller that somebody has reset', async () => {
  const { model, device, nvme } = await brought({});
  const memory = await device.dma.allocate(4096);
  model.faults.add('on=read,nth=1,hang');
  const read = rejection(nvme.namespace(1).read(memory, { lba: 0, blocks: 1 }));
  await until(() => model.faults.list()[0]?.struck === 1);
  await model.reset();
  expect(await read).toMatchObject({ message: expect.stringContaining('is not ready any more (CSTS 0x0)') });
  await nvme.close();
});

test('a command that takes its time is waited for', async () => {
  const { model, device, nvme } = await brought({});
  let reads = 0;
  onRead(model, (offset) => {
    if (offset === CSTS) reads++;
  });
  const memory = await device.dma.allocate(4096);
  model.faults.add('on=read,nth=1,hang');
  model.faults.add('on=write,nth=1,delay=400ms');
  await nvme.namespace(1).write(memory, { lba: 0, blocks: 1 });
  expect(reads).toBeGreaterThan(0);
});
