// SPDX-License-Identifier: MIT
import { VfioUserError } from '../errors';
import { formatRange, type IovaMap } from '../pci/iova-map';
import type { DmaPlace, DmaRange } from './dma-range';

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
function accessible(
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
    if (range.memory === null)
      throw new VfioUserError('ERR_VFIO_USER_DMA', `${asked} was mapped without memory of this process`);
    return { buffer: range.memory.buffer, offset, length: part };
  });
}

/** Where `length` bytes at an address are; undefined when they are not mapped, or not within one range. */
export function placeOf(ranges: IovaMap<DmaRange>, iova: bigint, length: number): DmaPlace | undefined {
  const [segment, other] = ranges.lookup(iova, length) ?? [];
  if (segment === undefined || other !== undefined) return undefined;
  const { range, offset } = segment;
  return { range, offset, buffer: range.memory?.buffer ?? null };
}

/** Copies what a DMA_READ asks for; errors as {@link accessible}. */
export function readMemory(ranges: IovaMap<DmaRange>, iova: bigint, length: number): Uint8Array {
  const parts = accessible(ranges, iova, length, 'read');
  const data = new Uint8Array(length);
  let at = 0;
  for (const { buffer, offset, length: part } of parts) {
    data.set(new Uint8Array(buffer, offset, part), at);
    at += part;
  }
  return data;
}

/** Stores what a DMA_WRITE brings; errors as {@link accessible}. */
export function writeMemory(ranges: IovaMap<DmaRange>, iova: bigint, data: Uint8Array): void {
  let at = 0;
  for (const { buffer, offset, length } of accessible(ranges, iova, data.length, 'write')) {
    new Uint8Array(buffer, offset, length).set(data.subarray(at, at + length));
    at += length;
  }
}
