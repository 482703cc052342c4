// SPDX-License-Identifier: MIT
/** Namespace Management and Namespace Attachment (NVMe base 2.0, 5.23 and 5.22). */
import { outOfRange } from '../../errors';
import { bits, wordCodec } from './bits';
import { IDENTIFY_BYTES } from './identify-controller';
import { type Decoded, decodeLayout, encodeLayout, structView, u16, u32, u64, u8 } from './layout';

/** CDW10 of Namespace Management and of Namespace Attachment. */
export const namespaceCdw10 = wordCodec({
  /** SEL: a value of {@link NamespaceManagement}, or of {@link NamespaceAttachment}. */
  select: bits(0, 4),
});

/** CDW11 of Namespace Management. */
export const namespaceManagementCdw11 = wordCodec({
  /** CSI of the namespace that is made: a value of `CommandSetId`. */
  csi: bits(24, 8),
});

/** Values of SEL of Namespace Management. */
export const NamespaceManagement = { create: 0, delete: 1 } as const;

/** Values of SEL of Namespace Attachment. */
export const NamespaceAttachment = { attach: 0, detach: 1 } as const;

/** Bytes of the data of both commands. */
export const NAMESPACE_DATA_BYTES = IDENTIFY_BYTES;

const layout = {
  /** Size in logical blocks. */
  nsze: u64(0),
  /** Blocks that may be allocated: those of the size, unless there is thin provisioning. */
  ncap: u64(8),
  /** LBA format: bits 3:0 are the index, bits 6:5 its upper bits; bit 4 is metadata at the end of each block. */
  flbas: u8(26),
  /** Protection information; bits 2:0 are the type, 0 for none. */
  dps: u8(29),
  /** Bit 0 is a namespace that several controllers may have. */
  nmic: u8(30),
  /** ANA group; 0 lets the controller choose. */
  anagrpid: u32(92),
  /** NVM set; 0 lets the controller choose. */
  nvmsetid: u16(100),
  /** Endurance group; 0 lets the controller choose. */
  endgid: u16(102),
};

/**
 * What a namespace to be made is like (NVM command set 1.0, figure "Namespace Management - Host Software Specified Fields"). The fields have
 * nvme-cli's names.
 */
export interface NamespaceToCreate extends Decoded<typeof layout> {}

/** Decodes the data of Namespace Management, create. */
export function decodeNamespaceToCreate(bytes: Uint8Array): NamespaceToCreate {
  return decodeLayout(layout, structView(bytes, NAMESPACE_DATA_BYTES, 'Namespace Management'));
}

/** Encodes the data of Namespace Management, create; fields that are not given are zero. */
export function encodeNamespaceToCreate(fields: Partial<NamespaceToCreate>): Uint8Array {
  const bytes = new Uint8Array(NAMESPACE_DATA_BYTES);
  encodeLayout(layout, new DataView(bytes.buffer), fields);
  return bytes;
}

const MAX_CONTROLLERS = 2047;

/** Decodes a controller list (NVMe base 2.0, 4.4.1); null when it has no ids, too many, or does not have them in rising order. */
export function decodeControllerList(bytes: Uint8Array): number[] | null {
  const view = structView(bytes, NAMESPACE_DATA_BYTES, 'A controller list');
  const count = view.getUint16(0, true);
  if (count === 0 || count > MAX_CONTROLLERS) return null;
  const ids = Array.from({ length: count }, (_, i) => view.getUint16(2 + 2 * i, true));
  return ids.every((id, i) => i === 0 || id > (ids[i - 1] as number)) ? ids : null;
}

/**
 * Encodes a controller list.
 * @param ids at most 2047, in rising order
 * @throws RangeError
 */
export function encodeControllerList(ids: readonly number[]): Uint8Array {
  if (ids.length > MAX_CONTROLLERS) {
    throw outOfRange(`${ids.length} controllers; a list takes at most ${MAX_CONTROLLERS}`);
  }
  const bytes = new Uint8Array(NAMESPACE_DATA_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, ids.length, true);
  ids.forEach((id, i) => {
    if (!Number.isInteger(id) || id < 0 || id > 0xffff) throw outOfRange(`${id} is not a controller id`);
    view.setUint16(2 + 2 * i, id, true);
  });
  return bytes;
}
