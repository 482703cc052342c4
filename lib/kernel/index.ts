// SPDX-License-Identifier: MIT
export { openPci, type OpenPciOptions } from './open';
export type { KernelDevice } from './device';
export type { KernelFeatures } from './device-feature';
export type { KernelIrq } from './irq';
export type { KernelRegion } from './region';
