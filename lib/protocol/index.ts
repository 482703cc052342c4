// SPDX-License-Identifier: MIT
/** The wire format of vfio-user: constants, the table of commands, and one codec per command. Functions without I/O. */
export * from './commands';
export * from './constants';
export * from './u64';
export * from './header';
export * from './version';
export * from './dma-map';
export * from './dma-unmap';
export * from './device-info';
export * from './region-info';
export * from './region-io-fds';
export * from './ioregionfd';
export * from './irq-info';
export * from './set-irqs';
export * from './region-access';
export * from './dma-access';
export * from './region-write-multi';
export * from './device-feature';
export * from './feature-data';
export * from './migration-data';
export * from './migration-states';
export * from './dirty-pages';
