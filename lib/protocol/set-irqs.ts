// SPDX-License-Identifier: MIT
import { invalidArgument, outOfRange } from '../errors';
import { IrqSetFlag } from './constants';
import { dataOf, protocolError, readArgsz, U32_MAX, viewOf, viewOfAtLeast, writeU32 } from './wire';

/** What comes with a DEVICE_SET_IRQS: nothing, one byte per interrupt, or one eventfd per interrupt. */
export type IrqData = 'none' | 'bool' | 'eventfd';

/** What a DEVICE_SET_IRQS does, or what its eventfds are signalled for. */
export type IrqAction = 'mask' | 'unmask' | 'trigger';

/** What is to change of an interrupt index. `data: 'none'`, `start: 0`, `count: 0` disables all interrupts of the index. */
export interface IrqChange {
  /** What comes with it. */
  data: IrqData;
  /** What is done with the interrupts, or what their eventfds are signalled for. */
  action: IrqAction;
  /** First interrupt concerned. */
  start: number;
  /** Number of interrupts concerned. */
  count: number;
  /** One byte per interrupt, not 0 where the action is to be done; there if and only if `data` is `bool`. */
  booleans?: Uint8Array;
}

/** Payload of a DEVICE_SET_IRQS request (vfio-user, VFIO_USER_DEVICE_SET_IRQS). The reply has no payload. */
export interface SetIrqsRequest extends IrqChange {
  /** Interrupt index, such as `PciIrq.msix`. */
  index: number;
}

const SIZE = 20;

const DATA_FLAGS: Readonly<Record<IrqData, number>> = {
  none: IrqSetFlag.dataNone,
  bool: IrqSetFlag.dataBool,
  eventfd: IrqSetFlag.dataEventfd,
};
const ACTION_FLAGS: Readonly<Record<IrqAction, number>> = {
  mask: IrqSetFlag.actionMask,
  unmask: IrqSetFlag.actionUnmask,
  trigger: IrqSetFlag.actionTrigger,
};
const DATA_MASK = IrqSetFlag.dataNone | IrqSetFlag.dataBool | IrqSetFlag.dataEventfd;
const ACTION_MASK = IrqSetFlag.actionMask | IrqSetFlag.actionUnmask | IrqSetFlag.actionTrigger;

const DATA_NAMES = new Map<number, IrqData>([
  [IrqSetFlag.dataNone, 'none'],
  [IrqSetFlag.dataBool, 'bool'],
  [IrqSetFlag.dataEventfd, 'eventfd'],
]);
const ACTION_NAMES = new Map<number, IrqAction>([
  [IrqSetFlag.actionMask, 'mask'],
  [IrqSetFlag.actionUnmask, 'unmask'],
  [IrqSetFlag.actionTrigger, 'trigger'],
]);

/**
 * Encodes a DEVICE_SET_IRQS request: 20 bytes and the booleans.
 *
 * @throws TypeError `ERR_INVALID_ARG_VALUE` when `booleans` does not fit `data` and `count`
 * @throws RangeError `ERR_OUT_OF_RANGE` for values that do not fit
 */
export function encodeSetIrqsRequest(request: Readonly<SetIrqsRequest>): Uint8Array {
  const { data, action, index, start, count, booleans } = request;
  if (
    (data === 'bool') !== (booleans !== undefined) ||
    (booleans !== undefined && booleans.byteLength !== count)
  ) {
    throw invalidArgument(
      'booleans must have one byte per interrupt with data "bool", and be absent otherwise',
    );
  }
  const payload = new Uint8Array(SIZE + (booleans?.byteLength ?? 0));
  const view = viewOf(payload);
  view.setUint32(0, payload.byteLength, true);
  view.setUint32(4, DATA_FLAGS[data] | ACTION_FLAGS[action], true);
  writeU32(view, 8, index, 'index');
  writeU32(view, 12, start, 'start');
  writeU32(view, 16, count, 'count');
  if (start + count > U32_MAX) throw outOfRange(`start ${start} plus count ${count} is above 2^32 - 1`);
  if (booleans !== undefined) payload.set(booleans, SIZE);
  return payload;
}

/** Decodes a DEVICE_SET_IRQS request; `booleans` is a view of the payload. Throws `ERR_VFIO_USER_PROTOCOL`. */
export function decodeSetIrqsRequest(payload: Uint8Array): SetIrqsRequest {
  const what = 'DEVICE_SET_IRQS request';
  const view = viewOfAtLeast(what, payload, SIZE);
  readArgsz(what, view, SIZE);
  const flags = view.getUint32(4, true);
  const data = DATA_NAMES.get(flags & DATA_MASK);
  const action = ACTION_NAMES.get(flags & ACTION_MASK);
  if (data === undefined || action === undefined || (flags & ~(DATA_MASK | ACTION_MASK)) !== 0) {
    throw protocolError(what, `flags are 0x${flags.toString(16)}, one data bit and one action bit expected`);
  }
  const index = view.getUint32(8, true);
  const start = view.getUint32(12, true);
  const count = view.getUint32(16, true);
  if (start + count > U32_MAX) {
    throw protocolError(what, `start ${start} plus count ${count} is above 2^32 - 1`);
  }
  const request: SetIrqsRequest = { index, data, action, start, count };
  if (data === 'bool') request.booleans = dataOf(what, payload, SIZE, count);
  return request;
}
