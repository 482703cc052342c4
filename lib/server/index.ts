// SPDX-License-Identifier: MIT
/** The server: a PCI device that is implemented in TypeScript, served to vfio-user clients. */
export { CommandError, Errno } from '../transport';
export type {
  Client,
  ClientFile,
  ClientMemory,
  ClientRange,
  MappedPlace,
  MigrationModel,
  MigrationSink,
  PciDeviceModel,
  RegionType,
  ServedBar,
  ServedFunction,
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
export {
  RegisterFile,
  type RegisterDeclaration,
  type RegisterFileDeclaration,
  type RegisterOf,
  type RegisterValue,
} from './register-file';
export { serve, type Server, type ServeOptions, type ServerCapabilities } from './server';
