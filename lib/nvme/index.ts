// SPDX-License-Identifier: MIT
/** The NVMe driver, and the emulated NVMe controller with its backends. */
export * from './host';
export * from './controller';
export * from './backends';
