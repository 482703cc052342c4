// SPDX-License-Identifier: MIT
/** The server: a PCI device that is implemented in TypeScript, served to vfio-user clients. */
export { CommandError, Errno } from '../transport';
export { configRegion } from './config-region';
export type {
  Client,
  ClientMemory,
  ClientRange,
  MappedPlace,
  MigrationModel,
  MigrationSink,
  PciDeviceModel,
  RegionType,
  ServedRegion,
  SharedFile,
} from './device-model';
export {
  EventFd,
  Mapping,
  createSharedMemory,
  pageSize,
  type EventWatchOptions,
  type EventWatcher,
  type HugePageSize,
  type MappingOptions,
  type PeerCredentials,
  type SharedMemoryOptions,
  type SocketOwner,
} from '../native';
export { MsixTable, type MsixLayout } from './msix-table';
export type {
  ModelIoRegionFd,
  ServedIoEventFd,
  ServedIoFd,
  ServedIoRegionFd,
  ServedShadowIoEventFd,
  ShadowPlace,
  SubRegionPlace,
} from './served-io-fds';
export {
  IOREGION_MESSAGE_SIZE,
  decodeIoRegionCommand,
  encodeIoRegionResponse,
  type IoRegionCommand,
  type MigrationStateName,
  type U64,
} from '../protocol';
export { serve, type Server, type ServeOptions, type ServerCapabilities } from './server';
