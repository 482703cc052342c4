// SPDX-License-Identifier: MIT
import type { IovaSpan } from '../dma/iova-spans';
import { VfioUserError } from '../errors';

/** What a container of type 1 tells of its IOMMU (`linux/vfio.h`, `struct vfio_iommu_type1_info`). */
export interface IommuInfo {
  /** Smallest page that can be mapped, in bytes. */
  readonly pageSize: number;
  /** Addresses that can be mapped; undefined before Linux 5.4, which does not tell. */
  readonly spans: readonly IovaSpan[] | undefined;
  /** Mappings that can still be made; undefined before Linux 5.10. */
  readonly available: number | undefined;
  /** Whether the container logs writes by its smallest page (`struct vfio_iommu_type1_info_cap_migration`). */
  readonly logs: boolean;
}

const FLAGS = { pageSizes: 1 << 0, capabilities: 1 << 1 } as const;
const CAPABILITY = { iovaRange: 1, migration: 2, dmaAvailable: 3 } as const;
/** Bytes of the structure up to its capabilities, and of the header of each. */
const HEAD = 24;
const HEADER = 8;
const SPAN = 16;

/** Decodes the answer to `VFIO_IOMMU_GET_INFO`. */
export function decodeIommuInfo(bytes: Uint8Array): IommuInfo {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const flags = view.getUint32(4, true);
  const sizes = view.getBigUint64(8, true);
  const known = (flags & FLAGS.pageSizes) !== 0 && sizes !== 0n;
  let spans: IovaSpan[] | undefined;
  let available: number | undefined;
  let logs = false;
  const first = (flags & FLAGS.capabilities) !== 0 ? view.getUint32(16, true) : 0;
  // Offsets only grow, which the kernel's do, so that the walk ends.
  for (let at = first, last = 0; at > last; last = at, at = view.getUint32(at + 4, true)) {
    if (at < HEAD || at + HEADER > bytes.length) throw broken(`a capability is at ${at}`);
    const id = view.getUint16(at, true);
    if (id === CAPABILITY.iovaRange) spans = readSpans(view, at + HEADER);
    if (id === CAPABILITY.migration) logs = true;
    if (id === CAPABILITY.dmaAvailable) available = view.getUint32(at + HEADER, true);
  }
  return { pageSize: known ? Number(sizes & -sizes) : 4096, spans, available, logs };
}

function readSpans(view: DataView, at: number): IovaSpan[] {
  const count = view.getUint32(at, true);
  if (at + 8 + count * SPAN > view.byteLength) throw broken(`it has ${count} ranges`);
  return Array.from({ length: count }, (_, index) => ({
    first: view.getBigUint64(at + 8 + index * SPAN, true),
    last: view.getBigUint64(at + 16 + index * SPAN, true),
  }));
}

function broken(what: string): VfioUserError {
  return new VfioUserError(
    'ERR_VFIO_USER_SYSTEM',
    `The kernel's answer to VFIO_IOMMU_GET_INFO cannot be read: ${what}`,
  );
}
