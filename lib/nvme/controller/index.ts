// SPDX-License-Identifier: MIT
/** An emulated NVMe controller, to be served to vfio-user clients. */
export { NvmeControllerModel } from './model';
export type { NvmeControllerOptions } from './options';
export type { ControllerStatistics } from './statistics';
