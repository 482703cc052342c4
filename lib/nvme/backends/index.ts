// SPDX-License-Identifier: MIT
/** Where the namespaces of an emulated controller keep their data. */
export { type Backend, BackendResult } from './backend';
export { type BackendOptions, createBackend } from './create-backend';
export { FileBackend } from './file-backend';
export { MemoryBackend } from './memory-backend';
export { NullBackend } from './null-backend';
