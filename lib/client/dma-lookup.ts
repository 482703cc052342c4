// SPDX-License-Identifier: MIT
import { VfioUserError } from '../errors';
import { formatRange, type IovaMap } from '../pci/iova-map';
import type { DmaRange } from './dma-range';

/** Bytes of our own memory. */
export interface MemoryPart {
  readonly buffer: ArrayBuffer;
  readonly offset: number;
  readonly length: number;
}

/**
 * The memory of this process that a DMA_READ or DMA_WRITE reaches, in order.
 *
 * @throws VfioUserError ERR_VFIO_USER_DMA when a byte is not mapped, not for this access, or without memory of ours
 */
export function accessible(
  ranges: IovaMap<DmaRange>,
  iova: bigint,
  length: number,
  access: 'read' | 'write',
): MemoryPart[] {
  const segments = ranges.lookup(iova, length);
  const asked = `the device asked to ${access} ${formatRange({ iova, size: length })}, which`;
  if (segments === undefined) {
    throw new VfioUserError('ERR_VFIO_USER_DMA', `${asked} is not mapped. Mapped: ${ranges.dump()}`);
  }
  return segments.map(({ range, offset, length: part }) => {
    if (range.access !== 'readwrite' && range.access !== access)
      throw new VfioUserError('ERR_VFIO_USER_DMA', `${asked} is mapped for ${range.access} only`);
    if (range.mapping === null)
      throw new VfioUserError('ERR_VFIO_USER_DMA', `${asked} was mapped without memory of this process`);
    return { buffer: range.mapping.buffer, offset, length: part };
  });
}
