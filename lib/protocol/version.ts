// SPDX-License-Identifier: MIT
import { outOfRange } from '../errors';
import {
  DEFAULT_MAX_DATA_XFER_SIZE,
  DEFAULT_MAX_DMA_MAPS,
  DEFAULT_MAX_MSG_FDS,
  DEFAULT_PAGE_SIZES,
} from './constants';
import { protocolError, U32_MAX, viewOf, viewOfAtLeast } from './wire';

/** What one side says about itself (vfio-user, VFIO_USER_VERSION, Capabilities). */
export interface Capabilities {
  /** File descriptors that the sender can receive in one message, 0 to 65535. */
  maxMsgFds: number;
  /** Largest `count` of a data transfer, in bytes, 1 to 2^32 - 1. */
  maxDataXferSize: number;
  /** DMA mappings that can be valid at a time, 0 to 2^32 - 1. */
  maxDmaMaps: number;
  /** Page sizes for DMA mappings, or'ed together: a multiple of 4096, below 2^53. */
  pageSizes: number;
  /** The `twin_socket` capability: commands from the server on a socket of their own. */
  twinSocket: Readonly<{
    /** Whether the sender supports it. */
    supported: boolean;
    /** Index of the socket among the descriptors of the message; only in a reply. */
    fdIndex?: number;
  }>;
  /** Whether REGION_WRITE_MULTI is supported. */
  writeMultiple: boolean;
}

/** A decoded VERSION request or reply. */
export interface Version {
  /** Major version of the protocol, 0 to 65535. */
  major: number;
  /** Minor version, 0 to 65535. */
  minor: number;
  /** The peer's capabilities; what it did not name has the specification's default. */
  capabilities: Capabilities;
  /** The whole JSON object as it came, with the keys that are not known here; null when there was none. */
  raw: Readonly<Record<string, unknown>> | null;
}

/** Largest JSON text that is accepted in a VERSION message, in bytes. Real peers send less than 300. */
export const MAX_VERSION_JSON = 16384;

const MAX_FD_COUNT = 65535;
const PAGE_SIZE_UNIT = 4096;
const FIXED_SIZE = 4;
const NUL = 0;

/** What holds for a peer that names no capabilities. */
export function defaultCapabilities(): Capabilities {
  return {
    maxMsgFds: DEFAULT_MAX_MSG_FDS,
    maxDataXferSize: DEFAULT_MAX_DATA_XFER_SIZE,
    maxDmaMaps: DEFAULT_MAX_DMA_MAPS,
    pageSizes: DEFAULT_PAGE_SIZES,
    twinSocket: { supported: false },
    writeMultiple: false,
  };
}

/**
 * Encodes the payload of a VERSION request or reply, which have the same format.
 *
 * @param capabilities what to say; absent fields are left out of the JSON, null leaves out the JSON altogether.
 *   A server that talks to QEMU up to 10.2 must not say more than the client did: such a QEMU drops a longer reply.
 * @throws RangeError `ERR_OUT_OF_RANGE` for a version or capability outside its range
 */
export function encodeVersion(
  major: number,
  minor: number,
  capabilities: Readonly<Partial<Capabilities>> | null,
): Uint8Array {
  const json = capabilities === null ? null : new TextEncoder().encode(toJson(capabilities));
  const payload = new Uint8Array(FIXED_SIZE + (json === null ? 0 : json.byteLength + 1));
  const view = viewOf(payload);
  view.setUint16(0, checked('major', major, 0, 0xffff), true);
  view.setUint16(2, checked('minor', minor, 0, 0xffff), true);
  if (json !== null) payload.set(json, FIXED_SIZE);
  return payload;
}

function toJson(from: Readonly<Partial<Capabilities>>): string {
  const capabilities: Record<string, unknown> = {};
  if (from.maxMsgFds !== undefined) {
    capabilities['max_msg_fds'] = checked('maxMsgFds', from.maxMsgFds, 0, MAX_FD_COUNT);
  }
  if (from.maxDataXferSize !== undefined) {
    capabilities['max_data_xfer_size'] = checked('maxDataXferSize', from.maxDataXferSize, 1, U32_MAX);
  }
  if (from.maxDmaMaps !== undefined) {
    capabilities['max_dma_maps'] = checked('maxDmaMaps', from.maxDmaMaps, 0, U32_MAX);
  }
  if (from.pageSizes !== undefined) {
    const pageSizes = checked('pageSizes', from.pageSizes, PAGE_SIZE_UNIT, Number.MAX_SAFE_INTEGER);
    if (pageSizes % PAGE_SIZE_UNIT !== 0)
      throw outOfRange(`pageSizes must be a multiple of 4096, not ${pageSizes}`);
    capabilities['pgsizes'] = pageSizes;
  }
  if (from.twinSocket !== undefined) {
    const { supported, fdIndex } = from.twinSocket;
    capabilities['twin_socket'] =
      fdIndex === undefined
        ? { supported }
        : { supported, fd_index: checked('fdIndex', fdIndex, 0, MAX_FD_COUNT) };
  }
  if (from.writeMultiple !== undefined) capabilities['write_multiple'] = from.writeMultiple;
  return JSON.stringify({ capabilities });
}

function checked(name: string, value: number, minimum: number, maximum: number): number {
  if (!Number.isInteger(value) || value < minimum || value > maximum) {
    throw outOfRange(`${name} must be an integer from ${minimum} to ${maximum}, not ${value}`);
  }
  return value;
}

