// SPDX-License-Identifier: MIT
import { VfioUserError } from '../../../errors';
import { isPowerOfTwo } from '../../../power-of-two';
import type { ByteStream } from './byte-stream';
import {
  HandshakeFlag,
  Info,
  MAX_STRING,
  Magic,
  OPTION_REPLY_BYTES,
  Option,
  OptionReply,
  decodeOptionReply,
  encodeGo,
  encodeOption,
  readU64,
} from './wire';

/** Replies that a server may give to one option. */
const MAX_REPLIES = 64;
/** Bytes of a request or reply that every server takes (proto.md, Block size constraints). */
const DEFAULT_PAYLOAD = 2 ** 25;
/** Bytes of zeros at the end of a handshake that knows no better. */
const ZEROES = 124;

/** What a server has told of its export. */
export interface NbdExport {
  /** Bytes of the export. */
  readonly size: number;
  /** `ExportFlag`s. */
  readonly flags: number;
  /** Bytes of the smallest access; a power of two. */
  readonly minBlock: number;
  /** Bytes of an access that costs no more than it must; a power of two. */
  readonly preferredBlock: number;
  /** Bytes of the longest read or write. */
  readonly maxPayload: number;
  /** Whether replies are structured. */
  readonly structured: boolean;
}

/** The connection while it is negotiated. */
export interface HandshakeLink {
  /** What comes from the server. After {@link upgrade} it is another one. */
  stream: ByteStream;
  /** Sends to the server. */
  send(data: Uint8Array): void;
  /** Goes on with TLS; undefined for a connection without. */
  readonly upgrade: (() => Promise<void>) | undefined;
}

/**
 * The client's side of the fixed newstyle handshake (proto.md), up to the first request.
 *
 * @throws VfioUserError `ERR_VFIO_USER_CONNECT` when the server refuses; `ERR_VFIO_USER_PROTOCOL` when it is no NBD server
 */
export async function handshake(link: HandshakeLink, exportName: string): Promise<NbdExport> {
  const greeting = await link.stream.read(16);
  if (greeting.readBigUInt64BE(0) !== Magic.server) throw broken('what answers is no NBD server');
  const style = greeting.readBigUInt64BE(8);
  if (style === Magic.oldStyle) throw refused('it knows the old handshake only, which has no exports');
  if (style !== Magic.option) throw broken('its greeting is none of NBD');
  const offered = (await link.stream.read(2)).readUInt16BE(0);
  if ((offered & HandshakeFlag.fixedNewstyle) === 0) {
    throw refused('it does not know the fixed newstyle handshake');
  }
  const flags = offered & (HandshakeFlag.fixedNewstyle | HandshakeFlag.noZeroes);
  link.send(Uint8Array.of(0, 0, 0, flags));
  if (link.upgrade !== undefined) {
    await ask(link, Option.startTls);
    // Whatever came behind the reply in plain text may be somebody else's (proto.md, Security considerations).
    if (link.stream.waiting > 0) throw broken('it went on without TLS after it had agreed to TLS');
    await link.upgrade();
  }
  const structured = await offers(link, Option.structuredReply);
  const informed = await go(link, exportName);
  return { ...(informed ?? (await oldGo(link, exportName, flags))), structured };
}

type ExportInfo = Omit<NbdExport, 'structured'>;

/** NBD_OPT_GO. Undefined when the server does not know it. */
async function go(link: HandshakeLink, exportName: string): Promise<ExportInfo | undefined> {
  let size = -1;
  let flags = 0;
  let sizes = { minBlock: 1, preferredBlock: 4096, maxPayload: DEFAULT_PAYLOAD };
  const error = await ask(link, Option.go, encodeGo(exportName), (data) => {
    const type = data.length < 2 ? -1 : data.readUInt16BE(0);
    if (type === Info.export && data.length === 12) {
      size = readU64(data, 2);
      flags = data.readUInt16BE(10);
    } else if (type === Info.blockSize && data.length === 14) {
      sizes = blockSizes(data.readUInt32BE(2), data.readUInt32BE(6), data.readUInt32BE(10));
    } else if (type === Info.export || type === Info.blockSize || type === -1) {
      throw broken(`its information ${type} has ${data.length} bytes`);
    }
  });
  if (error === OptionReply.unsupported) return undefined;
  if (size < 0) throw broken('it has not told the size of the export');
  return { size, flags, ...sizes };
}

