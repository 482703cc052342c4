// SPDX-License-Identifier: MIT
/** What guests try on the kernel's VFIO: `kernel-device WHAT ADDRESS… WAY`. Throws when it is not so. */
import { equal, match, ok, rejects } from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { DmaContainer, openPci, type KernelDevice, type OpenPciOptions } from '../../../lib';
import { NvmeController } from '../../../lib/nvme';
import { CONFORMANCE } from '../../support/device-conformance';

const [what = '', ...words] = process.argv.slice(2);
const through = words.pop() as NonNullable<OpenPciOptions['through']>;
const [address = '', other = ''] = words;
const ONES = 0xffff_ffff;
const open = (at: string, options: OpenPciOptions = {}): Promise<KernelDevice> =>
  openPci(at, { through, ...options });

/** Sets the queues of a controller to addresses that are not mapped, and has it fetch from there. */
async function astray(device: KernelDevice): Promise<void> {
  const bar = await device.region('bar0');
  await device.pci.enable({ memory: true, busMaster: true });
  await bar.write32(0x14, 0);
  await bar.write32(0x24, 0x001f_001f);
  await bar.write64(0x28, 0x1_2345_6000n);
  await bar.write64(0x30, 0x1_2345_7000n);
  await bar.write32(0x14, 0x0046_0001);
  await bar.write32(0x1000, 1);
}

const PARTS: Readonly<Record<string, () => Promise<void>>> = {
  conformance: async () => {
    const device = await open(address);
    equal(device.through, through);
    for (const [name, check] of Object.entries(CONFORMANCE)) {
      console.log(name);
      await check(device);
    }
  },

  /** Registers are away while decoding is off, and come back, in mappings that are there all the time. */
  away: async () => {
    await using device = await open(address);
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
  shared: async () => {
    const dma = new DmaContainer();
    const [first, second] = [await open(address, { dma }), await open(other, { dma })];
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
  addresses: async () => {
    await using device = await open(address);
    // Where interrupts of x86 are: the kernel reserves it.
    await rejects(
      device.dma.map({ iova: 0xfee0_0000, size: 4096, fd: (await device.dma.allocate(4096)).fd }),
      {
        code: 'ERR_VFIO_USER_DMA',
        message: /is not within the addresses that the IOMMU lets/,
      },
    );
    await rejects(device.dma.map({ iova: 0x10_0000, size: 4096 }), {
      code: 'ERR_VFIO_USER_DMA',
      message: /by messages/,
    });
  },

  /** A process without rights, whose limit is too low. */
  memlock: async () => {
    const device = await open(address);
    process.setgid?.(1000);
    process.setuid?.(1000);
    await rejects(device.dma.allocate(64 << 20), {
      errnoName: 'ENOMEM',
      message: /this process may lock \d+ bytes \(RLIMIT_MEMLOCK\)/,
    });
    await device.close();
  },

  permission: async () => {
    process.setgid?.(1000);
    process.setuid?.(1000);
    await rejects(open(address), { code: 'ERR_VFIO_USER_CONNECT', message: /permission denied.*chown/ });
  },

  /** The device of another process. */
  busy: async () => {
    await using device = await open(address);
    const rest = process.argv.slice(1, 2);
    const { stdout, status } = spawnSync('node', [...rest, 'refused', address, through], {
      encoding: 'utf8',
    });
    equal(status, 0);
    match(stdout, /ERR_VFIO_USER_BUSY .*another process uses it/);
    ok(!device.closed);
  },

  refused: async () => {
    await open(address).then(
      () => {
        throw new Error('it was not refused');
      },
      (error: unknown) => {
        console.log((error as { code: string }).code, (error as Error).message);
      },
    );
  },

  'no-hot-reset': async () => {
    await using device = await open(address);
    await rejects(device.hotReset(), {
      code: 'ERR_VFIO_USER_UNSUPPORTED',
      message: /neither its bus nor its slot can be reset by itself/,
    });
  },

  fault: async () => {
    await using device = await open(address);
    await astray(device);
    await new Promise((resolve) => setTimeout(resolve, 500));
  },

  /** Waits until the device is asked back, which ends the wait: the kernel waits for us. */
  wait: async () => {
    const device = await open(address);
    const keepAlive = setInterval(() => undefined, 1000);
    console.log('waiting');
    const [error] = (await once(device, 'close')) as [Error];
    clearInterval(keepAlive);
    match(error.message, /was asked back/);
    await device.close();
  },

  /** Is killed while it has the device at work. */
  killed: async () => {
    const device = await open(address);
    await NvmeController.attach(device, { vectors: 1 });
    console.log(readFileSync('/proc/self/stat', 'utf8').split(' ')[0]);
    process.kill(process.pid, 'SIGKILL');
  },
};

PARTS[what]?.().then(
  () => {
    console.log('so it is');
  },
  (error: unknown) => {
    console.error(error);
    process.exitCode = 1;
  },
);
