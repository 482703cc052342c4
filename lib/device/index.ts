// SPDX-License-Identifier: MIT
/** What the devices of both transports have alike. */
export type { DirtyLog, DirtyLogOptions } from './dirty-log';
export type { MigrationSupport, PreCopyInfo } from './migrating-device';
export type { DeviceMigration } from './migration';
export type {
  MigrationReadOptions,
  MigrationReadStream,
  MigrationWriteOptions,
  MigrationWriteStream,
} from './migration-stream';
export type { PciDevice } from './pci-device';
export type { Region } from './region';
