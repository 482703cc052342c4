// SPDX-License-Identifier: MIT
/** The commands of the protocol: one row each, from which the transport and both roles read (docs/contributing.md). */

/** As many descriptors as the receiver takes with one message: its `max_msg_fds` (vfio-user, VFIO_USER_VERSION). */
const MANY = Infinity;

/**
 * What else the receiver may be at work on while it serves a command (vfio-user, "Command Concurrency"):
 * - `none`: all that came before is done, and nothing later is begun: it changes what the device works with;
 * - `all`: anything but commands of `none`: the device model has no part in it;
 * - `region`: as `all`, but accesses of one region go one after the other.
 */
export type CommandOverlap = 'none' | 'all' | 'region';

/** What the protocol says of a command. */
export interface CommandRow {
  /** Its code in the header. */
  readonly code: number;
  /** Its name without the prefix `VFIO_USER_`, for messages. */
  readonly name: string;
  readonly sender: 'client' | 'server';
  /** Most file descriptors that come with the request. */
  readonly requestFds: number;
  /** Most file descriptors that come with the reply. */
  readonly replyFds: number;
  readonly overlap: CommandOverlap;
}

/** Rows by the name that the code uses (vfio-user, "Commands"). 14 was `DIRTY_PAGES` in early drafts and is unused. */
const ROWS = {
  // The reply brings the client's end of a twin socket.
  version: row(1, 'VERSION', 'client', 'none', 0, MANY),
  dmaMap: row(2, 'DMA_MAP', 'client', 'none', 1, 0),
  // SPDK's client sends the descriptor of the DMA_MAP again. Nothing is done with it.
  dmaUnmap: row(3, 'DMA_UNMAP', 'client', 'none', 1, 0),
  deviceGetInfo: row(4, 'DEVICE_GET_INFO', 'client', 'all', 0, 0),
  deviceGetRegionInfo: row(5, 'DEVICE_GET_REGION_INFO', 'client', 'all', 0, MANY),
  deviceGetRegionIoFds: row(6, 'DEVICE_GET_REGION_IO_FDS', 'client', 'all', 0, MANY),
  deviceGetIrqInfo: row(7, 'DEVICE_GET_IRQ_INFO', 'client', 'all', 0, 0),
  // It changes the table of eventfds, as the ioctl of the kernel's VFIO does beside the register accesses of other threads:
  // an unmask must not wait for a slow register.
  deviceSetIrqs: row(8, 'DEVICE_SET_IRQS', 'client', 'all', MANY, 0),
  regionRead: row(9, 'REGION_READ', 'client', 'region', 0, 0),
  regionWrite: row(10, 'REGION_WRITE', 'client', 'region', 0, 0),
  dmaRead: row(11, 'DMA_READ', 'server', 'none', 0, 0),
  dmaWrite: row(12, 'DMA_WRITE', 'server', 'none', 0, 0),
  deviceReset: row(13, 'DEVICE_RESET', 'client', 'none', 0, 0),
  // Rare, and it may concern many regions.
  regionWriteMulti: row(15, 'REGION_WRITE_MULTI', 'client', 'none', 0, 0),
  deviceFeature: row(16, 'DEVICE_FEATURE', 'client', 'none', 0, 0),
  migDataRead: row(17, 'MIG_DATA_READ', 'client', 'none', 0, 0),
  migDataWrite: row(18, 'MIG_DATA_WRITE', 'client', 'none', 0, 0),
};

function row<Code extends number>(
  code: Code,
  name: string,
  sender: CommandRow['sender'],
  overlap: CommandOverlap,
  requestFds: number,
  replyFds: number,
): CommandRow & { readonly code: Code } {
  return { code, name, sender, overlap, requestFds, replyFds };
}

/** Command codes by name. */
export const Command = Object.fromEntries(Object.entries(ROWS).map(([key, { code }]) => [key, code])) as {
  readonly [Key in keyof typeof ROWS]: (typeof ROWS)[Key]['code'];
};

/** Rows by code; the codes are small and nearly without holes. */
const BY_CODE: readonly (CommandRow | undefined)[] = Object.values(ROWS).reduce<(CommandRow | undefined)[]>(
  (rows, each) => {
    rows[each.code] = each;
    return rows;
  },
  [],
);

/**
 * The row of a command.
 *
 * @param code any number, such as one from a peer
 * @returns for a code that the protocol does not define, a row that allows nothing, named such as `command 99`
 */
export function commandRow(code: number): CommandRow {
  return BY_CODE[code] ?? row(code, `command ${code}`, 'client', 'none', 0, 0);
}

/** The name of a command without the prefix `VFIO_USER_`; `command 99` when the protocol defines no such command. */
export function commandName(code: number): string {
  return commandRow(code).name;
}
