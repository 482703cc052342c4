// SPDX-License-Identifier: MIT
import { invalidArgument } from '../errors';
import { FeatureFlag } from './constants';
import { checkEcho, protocolError, readArgsz, viewOf, viewOfAtLeast, writeU32 } from './wire';

/** A DEVICE_FEATURE message (vfio-user, VFIO_USER_DEVICE_FEATURE). The data of each feature is in `feature-data.ts`. */
export interface DeviceFeature {
  /** {@link Feature} index, 16 bit. */
  feature: number;
  /** Get the feature's data; together with `probe`, ask whether that is possible. Excludes `set` unless probing. */
  get?: boolean;
  /** Set the feature to `data`; together with `probe`, ask whether that is possible. Excludes `get` unless probing. */
  set?: boolean;
  /** Ask what is possible. */
  probe?: boolean;
  /** The feature's data; a view of the payload when decoded. */
  data?: Uint8Array;
}

/** A decoded DEVICE_FEATURE request. */
export interface DeviceFeatureRequest extends Required<DeviceFeature> {
  /** Room that the client has for the reply's payload, in bytes. */
  argsz: number;
}

/** A decoded DEVICE_FEATURE reply. */
export interface DeviceFeatureReply extends Required<DeviceFeature> {
  /** Bytes that the whole payload needs. */
  argsz: number;
  /** False when the server cut the reply because it needs more room than it was given. */
  complete: boolean;
}

const SIZE = 8;
const KNOWN_FLAGS = FeatureFlag.indexMask | FeatureFlag.get | FeatureFlag.set | FeatureFlag.probe;

function operationProblem(get: boolean, set: boolean, probe: boolean): string | undefined {
  if (!get && !set && !probe) return 'none of get, set and probe';
  if (get && set && !probe) return 'both get and set, which is for probing only';
  return undefined;
}

function encode(message: Readonly<DeviceFeature>, argsz: number): Uint8Array {
  const { feature, get = false, set = false, probe = false, data } = message;
  const problem = operationProblem(get, set, probe);
  if (problem !== undefined) throw invalidArgument(`DEVICE_FEATURE with ${problem}`);
  if (!Number.isInteger(feature) || feature < 0 || feature > FeatureFlag.indexMask) {
    throw invalidArgument(`feature must be an integer from 0 to 65535, not ${feature}`);
  }
  const payload = new Uint8Array(SIZE + (data?.byteLength ?? 0));
  const view = viewOf(payload);
  writeU32(view, 0, argsz, 'argsz');
  const operations =
    (get ? FeatureFlag.get : 0) | (set ? FeatureFlag.set : 0) | (probe ? FeatureFlag.probe : 0);
  view.setUint32(4, feature | operations, true);
  if (data !== undefined) payload.set(data, SIZE);
  return payload;
}

function decodeFlags(what: string, payload: Uint8Array, view: DataView): Required<DeviceFeature> {
  const flags = view.getUint32(4, true);
  if ((flags & ~KNOWN_FLAGS) !== 0)
    throw protocolError(what, `flags are 0x${flags.toString(16)}, with bits that are not known`);
  const get = (flags & FeatureFlag.get) !== 0;
  const set = (flags & FeatureFlag.set) !== 0;
  const probe = (flags & FeatureFlag.probe) !== 0;
  const problem = operationProblem(get, set, probe);
  if (problem !== undefined) throw protocolError(what, problem);
  return { feature: flags & FeatureFlag.indexMask, get, set, probe, data: payload.subarray(SIZE) };
}

/**
 * Encodes a DEVICE_FEATURE request.
 *
 * @param replyDataSize bytes of data that the reply may have; those of `data` when absent
 * @throws TypeError `ERR_INVALID_ARG_VALUE` for a combination of operations that the specification does not have
 */
export function encodeDeviceFeatureRequest(
  request: Readonly<DeviceFeature>,
  replyDataSize?: number,
): Uint8Array {
  return encode(request, SIZE + (replyDataSize ?? request.data?.byteLength ?? 0));
}

/** Decodes a DEVICE_FEATURE request. Throws `ERR_VFIO_USER_PROTOCOL`. */
export function decodeDeviceFeatureRequest(payload: Uint8Array): DeviceFeatureRequest {
  const what = 'DEVICE_FEATURE request';
  const view = viewOfAtLeast(what, payload, SIZE);
  return { argsz: readArgsz(what, view, SIZE), ...decodeFlags(what, payload, view) };
}

/** Encodes a DEVICE_FEATURE reply: the request's fields, with the data that was got when there is some. */
export function encodeDeviceFeatureReply(reply: Readonly<DeviceFeature>): Uint8Array {
  return encode(reply, SIZE + (reply.data?.byteLength ?? 0));
}

/** Decodes a DEVICE_FEATURE reply. `asked` is the feature that was asked for. Throws `ERR_VFIO_USER_PROTOCOL`. */
export function decodeDeviceFeatureReply(
  payload: Uint8Array,
  asked: Readonly<{ feature: number }>,
): DeviceFeatureReply {
  const what = 'DEVICE_FEATURE reply';
  const view = viewOfAtLeast(what, payload, SIZE);
  const argsz = view.getUint32(0, true);
  const decoded = decodeFlags(what, payload, view);
  checkEcho(what, 'feature', decoded.feature, asked.feature);
  return { argsz, complete: argsz <= payload.byteLength, ...decoded };
}
