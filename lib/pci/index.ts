// SPDX-License-Identifier: MIT
export * from './builder';
export * from './capabilities';
export * from './config-image';
export * from './config-space';
export * from './declaration';
export * from './device';
export * from './names';
export { RegisterAccess, type RegisterWidth, type Registers } from './registers';
