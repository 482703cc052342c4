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

/**
 * What becomes of a client's command when its connection ends before the reply, and another is set up in its place
 * (docs/reconnecting.md):
 * - `repeat`: it asks, or says what is to be; the same again does no harm, so it is sent again when all is set up;
 * - `setup`: it says what a device is to have, which is a part of what is set up;
 * - `fail`: it acts on the device, which may or may not have done it already. Nobody but the caller can tell what to do.
 */
export type CommandLoss = 'repeat' | 'setup' | 'fail';

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
  readonly loss: CommandLoss;
}

/** Rows by the name that the code uses (vfio-user, "Commands"). 14 was `DIRTY_PAGES` in early drafts and is unused. */
const ROWS = {
  // The reply brings the client's end of a twin socket.
  version: row(1, 'VERSION', 'client', 'none', 'fail', 0, MANY),
  dmaMap: row(2, 'DMA_MAP', 'client', 'none', 'setup', 1, 0),
  // SPDK's client sends the descriptor of the DMA_MAP again. Nothing is done with it.
  dmaUnmap: row(3, 'DMA_UNMAP', 'client', 'none', 'setup', 1, 0),
  deviceGetInfo: row(4, 'DEVICE_GET_INFO', 'client', 'all', 'repeat', 0, 0),
  deviceGetRegionInfo: row(5, 'DEVICE_GET_REGION_INFO', 'client', 'all', 'repeat', 0, MANY),
  deviceGetRegionIoFds: row(6, 'DEVICE_GET_REGION_IO_FDS', 'client', 'all', 'repeat', 0, MANY),
  deviceGetIrqInfo: row(7, 'DEVICE_GET_IRQ_INFO', 'client', 'all', 'repeat', 0, 0),
  // It changes the table of eventfds, as the ioctl of the kernel's VFIO does beside the register accesses of other threads:
  // an unmask must not wait for a slow register. The request says so where it is to signal a vector, which acts.
  deviceSetIrqs: row(8, 'DEVICE_SET_IRQS', 'client', 'all', 'repeat', MANY, 0),
  regionRead: row(9, 'REGION_READ', 'client', 'region', 'fail', 0, 0),
  regionWrite: row(10, 'REGION_WRITE', 'client', 'region', 'fail', 0, 0),
  dmaRead: row(11, 'DMA_READ', 'server', 'none', 'fail', 0, 0),
  dmaWrite: row(12, 'DMA_WRITE', 'server', 'none', 'fail', 0, 0),
  deviceReset: row(13, 'DEVICE_RESET', 'client', 'none', 'fail', 0, 0),
  // Rare, and it may concern many regions.
  regionWriteMulti: row(15, 'REGION_WRITE_MULTI', 'client', 'none', 'fail', 0, 0),
  // Most get or probe. The request says so where it acts: one that sets, and one whose answer clears what it tells.
  deviceFeature: row(16, 'DEVICE_FEATURE', 'client', 'none', 'repeat', 0, 0),
  migDataRead: row(17, 'MIG_DATA_READ', 'client', 'none', 'fail', 0, 0),
  migDataWrite: row(18, 'MIG_DATA_WRITE', 'client', 'none', 'fail', 0, 0),
};

function row<Code extends number>(
  code: Code,
  name: string,
  sender: CommandRow['sender'],
  overlap: CommandOverlap,
  loss: CommandLoss,
  requestFds: number,
  replyFds: number,
): CommandRow & { readonly code: Code } {
  return { code, name, sender, overlap, loss, requestFds, replyFds };
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
  return BY_CODE[code] ?? row(code, `command ${code}`, 'client', 'none', 'fail', 0, 0);
}

/** The name of a command without the prefix `VFIO_USER_`; `command 99` when the protocol defines no such command. */
export function commandName(code: number): string {
  return commandRow(code).name;
}
