// SPDX-License-Identifier: MIT
/** Faults on demand: how they are written, and when they strike. */
export type { FaultSpec } from './fault';
export type { FaultState } from './plan';
export { Faults } from './faults';