/**
 * Decodes the payload of a VERSION request or reply. The JSON may be missing or empty, may lack its terminating NUL and the
 * key `capabilities`, and may have keys that are not known here; what it has must have the right type and make sense.
 *
 * @throws VfioUserError `ERR_VFIO_USER_PROTOCOL`
 */
export function decodeVersion(payload: Uint8Array): Version {
  const view = viewOfAtLeast('VERSION', payload, FIXED_SIZE);
  const raw = parseJson(payload.subarray(FIXED_SIZE));
  const given = raw?.['capabilities'] === undefined ? {} : asObject('capabilities', raw['capabilities']);
  return {
    major: view.getUint16(0, true),
    minor: view.getUint16(2, true),
    capabilities: readCapabilities(given),
    raw,
  };
}

function parseJson(bytes: Uint8Array): Record<string, unknown> | null {
  const end = bytes.indexOf(NUL);
  const length = end < 0 ? bytes.byteLength : end;
  if (length > MAX_VERSION_JSON) {
    throw protocolError('VERSION', `JSON of ${length} bytes, at most ${MAX_VERSION_JSON} expected`);
  }
  let value: unknown;
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(0, length));
    if (text.trim() === '') return null;
    value = JSON.parse(text);
  } catch (cause) {
    throw protocolError('VERSION', 'version data is not valid JSON', cause);
  }
  return asObject('version data', value);
}

function readCapabilities(given: Readonly<Record<string, unknown>>): Capabilities {
  const capabilities = defaultCapabilities();
  // `max_fds` is the name that libvfio-user sent until it followed the specification's `max_msg_fds` (pull request 465).
  const maxMsgFds = given['max_msg_fds'] ?? given['max_fds'];
  if (maxMsgFds !== undefined) capabilities.maxMsgFds = asInteger('max_msg_fds', maxMsgFds, 0, MAX_FD_COUNT);
  if (given['max_data_xfer_size'] !== undefined) {
    capabilities.maxDataXferSize = asInteger('max_data_xfer_size', given['max_data_xfer_size'], 1, U32_MAX);
  }
  if (given['max_dma_maps'] !== undefined) {
    capabilities.maxDmaMaps = asInteger('max_dma_maps', given['max_dma_maps'], 0, U32_MAX);
  }
  if (given['pgsizes'] !== undefined) {
    const pageSizes = asInteger('pgsizes', given['pgsizes'], PAGE_SIZE_UNIT, Number.MAX_SAFE_INTEGER);
    if (pageSizes % PAGE_SIZE_UNIT !== 0)
      throw protocolError('VERSION', `pgsizes is ${pageSizes}, no multiple of 4096`);
    capabilities.pageSizes = pageSizes;
  }
  if (given['twin_socket'] !== undefined) {
    const twin = asObject('twin_socket', given['twin_socket']);
    const supported =
      twin['supported'] !== undefined && asBoolean('twin_socket.supported', twin['supported']);
    capabilities.twinSocket =
      twin['fd_index'] === undefined
        ? { supported }
        : { supported, fdIndex: asInteger('twin_socket.fd_index', twin['fd_index'], 0, MAX_FD_COUNT) };
  }
  if (given['write_multiple'] !== undefined) {
    capabilities.writeMultiple = asBoolean('write_multiple', given['write_multiple']);
  }
  return capabilities;
}

function asObject(name: string, value: unknown): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw protocolError('VERSION', `${name} is ${shown(value)}, an object expected`);
  }
  return value as Record<string, unknown>;
}

function asBoolean(name: string, value: unknown): boolean {
  if (typeof value !== 'boolean')
    throw protocolError('VERSION', `${name} is ${shown(value)}, true or false expected`);
  return value;
}

function asInteger(name: string, value: unknown, minimum: number, maximum: number): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < minimum || value > maximum) {
    throw protocolError(
      'VERSION',
      `${name} is ${shown(value)}, an integer from ${minimum} to ${maximum} expected`,
    );
  }
  return value;
}

/** A value for a message; never long, as it comes from the peer. Values from `JSON.parse` can always be put back into JSON. */
function shown(value: unknown): string {
  if (Array.isArray(value)) return 'an array';
  if (typeof value === 'object' && value !== null) return 'an object';
  if (typeof value === 'number') return String(value);
  const text = JSON.stringify(value);
  return text.length > 40 ? `${text.slice(0, 40)}…` : text;
}

/** What both sides agreed on: the limits that our side obeys when it sends. */
export interface NegotiatedLimits {
  /** File descriptors in one message to the peer. */
  maxMsgFds: number;
  /** Largest `count` of a read or a write, in bytes: a read must fit the peer's limit and its reply our own. */
  maxDataXferSize: number;
  /** DMA mappings at a time. */
  maxDmaMaps: number;
  /** Page sizes for DMA mappings, or'ed together. */
  pageSizes: number;
  /** Whether both sides know the twin socket. */
  twinSocket: boolean;
  /** Whether both sides know REGION_WRITE_MULTI. */
  writeMultiple: boolean;
}

/** The limits that we obey towards a peer, from our own capabilities and the peer's. */
export function negotiateCapabilities(
  ours: Readonly<Capabilities>,
  theirs: Readonly<Capabilities>,
): NegotiatedLimits {
  return {
    maxMsgFds: theirs.maxMsgFds,
    maxDataXferSize: Math.min(ours.maxDataXferSize, theirs.maxDataXferSize),
    maxDmaMaps: theirs.maxDmaMaps,
    pageSizes: theirs.pageSizes,
    twinSocket: ours.twinSocket.supported && theirs.twinSocket.supported,
    writeMultiple: ours.writeMultiple && theirs.writeMultiple,
  };
}
