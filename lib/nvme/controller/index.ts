// SPDX-License-Identifier: MIT
/** An emulated NVMe controller, to be served to vfio-user clients. */
export { NvmeControllerModel } from './model';
export { type NamespaceStore, type StoredNamespace, memoryNamespaceStore } from './namespace-store';
export { type NamespaceFolderOptions, openNamespaceFolder } from './namespace-folder';
export type { NvmeNamespaceInfo, NvmeNamespaceOptions } from './namespace';
export type { NamespaceIdentifiers } from './identifiers';
export type { CommandGroup, LatencySummary } from './latencies';
export type { NvmeControllerOptions } from './options';
export type { ControllerStatistics, NamespaceStatistics } from './statistics';
