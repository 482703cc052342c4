// SPDX-License-Identifier: MIT
/** The messages of NBD, as its doc/proto.md tells. All numbers are big-endian. */

/** What a server sends first, and what begins an option. */
export const Magic = {
  server: 0x4e42_444d_4147_4943n, // NBDMAGIC
  option: 0x4948_4156_454f_5054n, // IHAVEOPT
  oldStyle: 0x0000_4202_8186_1253n,
  optionReply: 0x0003_e889_0455_65a9n,
  request: 0x2560_9513,
  simpleReply: 0x6744_6698,
  structuredReply: 0x668e_33ef,
} as const;

/** Handshake flags of the server; those of the client are the same two. */
export const HandshakeFlag = { fixedNewstyle: 1, noZeroes: 2 } as const;

/** Options that the client may ask for. */
export const Option = { exportName: 1, abort: 2, startTls: 5, go: 7, structuredReply: 8 } as const;

/** Types of the replies to options. Those from {@link error} on are errors. */
export const OptionReply = {
  ack: 1,
  info: 3,
  error: 0x8000_0000,
  unsupported: 0x8000_0001,
  policy: 0x8000_0002,
  invalid: 0x8000_0003,
  platform: 0x8000_0004,
  tlsRequired: 0x8000_0005,
  unknownExport: 0x8000_0006,
  shutdown: 0x8000_0007,
} as const;

/** Kinds of information about an export. */
export const Info = { export: 0, blockSize: 3 } as const;

/** Transmission flags: what an export is, and what can be asked of it. */
export const ExportFlag = {
  readOnly: 1 << 1,
  flush: 1 << 2,
  forceUnitAccess: 1 << 3,
  trim: 1 << 5,
  writeZeroes: 1 << 6,
} as const;

/** Types of requests. */
export const Command = { read: 0, write: 1, disconnect: 2, flush: 3, trim: 4, writeZeroes: 6 } as const;

/** Flags of requests. */
export const CommandFlag = { forceUnitAccess: 1 << 0, noHole: 1 << 1 } as const;

/** Error of a server that is about to end. */
export const ESHUTDOWN = 108;

/** Types of the chunks of a structured reply. Those with {@link error} set are errors. */
export const Chunk = { none: 0, offsetData: 1, offsetHole: 2, error: 0x8000, errorOffset: 0x8002 } as const;

/** Flag of the last chunk of a reply. */
export const CHUNK_DONE = 1;

const REQUEST_BYTES = 28;
export const SIMPLE_REPLY_BYTES = 16;
/** Bytes that the header of a chunk has beyond those of a simple reply. */
export const CHUNK_LENGTH_BYTES = 4;
export const OPTION_REPLY_BYTES = 20;
/** Longest text in a message. */
export const MAX_STRING = 4096;

/** The header of a request. */
export interface RequestHeader {
  readonly flags: number;
  readonly type: number;
  /** Names the request in its reply: 32 bits, of the 64 that there are. */
  readonly cookie: number;
  readonly offset: number;
  readonly length: number;
}

/** Encodes the header of a request. */
export function encodeRequest({ flags, type, cookie, offset, length }: RequestHeader): Buffer {
  const bytes = Buffer.allocUnsafe(REQUEST_BYTES);
  bytes.writeUInt32BE(Magic.request, 0);
  bytes.writeUInt16BE(flags, 4);
  bytes.writeUInt16BE(type, 6);
  bytes.writeUInt32BE(0, 8);
  bytes.writeUInt32BE(cookie, 12);
  writeU64(bytes, offset, 16);
  bytes.writeUInt32BE(length, 24);
  return bytes;
}

/** Encodes an option and its data. */
export function encodeOption(option: number, data: Uint8Array = new Uint8Array()): Buffer {
  const header = Buffer.alloc(16);
  header.writeBigUInt64BE(Magic.option, 0);
  header.writeUInt32BE(option, 8);
  header.writeUInt32BE(data.length, 12);
  return Buffer.concat([header, data]);
}

/** Encodes the data of NBD_OPT_GO: the export, and what the client wants to know of it beside its size. */
export function encodeGo(exportName: string): Buffer {
  const name = Buffer.from(exportName);
  const data = Buffer.alloc(4 + name.length + 4);
  data.writeUInt32BE(name.length, 0);
  name.copy(data, 4);
  data.writeUInt16BE(1, 4 + name.length);
  data.writeUInt16BE(Info.blockSize, 6 + name.length);
  return data;
}

/** The header of a reply to an option. */
export interface OptionReplyHeader {
  readonly magic: bigint;
  readonly option: number;
  readonly type: number;
  readonly length: number;
}

/** Decodes the header of a reply to an option, of {@link OPTION_REPLY_BYTES}. */
export function decodeOptionReply(bytes: Buffer): OptionReplyHeader {
  return {
    magic: bytes.readBigUInt64BE(0),
    option: bytes.readUInt32BE(8),
    type: bytes.readUInt32BE(12),
    length: bytes.readUInt32BE(16),
  };
}

/** Reads a number of 64 bits. What is above 2^53 is rounded, and stays above. */
export function readU64(bytes: Buffer, at: number): number {
  return bytes.readUInt32BE(at) * 2 ** 32 + bytes.readUInt32BE(at + 4);
}

function writeU64(bytes: Buffer, value: number, at: number): void {
  bytes.writeUInt32BE(Math.floor(value / 2 ** 32), at);
  bytes.writeUInt32BE(value % 2 ** 32, at + 4);
}
