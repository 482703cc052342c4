// SPDX-License-Identifier: MIT
import { outOfRange } from '../../errors';
import { IDENTIFY_BYTES } from './identify-controller';
import {
  type Decoded,
  bytesToHex,
  decodeLayout,
  encodeLayout,
  hexToBytes,
  structView,
  u32,
  u64,
  u8,
} from './layout';

/** What Identify returns (CNS; NVMe base 2.0, figure "Identify - CNS Values"). @enum */
export const IdentifyCns = {
  namespace: 0x00,
  controller: 0x01,
  activeNamespaces: 0x02,
  namespaceDescriptors: 0x03,
  commandSetNamespace: 0x05,
  commandSetController: 0x06,
  commandSetActiveNamespaces: 0x07,
  independentNamespace: 0x08,
  allocatedNamespaces: 0x10,
  allocatedNamespace: 0x11,
  attachedControllers: 0x12,
  controllers: 0x13,
  primaryController: 0x14,
  secondaryControllers: 0x15,
  uuids: 0x17,
  commandSets: 0x1c,
} as const;

/** I/O command set identifiers (CSI). @enum */
export const CommandSetId = { nvm: 0, keyValue: 1, zoned: 2 } as const;

const MAX_NAMESPACE_IDS = IDENTIFY_BYTES / 4;

/** Decodes a list of namespace ids, CNS 02h, 07h and 10h: ends at the first 0, at most 1024. */
export function decodeNamespaceList(bytes: Uint8Array): number[] {
  const view = structView(bytes, IDENTIFY_BYTES, 'A namespace list');
  const ids: number[] = [];
  for (let i = 0; i < MAX_NAMESPACE_IDS; i++) {
    const id = view.getUint32(4 * i, true);
    if (id === 0) break;
    ids.push(id);
  }
  return ids;
}

/**
 * Encodes a list of namespace ids. The caller sorts them, and leaves out those up to CDW1.NSID.
 * @param ids at most 1024, from 1 to FFFFFFFEh
 */
export function encodeNamespaceList(ids: readonly number[]): Uint8Array {
  if (ids.length > MAX_NAMESPACE_IDS) {
    throw outOfRange(`${ids.length} namespace ids; a list takes at most ${MAX_NAMESPACE_IDS}`);
  }
  const bytes = new Uint8Array(IDENTIFY_BYTES);
  const view = new DataView(bytes.buffer);
  ids.forEach((id, i) => {
    if (!Number.isInteger(id) || id < 1 || id > 0xffff_fffe) throw outOfRange(`${id} is not a namespace id`);
    view.setUint32(4 * i, id, true);
  });
  return bytes;
}

/** Identifiers of a namespace, those that it has (CNS 03h; NVMe base 2.0, 5.17.2.3). */
export interface NamespaceDescriptors {
  /** 8 bytes in hexadecimal. */
  readonly eui64?: string;
  /** 16 bytes in hexadecimal. */
  readonly nguid?: string;
  /** As `01234567-89ab-cdef-0123-456789abcdef`. */
  readonly uuid?: string;
  /** A value of {@link CommandSetId}. */
  readonly csi?: number;
}

/** Namespace identifier types (NIDT) and the length of each. */
const DESCRIPTORS = [
  { type: 1, name: 'eui64', length: 8 },
  { type: 2, name: 'nguid', length: 16 },
  { type: 3, name: 'uuid', length: 16 },
  { type: 4, name: 'csi', length: 1 },
] as const;

const DESCRIPTOR_HEADER = 4;

/**
 * Decodes the list of namespace descriptors. Types that are not known, or whose length is not that of the type, are
 * left out; the list ends at a length of 0, or where it would leave the page.
 */
export function decodeNamespaceDescriptors(bytes: Uint8Array): NamespaceDescriptors {
  const view = structView(bytes, IDENTIFY_BYTES, 'The namespace descriptor list');
  const found: { -readonly [K in keyof NamespaceDescriptors]: NamespaceDescriptors[K] } = {};
  let offset = 0;
  while (offset + DESCRIPTOR_HEADER < IDENTIFY_BYTES) {
    const type = view.getUint8(offset);
    const length = view.getUint8(offset + 1);
    const start = offset + DESCRIPTOR_HEADER;
    if (length === 0 || start + length > IDENTIFY_BYTES) break;
    const known = DESCRIPTORS.find((descriptor) => descriptor.type === type);
    if (known?.length === length) {
      const text = bytesToHex(bytes.subarray(start, start + length));
      if (known.name === 'csi') found.csi = view.getUint8(start);
      else found[known.name] = known.name === 'uuid' ? formatUuid(text) : text;
    }
    offset = start + length;
  }
  return found;
}

/** Encodes a list of namespace descriptors. */
export function encodeNamespaceDescriptors(ids: NamespaceDescriptors): Uint8Array {
  const bytes = new Uint8Array(IDENTIFY_BYTES);
  let offset = 0;
  for (const { type, name, length } of DESCRIPTORS) {
    const value = ids[name];
    if (value === undefined) continue;
    const text = typeof value === 'number' ? value.toString(16).padStart(2, '0') : value.replaceAll('-', '');
    bytes[offset] = type;
    bytes[offset + 1] = length;
    bytes.set(hexToBytes(text, length, name), offset + DESCRIPTOR_HEADER);
    offset += DESCRIPTOR_HEADER + length;
  }
  return bytes;
}

function formatUuid(text: string): string {
  return [text.slice(0, 8), text.slice(8, 12), text.slice(12, 16), text.slice(16, 20), text.slice(20)].join(
    '-',
  );
}

const nvmControllerLayout = {
  /** Greatest Verify, as a power of two of CAP.MPSMIN; 0 for no limit. */
  vsl: u8(0),
  /** Greatest Write Zeroes, as for `vsl`. */
  wzsl: u8(1),
  /** Greatest Write Uncorrectable, as for `vsl`. */
  wusl: u8(2),
  /** Ranges of Dataset Management; 0 for no limit. */
  dmrl: u8(3),
  /** Blocks of a range of Dataset Management; 0 for no limit. */
  dmrsl: u32(4),
  /** Blocks of a Dataset Management command; 0 for no limit. */
  dmsl: u64(8),
};

/**
 * What Identify Controller returns for the NVM command set (CNS 06h with CSI 0; NVM command set 1.0, figure "I/O Command
 * Set Specific Identify Controller Data Structure"). The fields have nvme-cli's JSON keys.
 */
export interface IdentifyNvmController extends Decoded<typeof nvmControllerLayout> {}

/** Decodes Identify Controller of the NVM command set. */
export function decodeIdentifyNvmController(bytes: Uint8Array): IdentifyNvmController {
  return decodeLayout(nvmControllerLayout, structView(bytes, IDENTIFY_BYTES, 'Identify NVM Controller'));
}

/** Encodes Identify Controller of the NVM command set; fields that are not given are zero. */
export function encodeIdentifyNvmController(fields: Partial<IdentifyNvmController>): Uint8Array {
  const bytes = new Uint8Array(IDENTIFY_BYTES);
  encodeLayout(nvmControllerLayout, new DataView(bytes.buffer), fields);
  return bytes;
}
