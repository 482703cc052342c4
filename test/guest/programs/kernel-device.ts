// SPDX-License-Identifier: MIT
/**
 * What guests try on the kernel's VFIO. `kernel-device PART ADDRESS… WAY` does one part; `kernel-device` alone does those that
 * it reads from stdin, one a line, since Node.js takes long to start on an emulated processor. Each ends with a line `so it is` or `not so`.
 */
import { equal, match, ok, rejects } from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { DmaContainer, openPci, type KernelDevice, type OpenPciOptions } from '../../../lib';
import { NvmeController } from '../../../lib/nvme';
import { CONFORMANCE } from '../../support/device-conformance';
import { AdminByHand } from './admin-by-hand';
import { figures } from './kernel-figures';
import { MEDIATED_PARTS } from './mediated-device';
import { PROXIED_PARTS } from './proxied-device';

const ONES = 0xffff_ffff;
type Through = NonNullable<OpenPciOptions['through']>;

/** What a part is given. */
interface Place {
  readonly address: string;
  /** Of a second device. */
  readonly other: string;
  readonly through: Through;
}

const open = ({ address, through }: Place, options: OpenPciOptions = {}): Promise<KernelDevice> =>
  openPci(address, { through, ...options });

/** Gives up the rights of root, for good. */
function becomeUser(): void {
  process.setgid?.(1000);
  process.setuid?.(1000);
}

const KINDS = ['intx', 'msi', 'msix'] as const;

/** Two commands by each kind of interrupt that the device has, one after the other. */
async function interrupts(device: KernelDevice): Promise<void> {
  for (const kind of KINDS) {
    const irq = await device.irq(kind);
    console.log(kind, irq.count);
    if (irq.count === 0) continue;
    await irq.enable(1);
    const signals = irq.vector(0).signals();
    const admin = await AdminByHand.enable(device);
    await admin.ready();
    for (let command = 0; command < 2; command++) {
      admin.submit();
      // A line that others share, or that falls a moment later, may signal once more than there are causes.
      do ok((await signals.next()).done !== true);
      while (!admin.isDone);
      admin.take();
    }
    await irq.disable();
    await device.reset();
  }
}

