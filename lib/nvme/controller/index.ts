// SPDX-License-Identifier: MIT
/** An emulated NVMe controller, to be served to vfio-user clients. */
export type { Backend } from './backend';
export { NvmeControllerModel } from './controller';
export { type BackendOptions, createBackend } from './create-backend';
export { FileBackend } from './file-backend';
export { MemoryBackend } from './memory-backend';
export { NullBackend } from './null-backend';
export type { NvmeControllerOptions } from './options';
export type { ControllerStatistics } from './statistics';
