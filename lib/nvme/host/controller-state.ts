// SPDX-License-Identifier: MIT
/** What a host does with the registers CC and CSTS: enable, disable, shut down (NVMe base 2.0, 3.1.3.5, 3.1.3.6). */
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { VfioUserError } from '../../errors';
import type { Device, DeviceRegion } from '../../pci';
import {
  CQE_SIZE_EXPONENT,
  Register,
  SQE_SIZE_EXPONENT,
  ShutdownNotification,
  ShutdownStatus,
  adminQueueAttributes,
  controllerConfiguration,
  controllerStatus,
} from '../spec';
import type { QueuePairPlacement } from './queue-pair';

/** How often registers are read while the controller becomes ready. */
const POLL_MILLISECONDS = 1;
/** How long to wait for a shutdown to complete (NVMe base 2.0, 3.6.1; RTD3E is seldom given). */
const SHUTDOWN_TIMEOUT = 10_000;
/** How long to wait for a shutdown while the process exits. */
const EXIT_TIMEOUT = 1000;

/** Disables the controller if it is enabled; that is also what ends a fatal error (NVMe base 2.0, 3.7.2). */
export async function disable(device: Device, bar: DeviceRegion, timeout: number): Promise<void> {
  const cc = await bar.read32(Register.cc);
  if (!controllerConfiguration.decode(cc).enable) return;
  await bar.write32(Register.cc, (cc & ~1) >>> 0);
  await waitFor(device, bar, timeout, 'become disabled', (csts) => !controllerStatus.decode(csts).ready);
}

/** Sets up the admin queue and enables the controller. */
export async function enable(
  device: Device,
  bar: DeviceRegion,
  base: number,
  placement: QueuePairPlacement,
  timeout: number,
): Promise<void> {
  const { entries, submissionOffset, completionOffset } = placement;
  await bar.write32(
    Register.aqa,
    adminQueueAttributes.encode({ submissionEntries: entries, completionEntries: entries }),
  );
  await bar.write64(Register.asq, BigInt(base + submissionOffset));
  await bar.write64(Register.acq, BigInt(base + completionOffset));
  // The whole register: controllers clear it with CC.EN (SPDK), so entry sizes are set at every enable.
  const cc = controllerConfiguration.encode({
    enable: true,
    iosqes: SQE_SIZE_EXPONENT,
    iocqes: CQE_SIZE_EXPONENT,
  });
  await bar.write32(Register.cc, cc);
  await waitFor(device, bar, timeout, 'become ready', (csts) => {
    const { ready, fatal } = controllerStatus.decode(csts);
    if (fatal) {
      throw new VfioUserError(
        'ERR_VFIO_USER_NVME_CONTROLLER',
        `${device.name} reports a fatal error (CSTS 0x${csts.toString(16)}) where it should become ready; look at the log of its server`,
      );
    }
    return ready;
  });
}

/** Shuts the controller down (NVMe base 2.0, 3.6.1), then disables it. One that somebody has disabled has nothing to shut down. */
export async function shutDown(device: Device, bar: DeviceRegion): Promise<void> {
  const cc = await bar.read32(Register.cc);
  if (!controllerConfiguration.decode(cc).enable) return;
  await bar.write32(Register.cc, withShutdown(cc));
  await waitFor(device, bar, SHUTDOWN_TIMEOUT, 'complete its shutdown', isShutDown);
  await bar.write32(Register.cc, 0);
}

/** Registers of the controllers that are shut down when the process exits. */
const live = new Set<DeviceRegion>();

/**
 * Shuts a controller down when the process exits, as far as that is possible.
 *
 * @returns a function that leaves it alone from then on
 */
export function shutDownAtExit(bar: DeviceRegion): () => void {
  if (live.size === 0) process.on('exit', shutDownAll);
  live.add(bar);
  return () => {
    live.delete(bar);
    if (live.size === 0) process.off('exit', shutDownAll);
  };
}

/** With blocking messages, and less patience: nothing but this loop runs while the process exits. */
function shutDownAll(): void {
  for (const bar of live) {
    try {
      bar.write32Sync(Register.cc, withShutdown(bar.read32Sync(Register.cc)));
      const deadline = performance.now() + EXIT_TIMEOUT;
      while (!isShutDown(bar.read32Sync(Register.csts)) && performance.now() < deadline);
    } catch {
      // The device is gone, or does not answer; the process ends anyway.
    }
  }
}

async function waitFor(
  device: Device,
  bar: DeviceRegion,
  timeout: number,
  what: string,
  done: (csts: number) => boolean,
): Promise<void> {
  const deadline = performance.now() + timeout;
  for (;;) {
    const csts = await bar.read32(Register.csts);
    if (done(csts)) return;
    if (performance.now() > deadline) {
      throw new VfioUserError(
        'ERR_VFIO_USER_NVME_CONTROLLER',
        `${device.name} did not ${what} within ${timeout} ms (CSTS 0x${csts.toString(16)})`,
      );
    }
    await sleep(POLL_MILLISECONDS);
  }
}

function withShutdown(cc: number): number {
  return ((cc & ~(3 << 14)) | (ShutdownNotification.normal << 14)) >>> 0;
}

/** A controller with a fatal error shuts down no more. */
function isShutDown(csts: number): boolean {
  const { shutdown, fatal } = controllerStatus.decode(csts);
  return fatal || shutdown === ShutdownStatus.complete;
}