const PARTS: Readonly<Record<string, (place: Place) => Promise<void>>> = {
  ...MEDIATED_PARTS,
  ...PROXIED_PARTS,

  conformance: async (place) => {
    const device = await open(place);
    equal(device.through, place.through);
    for (const [name, check] of Object.entries(CONFORMANCE)) {
      console.log(name);
      await check(device);
    }
  },

  interrupts: async (place) => {
    await using device = await open(place);
    await interrupts(device);
  },

  figures: async (place) => {
    await using device = await open(place);
    await figures(device);
  },

  /** Registers are away while decoding is off, and come back, in mappings that are there all the time. */
  away: async (place) => {
    await using device = await open(place);
    const bar = await device.region('bar0');
    await device.pci.enable({ memory: true });
    const version = await bar.read32(8);
    const mapped = new Uint32Array(bar.map(0, 4096).buffer);
    equal(mapped[2], version);
    for (let round = 0; round < 3; round++) {
      await device.pci.enable({ memory: false });
      equal(mapped[2], ONES);
      mapped[3] = 0;
      await rejects(bar.read32(8), { errnoName: 'EIO', syscall: 'pread' });
      await device.pci.enable({ memory: true });
      equal(mapped[2], version);
    }
    await device.reset();
    await device.pci.enable({ memory: true });
    equal(mapped[2], version);
  },

  /** Two devices in one container have the same memory, and one goes without the other. */
  shared: async (place) => {
    const dma = new DmaContainer();
    const [first, second] = [
      await open(place, { dma }),
      await open({ ...place, address: place.other }, { dma }),
    ];
    const controllers = [await NvmeController.attach(first), await NvmeController.attach(second)];
    const memory = await dma.allocate(8192);
    const bytes = new Uint8Array(memory.buffer);
    bytes.fill(0x5a, 0, 4096);
    for (const controller of controllers) {
      const namespace = controller.namespace(1);
      const blocks = 4096 / namespace.blockSize;
      await namespace.write(memory, { lba: 0, blocks });
      bytes.fill(0, 4096);
      await namespace.read(memory, { lba: 0, blocks, offset: 4096 });
      ok(bytes.subarray(4096).every((byte) => byte === 0x5a));
      await controller.close();
    }
    await first.close();
    await dma.allocate(4096);
    await second.close();
    dma.close();
  },

  /** What the IOMMU does not let be mapped is refused before it is tried. */
  addresses: async (place) => {
    await using device = await open(place);
    // Where interrupts of x86 are: the kernel reserves it.
    await rejects(
      device.dma.map({ iova: 0xfee0_0000, size: 4096, fd: (await device.dma.allocate(4096)).fd }),
      { code: 'ERR_VFIO_USER_DMA', message: /is not within the addresses that the IOMMU lets/ },
    );
    await rejects(device.dma.map({ iova: 0x10_0000, size: 4096 }), {
      code: 'ERR_VFIO_USER_DMA',
      message: /by messages/,
    });
  },

  /** A process without rights, whose limit is too low. */
  memlock: async (place) => {
    const device = await open(place);
    becomeUser();
    await rejects(device.dma.allocate(64 << 20), {
      errnoName: 'ENOMEM',
      message: /this process may lock \d+ bytes \(RLIMIT_MEMLOCK\)/,
    });
    await device.close();
  },

  permission: async (place) => {
    becomeUser();
    await rejects(open(place), { code: 'ERR_VFIO_USER_CONNECT', message: /permission denied.*chown/ });
  },

  /** The device of another process. */
  busy: async (place) => {
    await using device = await open(place);
    const program = process.argv.slice(1, 2);
    const { stdout } = spawnSync('node', [...program, 'refused', place.address, place.through], {
      encoding: 'utf8',
    });
    match(stdout, /ERR_VFIO_USER_BUSY .*another process uses it/);
    ok(!device.closed);
  },

  refused: async (place) => {
    await open(place).then(
      () => {
        throw new Error('it was not refused');
      },
      (error: unknown) => {
        console.log((error as { code: string }).code, (error as Error).message);
      },
    );
  },

  /** The events that are no interrupts of the device: an error of its bus, and that it is asked back. The kernel signals them on demand. */
  events: async (place) => {
    const device = await open(place);
    const err = await device.irq('err');
    await err.enable(1);
    const signals = err.vector(0).signals();
    await err.trigger();
    equal((await signals.next()).done, false);
    const closed = once(device, 'close') as Promise<[Error]>;
    await (await device.irq('req')).trigger();
    match((await closed)[0].message, /was asked back/);
    ok(device.closed);
  },

  /** A container counts all that is mapped as written; an iommufd asks the IOMMU, and none that is emulated logs. */
  dirty: async (place) => {
    await using device = await open(place);
    const PAGES = 64;
    const memory = await device.dma.allocate(PAGES * 4096);
    equal(await device.dirtyLog.supported(), place.through === 'group');
    if (place.through === 'iommufd') {
      await rejects(device.dirtyLog.start(), { code: 'ERR_VFIO_USER_UNSUPPORTED' });
      return;
    }
    await device.dirtyLog.start();
    equal([...(await device.dirtyLog.report(memory.iova, memory.size))].length, PAGES);
    await device.dirtyLog.stop();
  },

  /** A virtual function, whose physical one is bound to vfio-pci too. Linux has no tokens for an iommufd before 6.17. */
  token: async (place) => {
    const vfToken = 'bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3';
    const virtual = { ...place, address: place.other };
    await using physical = await open(place, { vfToken });
    equal(physical.through, 'group');
    // Both are on one bus, and the IOMMU keeps them apart.
    await rejects(physical.hotReset(), {
      code: 'ERR_VFIO_USER_UNSUPPORTED',
      message: new RegExp(`that would reset ${place.other} too; open what is reset with the same container`),
    });
    await rejects(open(virtual), {
      code: 'ERR_VFIO_USER_CONNECT',
      message: new RegExp(`wants a VF token .* virtual function of ${place.address}`),
    });
    await rejects(open(virtual, { vfToken: vfToken.replace('b', 'c') }), { message: /has another VF token/ });
    await using device = await open(virtual, { vfToken });
    equal((await device.pci.header()).classCode, (await physical.pci.header()).classCode);
  },

  /** The bus is reset, with all that is on it: a controller that was enabled is not, and its registers are there again. */
  'hot-reset': async (place) => {
    await using device = await open(place);
    const admin = await AdminByHand.enable(device);
    await admin.ready();
    const memory = await device.dma.allocate(4096);
    await device.hotReset();
    await device.pci.enable({ memory: true });
    equal((await admin.bar.read32(0x1c)) & 1, 0, 'CSTS.RDY');
    equal(memory.buffer.byteLength, 4096);
    await interrupts(device);
  },

  'no-hot-reset': async (place) => {
    await using device = await open(place);
    await rejects(device.hotReset(), {
      code: 'ERR_VFIO_USER_UNSUPPORTED',
      message: /neither its bus nor its slot can be reset by itself/,
    });
  },

  /** Its queues are where nothing is mapped, and it fetches from there. */
  fault: async (place) => {
    await using device = await open(place);
    const admin = await AdminByHand.enable(device, 0x1_2345_6000);
    admin.submit();
    // The controller finds that it cannot go on (CSTS.CFS), or says nothing.
    for (let look = 0; look < 100; look++) if (((await admin.bar.read32(0x1c)) & 2) !== 0) break;
  },

  /** Reads until the device is asked back, which ends the reads: the kernel waits for us. */
  wait: async (place) => {
    const device = await open(place);
    const closed = once(device, 'close') as Promise<[Error]>;
    const controller = await NvmeController.attach(device, { vectors: 2 });
    const memory = await device.dma.allocate(4096);
    console.log('waiting');
    await rejects(async () => {
      for (;;) await controller.namespace(1).read(memory, { lba: 0, blocks: 8 });
    });
    match((await closed)[0].message, /was asked back/);
    await device.close();
  },

  /** Is killed while it has the device at work. */
  killed: async (place) => {
    await NvmeController.attach(await open(place), { vectors: 1 });
    process.kill(process.pid, 'SIGKILL');
  },

  /** Without an IOMMU a device is had on demand alone, with a warning; it interrupts, and is given no memory. */
  noiommu: async (place) => {
    await rejects(open(place), {
      code: 'ERR_VFIO_USER_CONNECT',
      message: /without an IOMMU.*the option noiommu/,
    });
    const warned = once(process, 'warning') as Promise<[Error]>;
    await using device = await open(place, { noiommu: true });
    equal(device.through, 'noiommu');
    match((await warned)[0].message, /it can write any memory of the system/);
    await device.pci.enable({ memory: true });
    equal((await (await device.region('bar0')).read32(8)) >>> 16, 1);
    const irq = await device.irq('msix');
    await irq.enable(1);
    const signals = irq.vector(0).signals();
    await irq.trigger({ start: 0, count: 1 });
    equal((await signals.next()).done, false);
    await rejects(device.dma.allocate(4096), { message: /Without an IOMMU/ });
  },
};

/** Does a part, and tells how it ended. */
async function part(line: string): Promise<boolean> {
  const [what = '', ...words] = line.split(' ');
  const through = words.pop() as Through;
  const [address = '', other = ''] = words;
  const run = PARTS[what];
  try {
    if (run === undefined) throw new Error(`there is no part ${what}`);
    await run({ address, other, through });
    console.log('so it is');
    return true;
  } catch (error) {
    console.log(error);
    console.log(String(error));
    console.log('not so');
    return false;
  }
}

async function serve(): Promise<void> {
  for await (const line of createInterface({ input: process.stdin })) await part(line);
}

const words = process.argv.slice(2);
if (words.length === 0) void serve();
else
  void part(words.join(' ')).then((so) => {
    process.exitCode = so ? 0 : 1;
  });
