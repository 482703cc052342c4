// SPDX-License-Identifier: MIT
export { EventFd, type EventWatchOptions, type EventWatcher } from './eventfd';
export { FileSeal, closeFd, duplicateFd, fileSeals, fileSize } from './fd';
export { ListeningSocket, type ListenOptions, type ListeningWatcher } from './listening-socket';
export {
  type HugePageSize,
  Mapping,
  type MappingOptions,
  type SharedMemoryOptions,
  createSharedMemory,
} from './memory';
export { pageSize } from './page-size';
export { MAX_FDS_PER_MESSAGE, MAX_SOCKET_PATH, type PeerCredentials, Socket, SocketWatcher } from './socket';
export { SocketExchange } from './socket-exchange';
export { Ready } from './watcher';
