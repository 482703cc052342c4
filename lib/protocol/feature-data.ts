// SPDX-License-Identifier: MIT
import { invalidArgument } from '../errors';
import { isPowerOfTwo } from '../power-of-two';
import { MigrationState, type MigrationStateCode } from './constants';
import { fitsU64, hexU64, readSafeU64, readU64, sameU64, writeU64, type U64 } from './u64';
import { dataOf, protocolError, viewOf, viewOfAtLeast, writeU32 } from './wire';

/** Encodes the data of feature MIGRATION: {@link MigrationFlag} bits (vfio-user, VFIO_DEVICE_FEATURE_MIGRATION). */
export function encodeMigrationFeature(flags: number): Uint8Array {
  const data = new Uint8Array(8);
  writeU64(viewOf(data), 0, flags, 'flags');
  return data;
}

/** Decodes the data of feature MIGRATION into {@link MigrationFlag} bits. Throws `ERR_VFIO_USER_PROTOCOL`. */
export function decodeMigrationFeature(data: Uint8Array): number {
  const what = 'DEVICE_FEATURE MIGRATION data';
  return readSafeU64(viewOfAtLeast(what, data, 8), 0, what, 'flags');
}

/**
 * Encodes the data of feature MIG_DEVICE_STATE (vfio-user, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE).
 * Its `data_fd` is not used in vfio-user and stays 0.
 */
export function encodeMigrationState(state: MigrationStateCode): Uint8Array {
  const data = new Uint8Array(8);
  writeU32(viewOf(data), 0, state, 'state');
  return data;
}

/** Decodes the data of feature MIG_DEVICE_STATE. Throws `ERR_VFIO_USER_PROTOCOL`, also for a state that does not exist. */
export function decodeMigrationState(data: Uint8Array): MigrationStateCode {
  const what = 'DEVICE_FEATURE MIG_DEVICE_STATE data';
  const value = viewOfAtLeast(what, data, 8).getUint32(0, true);
  const state = Object.values(MigrationState).find((code) => code === value);
  if (state === undefined) throw protocolError(what, `device state ${value} does not exist`);
  return state;
}

/** A range of IOVAs; `length` in bytes. */
export interface IovaRange {
  iova: U64;
  length: U64;
}

/** Data of feature DMA_LOGGING_START (vfio-user, VFIO_DEVICE_FEATURE_DMA_LOGGING_START). */
export interface DmaLoggingControl {
  /** Granularity in bytes: wished for in a request, chosen by the device in a reply. */
  pageSize: number;
  /** What to log; none means everything. */
  ranges: readonly IovaRange[];
}

const CONTROL_SIZE = 16;
const RANGE_SIZE = 16;
const REPORT_SIZE = 24;

/** Encodes the data of feature DMA_LOGGING_START. Throws `ERR_OUT_OF_RANGE` for values that do not fit. */
export function encodeDmaLoggingControl(control: Readonly<DmaLoggingControl>): Uint8Array {
  const data = new Uint8Array(CONTROL_SIZE + RANGE_SIZE * control.ranges.length);
  const view = viewOf(data);
  writeU64(view, 0, control.pageSize, 'pageSize');
  view.setUint32(8, control.ranges.length, true);
  control.ranges.forEach(({ iova, length }, i) => {
    writeU64(view, CONTROL_SIZE + RANGE_SIZE * i, iova, 'iova');
    writeU64(view, CONTROL_SIZE + RANGE_SIZE * i + 8, length, 'length');
  });
  return data;
}

/** Decodes the data of feature DMA_LOGGING_START. Throws `ERR_VFIO_USER_PROTOCOL`. */
export function decodeDmaLoggingControl(data: Uint8Array): DmaLoggingControl {
  const what = 'DEVICE_FEATURE DMA_LOGGING_START data';
  const view = viewOfAtLeast(what, data, CONTROL_SIZE);
  const count = view.getUint32(8, true);
  dataOf(what, data, CONTROL_SIZE, count * RANGE_SIZE);
  const ranges: IovaRange[] = [];
  for (let i = 0; i < count; i++) ranges.push(readRange(what, view, CONTROL_SIZE + RANGE_SIZE * i));
  return { pageSize: readSafeU64(view, 0, what, 'page size'), ranges };
}

