// SPDX-License-Identifier: MIT
/**
 * Numbers of the vfio-user protocol. Sources: the vfio-user protocol specification (QEMU, `docs/interop/vfio-user.rst`),
 * `linux/vfio.h` for what the specification takes from the kernel, and libvfio-user's `include/vfio-user.h` where it extends both.
 */

/** Size of the header in front of every message, in bytes (vfio-user, Header). */
export const HEADER_SIZE = 16;

/** Bits of the header's flags field (vfio-user, Header). `typeMask` selects the message type, `command` or `reply`. */
export const HeaderFlag = {
  typeMask: 0xf,
  command: 0x0,
  reply: 0x1,
  noReply: 0x10,
  error: 0x20,
} as const;

/** What holds for a peer that does not say otherwise (vfio-user, VFIO_USER_VERSION, Capabilities). Sizes in bytes. */
export const DEFAULT_MAX_DATA_XFER_SIZE = 1024 * 1024;
/** File descriptors that a peer takes in one message when it does not say otherwise. */
export const DEFAULT_MAX_MSG_FDS = 1;
/** DMA mappings that a peer takes when it does not say otherwise. */
export const DEFAULT_MAX_DMA_MAPS = 65535;
/** Page sizes, or'ed together, that a peer takes when it does not say otherwise: 4 KiB only. */
export const DEFAULT_PAGE_SIZES = 4096;

/** `VFIO_DEVICE_FLAGS_*`. */
export const DeviceFlag = { reset: 1 << 0, pci: 1 << 1 } as const;

/** `VFIO_REGION_INFO_FLAG_*`. */
export const RegionFlag = { read: 1 << 0, write: 1 << 1, mmap: 1 << 2, caps: 1 << 3 } as const;

/** `VFIO_REGION_INFO_CAP_*`: capability ids in a region info reply. */
export const RegionCapabilityId = { sparseMmap: 1, type: 2, msixMappable: 3 } as const;

/** `VFIO_IRQ_INFO_*`. */
export const IrqInfoFlag = {
  eventfd: 1 << 0,
  maskable: 1 << 1,
  automasked: 1 << 2,
  noresize: 1 << 3,
} as const;

/** `VFIO_IRQ_SET_*`: one of the data bits and one of the action bits are set. */
export const IrqSetFlag = {
  dataNone: 1 << 0,
  dataBool: 1 << 1,
  dataEventfd: 1 << 2,
  actionMask: 1 << 3,
  actionUnmask: 1 << 4,
  actionTrigger: 1 << 5,
} as const;

/** Flags of DMA_MAP: what the device may do with the memory (vfio-user, VFIO_USER_DMA_MAP). */
export const DmaMapFlag = { read: 1 << 0, write: 1 << 1 } as const;

/** `VFIO_DMA_UNMAP_FLAG_*`. The specification leaves the flags of DMA_UNMAP unused; libvfio-user takes these two. */
export const DmaUnmapFlag = { getDirtyBitmap: 1 << 0, all: 1 << 1 } as const;

/** `VFIO_USER_IO_FD_TYPE_*`; `ioeventfdShadow` is libvfio-user's extension. */
export const IoFdType = { ioeventfd: 0, ioregionfd: 1, ioeventfdShadow: 2 } as const;

/** `VFIO_DEVICE_FEATURE_GET`, `_SET`, `_PROBE` and the mask of the feature index (vfio-user, VFIO_USER_DEVICE_FEATURE). */
export const FeatureFlag = { indexMask: 0xffff, get: 1 << 16, set: 1 << 17, probe: 1 << 18 } as const;

/** `VFIO_DEVICE_FEATURE_*`: feature indexes that vfio-user knows. */
export const Feature = {
  migration: 1,
  migDeviceState: 2,
  dmaLoggingStart: 6,
  dmaLoggingStop: 7,
  dmaLoggingReport: 8,
} as const;

/** `VFIO_MIGRATION_*`: what a device that can migrate supports. */
export const MigrationFlag = { stopCopy: 1 << 0, p2p: 1 << 1, preCopy: 1 << 2 } as const;

/** Name of a state of the migration state machine (vfio-user, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE). */
export type MigrationStateName =
  'error' | 'stop' | 'running' | 'stopCopy' | 'resuming' | 'runningP2p' | 'preCopy' | 'preCopyP2p';

/** `VFIO_DEVICE_STATE_*`: states of the migration state machine. */
export const MigrationState = {
  error: 0,
  stop: 1,
  running: 2,
  stopCopy: 3,
  resuming: 4,
  runningP2p: 5,
  preCopy: 6,
  preCopyP2p: 7,
} as const satisfies Record<MigrationStateName, number>;

/** A state of the migration state machine. */
export type MigrationStateCode = (typeof MigrationState)[keyof typeof MigrationState];

/** Version of the protocol that this package speaks: 0.1, as libvfio-user does. Minor versions below are spoken too. */
export const PROTOCOL_MAJOR = 0;
/** See {@link PROTOCOL_MAJOR}. */
export const PROTOCOL_MINOR = 1;
