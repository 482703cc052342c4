// SPDX-License-Identifier: MIT
export { connect, type ConnectOptions } from './connect';
export type { DeviceStatistics, VfioUserDevice } from './device';
export type { Endpoint } from './endpoint';
export type { LinkState } from './link';
export type { Negotiated } from './negotiated';
export type { ReconnectOptions } from './reconnection';
export type { VfioUserIrq } from './irq';
export type { PostedWriteStatistics } from './posted-writes';
export type { IoEventFd, IoRegionFd, SubRegion } from './sub-region';
export { EventFd, type EventWatchOptions, type EventWatcher } from '../native';
export type { VfioUserRegion, RegionWriteOptions } from './region';
export type { DeviceFeatures } from './device-feature';
