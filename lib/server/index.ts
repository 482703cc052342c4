// SPDX-License-Identifier: MIT
export { CommandError, Errno } from '../transport';
export { configRegion } from './config-region';
export type {
  Client,
  ClientMemory,
  ClientRange,
  MappedPlace,
  PciDeviceModel,
  ServedRegion,
} from './device-model';
export type { MigrationModel, MigrationSink } from './migration-model';
export type { MigrationStateName } from '../protocol';
export {
  EventFd,
  Mapping,
  createSharedMemory,
  pageSize,
  type EventWatcher,
  type HugePageSize,
  type MappingOptions,
  type SharedMemoryOptions,
} from '../native';
export { MsixTable, type MsixLayout } from './msix-table';
export type { ServedIoFd } from './served-io-fds';
export {
  IOREGION_MESSAGE_SIZE,
  decodeIoRegionCommand,
  encodeIoRegionResponse,
  type IoRegionCommand,
} from '../protocol';
export { serve, Server, type ServeOptions } from './server';
