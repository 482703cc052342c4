// SPDX-License-Identifier: MIT

/** A function that a hot reset concerns (`linux/vfio.h`, `struct vfio_pci_dependent_device`). */
export interface DependentFunction {
  /** Such as `0000:01:00.0`. */
  readonly address: string;
  /** Number of its IOMMU group; undefined for a device that was opened by itself, where the kernel tells `owned`. */
  readonly group: number | undefined;
  /** Whether this process has it, as far as the kernel tells. */
  readonly owned: boolean | undefined;
}

/** What a hot reset concerns, and whether it can be had. */
export interface HotResetInfo {
  readonly functions: readonly DependentFunction[];
  /** Whether all of them are this process's; undefined when their groups have to prove that. */
  readonly owned: boolean | undefined;
}

const FLAG = { deviceId: 1 << 0, owned: 1 << 1 } as const;
const NOT_OWNED = 0xffff_ffff;
const HEAD = 12;
const ENTRY = 8;

/** Decodes the answer to `VFIO_DEVICE_GET_PCI_HOT_RESET_INFO`. */
export function decodeHotResetInfo(bytes: Uint8Array): HotResetInfo {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const flags = view.getUint32(4, true);
  const count = Math.min(view.getUint32(8, true), Math.floor((bytes.length - HEAD) / ENTRY));
  const byDevice = (flags & FLAG.deviceId) !== 0;
  const functions = Array.from({ length: count }, (_, index): DependentFunction => {
    const at = HEAD + index * ENTRY;
    const id = view.getUint32(at, true);
    const devfn = view.getUint8(at + 7);
    const address = `${hex(view.getUint16(at + 4, true), 4)}:${hex(view.getUint8(at + 6), 2)}:${hex(devfn >> 3, 2)}.${devfn & 7}`;
    return byDevice
      ? { address, group: undefined, owned: id !== NOT_OWNED }
      : { address, group: id, owned: undefined };
  });
  return { functions, owned: byDevice ? (flags & FLAG.owned) !== 0 : undefined };
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, '0');
}
