// SPDX-License-Identifier: MIT
import { PciCommand, PciConfig, type Bar, type ConfigHeader } from './config-header';
import type { DeviceRegion } from './device';

/** A base address register as its writable bits show it. */
export interface ProbedBar {
  /** Index of the (lower) register, 0 to 5. */
  readonly index: number;
  /** How the register says that its region is addressed. */
  readonly kind: Bar['kind'];
  /** Bytes; 0 when the register is not implemented. One of 2^53 or more is rounded. */
  readonly size: number;
}

/**
 * Sizes BARs by writing ones: the bits that stay 0 are below the size (PCI Local Bus 3.0, 6.2.5.1). Every register has its
 * value again afterwards, also after a failure.
 */
export async function probeBars(config: DeviceRegion, header: ConfigHeader): Promise<readonly ProbedBar[]> {
  const command = await config.read16(PciConfig.command);
  await config.write16(PciConfig.command, command & ~(PciCommand.memory | PciCommand.io));
  try {
    const probed: ProbedBar[] = [];
    for (const { index, kind } of header.bars) {
      const low = await probe(config, index);
      if (kind === 'io') {
        // The upper 16 bits of an I/O BAR may be hard-wired to 0.
        const mask = low & 0xfffc;
        probed.push({ index, kind, size: mask === 0 ? 0 : ((~low & 0xffff) | 3) + 1 });
        continue;
      }
      const high = kind === 'memory64' ? await probe(config, index + 1) : 0xffff_ffff;
      const address = BigInt(high) * 0x1_0000_0000n + BigInt((low & ~0xf) >>> 0);
      const empty = kind === 'memory64' ? address === 0n : (low & ~0xf) === 0;
      probed.push({ index, kind, size: empty ? 0 : Number(BigInt.asUintN(64, -address)) });
    }
    return probed;
  } finally {
    await config.write16(PciConfig.command, command);
  }
}

async function probe(config: DeviceRegion, index: number): Promise<number> {
  const offset = PciConfig.bar0 + 4 * index;
  const value = await config.read32(offset);
  await config.write32(offset, 0xffff_ffff);
  try {
    return await config.read32(offset);
  } finally {
    await config.write32(offset, value);
  }
}
