// SPDX-License-Identifier: MIT
/** Faults on demand: how they are written, and when they strike. */
export type { DataAction, FaultSpec } from './fault';
export type { FaultState } from './plan';
export { Faults, act, isControllerAction, type FaultEffects } from './faults';
export { parseFault as checkFault } from './parse';
export { FaultPlan, type Strike } from './plan';
