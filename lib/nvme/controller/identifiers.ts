// SPDX-License-Identifier: MIT
import { createHash, randomBytes } from 'node:crypto';
import { invalidArgument } from '../../errors';

/** What a namespace is known by, beside its number in one controller (NVMe base 2.0, 4.5). */
export interface NamespaceIdentifiers {
  /** As `01234567-89ab-cdef-0123-456789abcdef`. */
  readonly uuid: string;
  /** NGUID, as 32 hexadecimal digits. */
  readonly nguid: string;
  /** EUI-64, as 16 hexadecimal digits. */
  readonly eui64: string;
}

/** Bit of the first byte of an EUI-64: the identifier was given out locally, and no vendor is to be found in it. */
const LOCALLY_ADMINISTERED = 0x02;
/** Bit of the first byte of an EUI-64: the identifier is that of a group. */
const GROUP = 0x01;

/** A digest of what something is known by; every purpose has its own. */
function digest(purpose: string, identity: string): Buffer {
  return createHash('sha256').update(`vfio-user ${purpose} ${identity}`).digest();
}

/** The serial number of a drive whose data is known by this: by chance when nothing of it outlives the process. */
export function derivedSerial(identity: string | undefined): string {
  const bytes = identity === undefined ? randomBytes(6) : createHash('sha256').update(identity).digest();
  return `VFU${bytes.subarray(0, 6).toString('hex')}`;
}

/** A UUID that follows from an identity. Version 8 leaves its bits to the maker (RFC 9562, 5.8). */
export function derivedUuid(purpose: string, identity: string): string {
  const bytes = digest(purpose, identity).subarray(0, 16);
  bytes[6] = ((bytes[6] as number) & 0x0f) | 0x80;
  bytes[8] = ((bytes[8] as number) & 0x3f) | 0x80;
  return withDashes(bytes.toString('hex'));
}

/**
 * The identifiers of a namespace, those that are given and the others from its identity. NGUID has the digits of the UUID, unless
 * it is given.
 *
 * @throws TypeError for one that does not have its form
 */
export function namespaceIdentifiers(
  given: { readonly [K in keyof NamespaceIdentifiers]?: string | undefined },
  identity: string,
): NamespaceIdentifiers {
  const uuid = withDashes(
    given.uuid === undefined
      ? digits(derivedUuid('namespace', identity))
      : identifierDigits('uuid', given.uuid, 32),
  );
  return {
    uuid,
    nguid: given.nguid === undefined ? digits(uuid) : identifierDigits('nguid', given.nguid, 32),
    eui64: given.eui64 === undefined ? derivedEui64(identity) : identifierDigits('eui64', given.eui64, 16),
  };
}

function derivedEui64(identity: string): string {
  const bytes = digest('EUI-64', identity).subarray(0, 8);
  bytes[0] = ((bytes[0] as number) | LOCALLY_ADMINISTERED) & ~GROUP;
  return bytes.toString('hex');
}

/** The digits of an identifier in lower case, without the dashes that people write into it. */
function identifierDigits(name: keyof NamespaceIdentifiers, text: string, count: number): string {
  const found = digits(text).toLowerCase();
  if (!new RegExp(`^[0-9a-f]{${count}}$`).test(found)) {
    throw invalidArgument(`${name} is ${count} hexadecimal digits, with or without dashes, got "${text}"`);
  }
  // Zeros say that there is no identifier (NVM command set 1.0, figure "Identify Namespace Data Structure").
  if (/^0+$/.test(found)) throw invalidArgument(`${name} is not zero`);
  return found;
}

function digits(text: string): string {
  return text.replaceAll('-', '');
}

function withDashes(text: string): string {
  return text.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}
