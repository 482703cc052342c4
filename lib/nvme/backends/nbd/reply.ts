// SPDX-License-Identifier: MIT
import { VfioUserError } from '../../../errors';
import type { ByteStream } from './byte-stream';
import type { PendingRequest } from './request';
import {
  CHUNK_DONE,
  CHUNK_LENGTH_BYTES,
  Chunk,
  Command,
  MAX_STRING,
  Magic,
  SIMPLE_REPLY_BYTES,
  readU64,
} from './wire';

/** Parts that the reply to one read may come in. */
const MAX_PARTS = 1024;

/** What {@link readReply} has found. */
export interface Reply {
  readonly cookie: number;
  /** The server's errno, 0 for success; null when there is more to come of the reply. */
  readonly errno: number | null;
}

/**
 * Reads the next reply, or chunk of one (proto.md, Transmission), and puts the data of a read where it belongs. Nothing that the server
 * says is taken for granted.
 *
 * @param structured whether structured replies were negotiated
 * @param find returns the request of a cookie, or throws
 * @throws VfioUserError `ERR_VFIO_USER_PROTOCOL`, after which the connection cannot be used any more
 */
export async function readReply(
  stream: ByteStream,
  structured: boolean,
  find: (cookie: number) => PendingRequest,
): Promise<Reply> {
  const header = await stream.read(SIMPLE_REPLY_BYTES);
  const magic = header.readUInt32BE(0);
  if (header.readUInt32BE(8) !== 0) throw broken('it has answered a request that there is not');
  const cookie = header.readUInt32BE(12);
  if (magic === Magic.simpleReply) {
    const errno = header.readUInt32BE(4);
    const { type, data } = find(cookie);
    if (type === Command.read && structured) throw broken('it has answered a read by a simple reply');
    if (errno === 0 && type === Command.read && data !== undefined) {
      await stream.readInto(data, 0, data.length);
    }
    return { cookie, errno };
  }
  if (magic !== Magic.structuredReply || !structured) {
    throw broken(`a reply begins with 0x${magic.toString(16)}`);
  }
  const length = (await stream.read(CHUNK_LENGTH_BYTES)).readUInt32BE(0);
  const request = find(cookie);
  await readChunk(stream, request, header.readUInt16BE(6), length);
  if ((header.readUInt16BE(4) & CHUNK_DONE) === 0) return { cookie, errno: null };
  if (request.errno === 0 && request.type === Command.read && covered(request) < request.length) {
    throw broken('the reply to a read has too few bytes');
  }
  return { cookie, errno: request.errno };
}

async function readChunk(
  stream: ByteStream,
  request: PendingRequest,
  type: number,
  length: number,
): Promise<void> {
  if ((type & Chunk.error) !== 0) {
    if (length < 6 || length > MAX_STRING + 14) throw broken(`an error of ${length} bytes is none`);
    const content = await stream.read(length);
    const said = content.readUInt16BE(4);
    if (said > length - 6) throw broken('the text of an error is longer than the error');
    const errno = content.readUInt32BE(0);
    if (errno === 0) throw broken('an error has no number');
    if (request.errno === 0) request.errno = errno;
    return;
  }
  if (type === Chunk.none) {
    if (length !== 0) throw broken('a chunk without content has some');
    return;
  }
  if (request.type !== Command.read || request.data === undefined) {
    throw broken(`a chunk of type ${type} answers a request that is no read`);
  }
  if (type === Chunk.offsetData) {
    if (length < 9) throw broken('a chunk of data has none');
    const at = place(request, readU64(await stream.read(8), 0), length - 8);
    await stream.readInto(request.data, at, length - 8);
  } else if (type === Chunk.offsetHole) {
    if (length !== 12) throw broken(`a hole of ${length} bytes is none`);
    const hole = await stream.read(12);
    const bytes = hole.readUInt32BE(8);
    const at = place(request, readU64(hole, 0), bytes);
    request.data.fill(0, at, at + bytes);
  } else {
    throw broken(`a chunk has the type ${type}`);
  }
}

/** Where a part of a read begins in its data. The part must lie within the read, and overlap no other. */
function place({ offset, length, parts }: PendingRequest, begin: number, bytes: number): number {
  const at = begin - offset;
  const end = at + bytes;
  if (bytes === 0 || at < 0 || end > length) throw broken('a part of a read lies outside of it');
  for (let i = 0; i < parts.length; i += 2) {
    if (at < (parts[i + 1] as number) && end > (parts[i] as number)) {
      throw broken('parts of a read overlap');
    }
  }
  if (parts.length >= 2 * MAX_PARTS) throw broken(`a read comes in more than ${MAX_PARTS} parts`);
  // Most servers send parts in their order, which become one.
  if (parts.at(-1) === at) parts[parts.length - 1] = end;
  else parts.push(at, end);
  return at;
}

/** Bytes of a read that have come. */
function covered({ parts }: PendingRequest): number {
  let bytes = 0;
  for (let i = 0; i < parts.length; i += 2) bytes += (parts[i + 1] as number) - (parts[i] as number);
  return bytes;
}

function broken(text: string): VfioUserError {
  return new VfioUserError('ERR_VFIO_USER_PROTOCOL', text);
}