/** NBD_OPT_EXPORT_NAME, which ends the connection when there is no such export. */
async function oldGo(link: HandshakeLink, exportName: string, flags: number): Promise<ExportInfo> {
  link.send(encodeOption(Option.exportName, Buffer.from(exportName)));
  const reply = await link.stream.read(10);
  if ((flags & HandshakeFlag.noZeroes) === 0) await link.stream.read(ZEROES);
  return {
    size: readU64(reply, 0),
    flags: reply.readUInt16BE(8),
    minBlock: 1,
    preferredBlock: 4096,
    maxPayload: DEFAULT_PAYLOAD,
  };
}

function blockSizes(minBlock: number, preferredBlock: number, maxPayload: number) {
  if (
    !isPowerOfTwo(minBlock) ||
    minBlock > 65_536 ||
    !isPowerOfTwo(preferredBlock) ||
    preferredBlock < minBlock
  ) {
    throw broken(`its block sizes, ${minBlock} and ${preferredBlock}, are none`);
  }
  if (maxPayload < Math.max(preferredBlock, 512)) {
    throw broken(`its longest request, ${maxPayload} bytes, is shorter than its preferred one`);
  }
  return { minBlock, preferredBlock, maxPayload: Math.min(maxPayload, DEFAULT_PAYLOAD) };
}

/** Asks for an option that the client can do without. */
async function offers(link: HandshakeLink, option: number): Promise<boolean> {
  return (await ask(link, option, undefined, undefined, true)) === OptionReply.ack;
}

/**
 * Asks for an option.
 *
 * @param inform called with the data of each piece of information
 * @param optional whether any refusal will do
 * @returns {@link OptionReply} `ack`; `unsupported`, of NBD_OPT_GO only; any error when it is optional
 */
async function ask(
  link: HandshakeLink,
  option: number,
  data?: Uint8Array,
  inform?: (data: Buffer) => void,
  optional = false,
): Promise<number> {
  link.send(encodeOption(option, data));
  for (let replies = 0; replies < MAX_REPLIES; replies++) {
    const reply = decodeOptionReply(await link.stream.read(OPTION_REPLY_BYTES));
    if (reply.magic !== Magic.optionReply || reply.option !== option) {
      throw broken(`its reply to option ${option} is none`);
    }
    if (reply.length > 2 * MAX_STRING)
      throw broken(`its reply to option ${option} has ${reply.length} bytes`);
    const content = reply.length === 0 ? Buffer.alloc(0) : await link.stream.read(reply.length);
    if (reply.type === OptionReply.ack) return reply.type;
    if (reply.type >= OptionReply.error) {
      if (optional && reply.type !== OptionReply.tlsRequired) return reply.type;
      if (option === Option.go && reply.type === OptionReply.unsupported) return reply.type;
      throw refused(refusal(option, reply.type, content.toString()));
    }
    if (reply.type !== OptionReply.info || inform === undefined) {
      throw broken(`its reply to option ${option} has the type ${reply.type}`);
    }
    inform(content);
  }
  throw broken(`its reply to option ${option} does not end`);
}

/** What a refusal means, with what the server says of it. */
function refusal(option: number, type: number, said: string): string {
  // Control characters would reach a terminal.
  const text = said.replaceAll(/\p{Cc}+/gu, ' ').trim();
  const more = text === '' ? '' : `; it says: ${text.slice(0, 200)}`;
  switch (type) {
    case OptionReply.tlsRequired:
      return `it wants TLS: begin the URI with nbds${more}`;
    case OptionReply.unknownExport:
      return `it has no such export${more}`;
    case OptionReply.shutdown:
      return `it is shutting down${more}`;
    case OptionReply.policy:
    case OptionReply.platform:
    case OptionReply.unsupported:
      return `it does not allow ${option === Option.startTls ? 'TLS' : 'this'}${more}`;
    default:
      return `it refuses option ${option} with error ${type - OptionReply.error}${more}`;
  }
}

function refused(text: string): VfioUserError {
  return new VfioUserError('ERR_VFIO_USER_CONNECT', text);
}

function broken(text: string): VfioUserError {
  return new VfioUserError('ERR_VFIO_USER_PROTOCOL', text);
}