function readRange(what: string, view: DataView, at: number): IovaRange {
  const range: IovaRange = { iova: readU64(view, at), length: readU64(view, at + 8) };
  if (!fitsU64(range.iova, range.length)) {
    throw protocolError(what, `iova ${hexU64(range.iova)} plus length ${hexU64(range.length)} is above 2^64`);
  }
  return range;
}

/** What a DMA_LOGGING_REPORT asks for (vfio-user, VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT). */
export interface DmaLoggingQuery extends IovaRange {
  /** Bytes of IOVA that a bit stands for: a power of two. */
  pageSize: number;
}

/**
 * Size of the bitmap for a range: one bit a page, in whole 64-bit words.
 *
 * @returns bytes
 * @throws TypeError `ERR_INVALID_ARG_VALUE` when the page size is no power of two
 */
export function dirtyBitmapSize(length: U64, pageSize: number): number {
  if (!isPowerOfTwo(pageSize)) throw invalidArgument(`page size must be a power of two, not ${pageSize}`);
  const page = BigInt(pageSize);
  const pages = (BigInt(length) + page - 1n) / page;
  return Number((pages + 63n) / 64n) * 8;
}

/** Encodes the data of a DMA_LOGGING_REPORT request. In the reply the bitmap follows these 24 bytes. */
export function encodeDmaLoggingQuery(query: Readonly<DmaLoggingQuery>): Uint8Array {
  if (!isPowerOfTwo(query.pageSize)) {
    throw invalidArgument(`page size must be a power of two, not ${query.pageSize}`);
  }
  const data = new Uint8Array(REPORT_SIZE);
  const view = viewOf(data);
  writeU64(view, 0, query.iova, 'iova');
  writeU64(view, 8, query.length, 'length');
  writeU64(view, 16, query.pageSize, 'pageSize');
  return data;
}

/** Decodes the data of a DMA_LOGGING_REPORT request. Throws `ERR_VFIO_USER_PROTOCOL`. */
export function decodeDmaLoggingQuery(data: Uint8Array): DmaLoggingQuery {
  const what = 'DEVICE_FEATURE DMA_LOGGING_REPORT data';
  const view = viewOfAtLeast(what, data, REPORT_SIZE);
  const pageSize = readSafeU64(view, 16, what, 'page size');
  if (!isPowerOfTwo(pageSize)) throw protocolError(what, `page size is ${pageSize}, no power of two`);
  return { ...readRange(what, view, 0), pageSize };
}

/** Encodes the data of a DMA_LOGGING_REPORT reply: the query and its bitmap. Throws `ERR_INVALID_ARG_VALUE` for a bitmap of a wrong size. */
export function encodeDmaLoggingReport(query: Readonly<DmaLoggingQuery>, bitmap: Uint8Array): Uint8Array {
  const size = dirtyBitmapSize(query.length, query.pageSize);
  if (bitmap.byteLength !== size) {
    throw invalidArgument(`bitmap has ${bitmap.byteLength} bytes, ${size} needed`);
  }
  const data = new Uint8Array(REPORT_SIZE + size);
  data.set(encodeDmaLoggingQuery(query));
  data.set(bitmap, REPORT_SIZE);
  return data;
}

/**
 * Decodes the data of a DMA_LOGGING_REPORT reply.
 *
 * @param asked the query
 * @returns the bitmap, as a view of `data`; bit 0 of its first byte is the first page
 * @throws VfioUserError `ERR_VFIO_USER_PROTOCOL`
 */
export function decodeDmaLoggingReport(data: Uint8Array, asked: Readonly<DmaLoggingQuery>): Uint8Array {
  const what = 'DEVICE_FEATURE DMA_LOGGING_REPORT data';
  const query = decodeDmaLoggingQuery(data);
  if (
    !sameU64(query.iova, asked.iova) ||
    !sameU64(query.length, asked.length) ||
    query.pageSize !== asked.pageSize
  ) {
    throw protocolError(what, 'does not repeat what was asked for');
  }
  return dataOf(what, data, REPORT_SIZE, dirtyBitmapSize(query.length, query.pageSize));
}
