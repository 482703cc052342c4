// SPDX-License-Identifier: MIT
/** The NVMe driver, and the emulated NVMe controller. */
export * from './host';
export * from './controller';
