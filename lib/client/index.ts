// SPDX-License-Identifier: MIT
export { connect, type ConnectOptions } from './connect';
export { VfioUserDevice, type Negotiated } from './device';
export {
  DmaContainer,
  type DmaAccess,
  type DmaContainerOptions,
  type DmaMapOptions,
  type DmaMapping,
  type DmaRange,
} from './dma-container';
export { resolveSocketPath, type Endpoint } from './endpoint';
export { VfioUserIrq } from './irq';
export { VfioUserRegion } from './region';
