// SPDX-License-Identifier: MIT
/** The admin commands about namespaces as a whole, word by word. */
import { outOfRange } from '../../errors';
import {
  AdminOpcode,
  NamespaceAttachment,
  NamespaceManagement,
  SecureErase,
  encodeControllerList,
  encodeNamespaceToCreate,
  formatCdw10,
  namespaceCdw10,
} from '../spec';
import type { CreateNamespaceOptions, FormatOptions } from './admin-options';
import type { AdminCommand, QueuedCommand } from './admin-queue';

/** Format NVM (NVMe base 2.0, 5.14). */
export function formatCommand(
  nsid: number,
  { format = 0, secureErase = 'none' }: FormatOptions,
): QueuedCommand {
  const { lower, upper } = formatIndex(format);
  const cdw10 = formatCdw10.encode({
    format: lower,
    formatUpper: upper,
    secureErase: SecureErase[secureErase],
  });
  return { opcode: AdminOpcode.formatNvm, nsid, cdw10 };
}

/** Namespace Management, create (NVMe base 2.0, 5.23). */
export function createCommand({
  blocks,
  capacity = blocks,
  format = 0,
  shared = false,
  ...wait
}: CreateNamespaceOptions): AdminCommand {
  for (const [name, count] of [
    ['blocks', blocks],
    ['capacity', capacity],
  ] as const) {
    if (!Number.isSafeInteger(count) || count < 1) {
      throw outOfRange(`${name} of a namespace is an integer from 1 on, got ${count}`);
    }
  }
  const { lower, upper } = formatIndex(format);
  const write = encodeNamespaceToCreate({
    nsze: BigInt(blocks),
    ncap: BigInt(capacity),
    flbas: lower | (upper << 5),
    nmic: shared ? 1 : 0,
  });
  const cdw10 = namespaceCdw10.encode({ select: NamespaceManagement.create });
  return { opcode: AdminOpcode.namespaceManagement, cdw10, write, ...wait };
}

/** Namespace Management, delete. */
export function deleteCommand(nsid: number): QueuedCommand {
  const cdw10 = namespaceCdw10.encode({ select: NamespaceManagement.delete });
  return { opcode: AdminOpcode.namespaceManagement, nsid, cdw10 };
}

/** Namespace Attachment (NVMe base 2.0, 5.22). */
export function attachmentCommand(
  select: keyof typeof NamespaceAttachment,
  nsid: number,
  controllers: readonly number[],
): AdminCommand {
  const cdw10 = namespaceCdw10.encode({ select: NamespaceAttachment[select] });
  const write = encodeControllerList(controllers);
  return { opcode: AdminOpcode.namespaceAttachment, nsid, cdw10, write };
}

/** The index of an LBA format in two parts of 4 and 2 bits. */
function formatIndex(format: number): { lower: number; upper: number } {
  if (!Number.isInteger(format) || format < 0 || format > 63) {
    throw outOfRange(`The index of an LBA format is an integer from 0 to 63, got ${format}`);
  }
  return { lower: format & 0xf, upper: format >>> 4 };
}
