// SPDX-License-Identifier: MIT
import { commandName } from './commands';
import { HEADER_SIZE, HeaderFlag } from './constants';
import { protocolError } from './wire';

/** The 16 bytes in front of every message (vfio-user, Header). */
export interface Header {
  /** Message id, 16 bit. Belongs to the sender of the command; its reply repeats it. */
  id: number;
  /** Command code, 16 bit. */
  command: number;
  /** Size of the whole message with its header, in bytes. */
  size: number;
  /** {@link HeaderFlag} bits. */
  flags: number;
  /** Positive errno value of a reply with the error bit, 0 when the peer names none. Reserved in commands. */
  error: number;
}

/**
 * Writes a header. Allocates nothing and checks nothing: ids and command codes are taken modulo 2^16, the rest modulo 2^32.
 *
 * @param offset where in `view` the 16 bytes go
 */
export function encodeHeader(view: DataView, offset: number, header: Readonly<Header>): void {
  view.setUint16(offset, header.id, true);
  view.setUint16(offset + 2, header.command, true);
  view.setUint32(offset + 4, header.size, true);
  view.setUint32(offset + 8, header.flags, true);
  view.setUint32(offset + 12, header.error, true);
}

/**
 * Reads the header at `offset`, of which all 16 bytes must be there. Checks nothing; see {@link checkHeader}.
 *
 * @param into where the fields go; a new object when absent
 * @returns `into`
 */
export function decodeHeader(
  view: DataView,
  offset: number,
  into: Header = { id: 0, command: 0, size: 0, flags: 0, error: 0 },
): Header {
  into.id = view.getUint16(offset, true);
  into.command = view.getUint16(offset + 2, true);
  into.size = view.getUint32(offset + 4, true);
  into.flags = view.getUint32(offset + 8, true);
  into.error = view.getUint32(offset + 12, true);
  return into;
}

/**
 * Checks what must hold for a header of any command. Command codes that the protocol does not define pass:
 * they are answered with an error, and their size still tells where the next message starts.
 *
 * @param maxMessageSize largest message that is accepted, header included, in bytes
 * @throws VfioUserError `ERR_VFIO_USER_PROTOCOL` when the size or the type is impossible; the stream cannot be read on
 */
export function checkHeader(header: Readonly<Header>, maxMessageSize: number): void {
  if (header.size < HEADER_SIZE || header.size > maxMessageSize) {
    throw protocolError(
      describe(header),
      `message size is ${header.size}, expected from ${HEADER_SIZE} to ${maxMessageSize}`,
    );
  }
  const type = header.flags & HeaderFlag.typeMask;
  if (type > HeaderFlag.reply) {
    throw protocolError(describe(header), `message type is ${type}, neither command nor reply`);
  }
}

function describe(header: Readonly<Header>): string {
  const kind = isReply(header.flags) ? 'reply' : 'request';
  return `${commandName(header.command)} ${kind} (id ${header.id})`;
}

/**
 * Whether a message is a reply. So is one of type command with the error bit: early versions of rust-vmm's
 * vfio_user crate (rust-vmm/vfio issue 143) mark their error replies like this, and a command cannot have failed yet.
 */
export function isReply(flags: number): boolean {
  return (flags & HeaderFlag.typeMask) === HeaderFlag.reply || (flags & HeaderFlag.error) !== 0;
}

/** Whether a reply says that its command failed. */
export function isError(flags: number): boolean {
  return (flags & HeaderFlag.error) !== 0;
}

/** Whether a command wants no reply. */
export function isNoReply(flags: number): boolean {
  return (flags & HeaderFlag.noReply) !== 0;
}
