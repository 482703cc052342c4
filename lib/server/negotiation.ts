// SPDX-License-Identifier: MIT
import {
  PROTOCOL_MAJOR,
  PROTOCOL_MINOR,
  decodeVersion,
  defaultCapabilities,
  encodeVersion,
  negotiateCapabilities,
  type Capabilities,
  type NegotiatedLimits,
} from '../protocol';
import { CommandError, Errno } from '../transport';

/**
 * What this server announces, unless told otherwise. QEMU does not connect to a server that takes more than 16 descriptors.
 *
 * @param mappings that can be made for clients
 */
export function serverCapabilities(mappings: number): Capabilities {
  const defaults = defaultCapabilities();
  return { ...defaults, maxMsgFds: 16, maxDmaMaps: Math.min(mappings, defaults.maxDmaMaps) };
}

/** The result of a VERSION. */
export interface Agreement {
  /** Payload of the reply. */
  readonly reply: Uint8Array;
  /** What holds for messages to this server: what the reply says, the defaults where it had no room. */
  readonly ours: Capabilities;
  /** What holds for messages to the client. */
  readonly limits: NegotiatedLimits;
}

/** Where the client's end of the twin socket is among the descriptors of the reply. */
const TWIN_FD_INDEX = 0;
/** What a reply may say beside the twin socket, the most telling first. Who has too many DMA ranges is told by an error. */
const KEYS = ['maxDataXferSize', 'maxMsgFds', 'pageSizes', 'writeMultiple', 'maxDmaMaps'] as const;

/**
 * Answers a VERSION (vfio-user, VFIO_USER_VERSION): the major versions must be equal, the lower minor version holds.
 *
 * @param capabilities what to announce
 * @throws CommandError EINVAL for another major version; VfioUserError ERR_VFIO_USER_PROTOCOL for a bad payload
 */
export function answerVersion(payload: Uint8Array, capabilities: Readonly<Capabilities>): Agreement {
  const version = decodeVersion(payload);
  if (version.major !== PROTOCOL_MAJOR) {
    throw new CommandError(
      Errno.EINVAL,
      `version ${version.major}.${version.minor}, major version ${PROTOCOL_MAJOR} is spoken here`,
    );
  }
  const minor = Math.min(version.minor, PROTOCOL_MINOR);
  const theirs = version.capabilities;
  const twin =
    capabilities.twinSocket.supported && theirs.twinSocket.supported && theirs.maxMsgFds > TWIN_FD_INDEX;
  const offered: Capabilities = {
    ...capabilities,
    twinSocket: twin ? { supported: true, fdIndex: TWIN_FD_INDEX } : { supported: false },
    // A reply says no more than was proposed (vfio-user, VFIO_USER_VERSION).
    writeMultiple: capabilities.writeMultiple && theirs.writeMultiple,
  };
  const { reply, said } = fitReply(minor, offered, payload.byteLength);
  const ours = { ...defaultCapabilities(), ...said };
  return { reply, ours, limits: negotiateCapabilities(ours, theirs) };
}

/**
 * QEMU up to 10.2 drops a reply that is longer than its own message, and a client that sends no JSON expects none.
 * What differs from the specification's defaults has to be said first.
 */
function fitReply(
  minor: number,
  capabilities: Readonly<Capabilities>,
  room: number,
): { reply: Uint8Array; said: Partial<Capabilities> } {
  const defaults = defaultCapabilities();
  const isDefault = (key: (typeof KEYS)[number]): boolean => capabilities[key] === defaults[key];
  // No QEMU asks for a twin socket, and a client that does cannot do without what is said of it.
  const { twinSocket } = capabilities;
  let said: Partial<Capabilities> = twinSocket.supported ? { twinSocket } : {};
  let reply = encodeVersion(PROTOCOL_MAJOR, minor, twinSocket.supported ? said : null);
  for (const key of [...KEYS.filter((k) => !isDefault(k)), ...KEYS.filter(isDefault)]) {
    const more = { ...said, [key]: capabilities[key] };
    const longer = encodeVersion(PROTOCOL_MAJOR, minor, more);
    if (longer.byteLength > room && !twinSocket.supported) continue;
    said = more;
    reply = longer;
  }
  return { reply, said };
}
