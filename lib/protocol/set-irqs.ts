// SPDX-License-Identifier: MIT
import { invalidArgument, outOfRange } from '../errors';
import { IrqSetAction, IrqSetData } from './constants';
import { dataOf, protocolError, readArgsz, U32_MAX, viewOf, viewOfAtLeast, writeU32 } from './wire';

/**
 * Payload of a DEVICE_SET_IRQS request (vfio-user, VFIO_USER_DEVICE_SET_IRQS). The reply has no payload.
 * `IrqSetData.none` with `start` and `count` 0 disables all interrupts of the index.
 */
export interface SetIrqsRequest {
  /** Interrupt index, such as `PciIrq.msix`. */
  index: number;
  /** One bit of {@link IrqSetData} and one of {@link IrqSetAction}. */
  flags: number;
  /** First interrupt concerned. */
  start: number;
  /** Number of interrupts concerned. */
  count: number;
  /** One byte per interrupt, not 0 where the action is to be done; there if and only if the data is `IrqSetData.bool`. */
  booleans?: Uint8Array;
}

const SIZE = 20;
const DATA_FLAGS: readonly number[] = Object.values(IrqSetData);
const ACTION_FLAGS: readonly number[] = Object.values(IrqSetAction);

/** One data bit, one action bit and nothing else. */
function areSound(flags: number): boolean {
  return DATA_FLAGS.some((data) => ACTION_FLAGS.some((action) => flags === (data | action)));
}

function withBooleans(flags: number): boolean {
  return (flags & IrqSetData.bool) !== 0;
}

/**
 * Encodes a DEVICE_SET_IRQS request: 20 bytes and the booleans.
 *
 * @throws TypeError `ERR_INVALID_ARG_VALUE` for flags that contradict each other, `booleans` or `count`
 * @throws RangeError `ERR_OUT_OF_RANGE` for values that do not fit
 */
export function encodeSetIrqsRequest(request: Readonly<SetIrqsRequest>): Uint8Array {
  const { flags, index, start, count, booleans } = request;
  if (!areSound(flags))
    throw invalidArgument(`flags must be one data bit and one action bit, not ${String(flags)}`);
  if (
    withBooleans(flags) !== (booleans !== undefined) ||
    (booleans !== undefined && booleans.byteLength !== count)
  ) {
    throw invalidArgument(
      'booleans must have one byte per interrupt with IrqSetData.bool, and be absent otherwise',
    );
  }
  const payload = new Uint8Array(SIZE + (booleans?.byteLength ?? 0));
  const view = viewOf(payload);
  view.setUint32(0, payload.byteLength, true);
  view.setUint32(4, flags, true);
  writeU32(view, 8, index, 'index');
  writeU32(view, 12, start, 'start');
  writeU32(view, 16, count, 'count');
  if (start + count > U32_MAX)
    throw outOfRange(`start ${String(start)} plus count ${String(count)} is above 2^32 - 1`);
  if (booleans !== undefined) payload.set(booleans, SIZE);
  return payload;
}

/** Decodes a DEVICE_SET_IRQS request; `booleans` is a view of the payload. Throws `ERR_VFIO_USER_PROTOCOL`. */
export function decodeSetIrqsRequest(payload: Uint8Array): SetIrqsRequest {
  const what = 'DEVICE_SET_IRQS request';
  const view = viewOfAtLeast(what, payload, SIZE);
  readArgsz(what, view, SIZE);
  const flags = view.getUint32(4, true);
  if (!areSound(flags)) {
    throw protocolError(what, `flags are 0x${flags.toString(16)}, one data bit and one action bit expected`);
  }
  const index = view.getUint32(8, true);
  const start = view.getUint32(12, true);
  const count = view.getUint32(16, true);
  if (start + count > U32_MAX) {
    throw protocolError(what, `start ${String(start)} plus count ${String(count)} is above 2^32 - 1`);
  }
  const request: SetIrqsRequest = { index, flags, start, count };
  if (withBooleans(flags)) request.booleans = dataOf(what, payload, SIZE, count);
  return request;
}
