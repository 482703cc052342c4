// SPDX-License-Identifier: MIT
/** Where the namespaces of an emulated controller keep their data. */
export {
  type AsynchronousBackend,
  type Backend,
  type BackendProperties,
  BackendResult,
  type Deallocation,
  type SynchronousBackend,
} from './backend';
export { BackendError } from './backend-error';
export type { BackendImplementation } from './backend-implementation';
export { type BackendOptions, createBackend } from './create-backend';
export { type CustomBackendOptions, customBackend } from './custom-backend';
export { FileBackend, type FileBackendOptions } from './file-backend';
export { MemoryBackend } from './memory-backend';
export { NullBackend } from './null-backend';
export { NbdBackend, type NbdBackendOptions } from './nbd/nbd-backend';
