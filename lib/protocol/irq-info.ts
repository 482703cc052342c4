// SPDX-License-Identifier: MIT
import { checkEcho, encodeIndexRequest, readArgsz, viewOf, viewOfAtLeast, writeU32 } from './wire';

/** What DEVICE_GET_IRQ_INFO tells about an interrupt index (vfio-user, VFIO_USER_DEVICE_GET_IRQ_INFO). */
export interface IrqInfo {
  /** Interrupt index, such as `PciIrq.msix`. */
  index: number;
  /** {@link IrqInfoFlag} bits. */
  flags: number;
  /** Number of interrupts of this index. */
  count: number;
}

/** A decoded DEVICE_GET_IRQ_INFO reply. */
export interface IrqInfoReply extends IrqInfo {
  /** Bytes that the whole payload needs. */
  argsz: number;
  /** False when the server has more to say than it was given room for. */
  complete: boolean;
}

const SIZE = 16;

/** Encodes a DEVICE_GET_IRQ_INFO request. */
export function encodeIrqInfoRequest(request: Readonly<{ index: number; argsz?: number }>): Uint8Array {
  return encodeIndexRequest(SIZE, request);
}

/** Decodes a DEVICE_GET_IRQ_INFO request. Throws `ERR_VFIO_USER_PROTOCOL`. */
export function decodeIrqInfoRequest(payload: Uint8Array): { argsz: number; index: number } {
  const what = 'DEVICE_GET_IRQ_INFO request';
  const view = viewOfAtLeast(what, payload, SIZE);
  return { argsz: readArgsz(what, view, SIZE), index: view.getUint32(8, true) };
}

/** Encodes a DEVICE_GET_IRQ_INFO reply. */
export function encodeIrqInfoReply(info: Readonly<IrqInfo>): Uint8Array {
  const payload = new Uint8Array(SIZE);
  const view = viewOf(payload);
  view.setUint32(0, SIZE, true);
  writeU32(view, 4, info.flags, 'flags');
  writeU32(view, 8, info.index, 'index');
  writeU32(view, 12, info.count, 'count');
  return payload;
}

/** Decodes a DEVICE_GET_IRQ_INFO reply. `asked` is the index that was asked for. Throws `ERR_VFIO_USER_PROTOCOL`. */
export function decodeIrqInfoReply(payload: Uint8Array, asked: Readonly<{ index: number }>): IrqInfoReply {
  const what = 'DEVICE_GET_IRQ_INFO reply';
  const view = viewOfAtLeast(what, payload, SIZE);
  const argsz = view.getUint32(0, true);
  const index = view.getUint32(8, true);
  checkEcho(what, 'index', index, asked.index);
  return {
    argsz,
    complete: argsz <= payload.byteLength,
    flags: view.getUint32(4, true),
    index,
    count: view.getUint32(12, true),
  };
}
