// SPDX-License-Identifier: MIT
import { bare, toHex, u64 } from '../client/support';

export const PAGE = 4096;

/** `struct vfio_user_dma_map`: argsz 32, flags, offset, address, size. */
export const mapPayload = (flags: number, offset: number, address: bigint | number, size: number): string =>
  bare(`20000000 0${flags}000000`) + toHex(u64(offset, address, size));

/** `struct vfio_user_dma_unmap`: argsz 24, flags 0, address, size. */
export const unmapPayload = (address: bigint | number, size: number): string =>
  bare('18000000 00000000') + toHex(u64(address, size));

/** An address of 64 bits within a payload. */
export const addressOf = (payload: Uint8Array, at: number): number =>
  Number(new DataView(payload.buffer, payload.byteOffset).getBigUint64(at, true));
