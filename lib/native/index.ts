// SPDX-License-Identifier: MIT
export { bindThread } from './affinity';
export { EventFd, type EventWatchOptions, type EventWatcher } from './eventfd';
export { closeFd, duplicateFd, fileSize, lockFile, zeroRange } from './fd';
export { ListeningSocket, type ListeningWatcher, type SocketOwner } from './listening-socket';
export {
  type HugePageSize,
  Mapping,
  type MappingOptions,
  type SharedMemoryOptions,
  createSharedMemory,
  restoreDeviceMappings,
} from './memory';
export { pageSize } from './page-size';
export { PrivateMemory } from './private-memory';
export { type PeerCredentials, Socket, SocketWatcher, checkSocketPath, isAbstractPath } from './socket';
export * from './vfio';
