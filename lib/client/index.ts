// SPDX-License-Identifier: MIT
export { connect, type ConnectOptions } from './connect';
export { VfioUserDevice, type DeviceStatistics, type Negotiated } from './device';
export { resolveSocketPath, type Endpoint } from './endpoint';
export type { ProbedBar } from './bar-probe';
export { VfioUserIrq, type IrqTarget, type VectorSelection } from './irq';
export { IrqVector, type IrqHandler, type IrqMode, type IrqOptions, type IrqTrace } from './irq-vector';
export { PciFunction, type FunctionSwitches, type SizedBar } from './pci-function';
export { SignalStream } from './signal-stream';
export { IoEventFd, IoRegionFd, type SubRegion } from './sub-region';
export { EventFd, type EventWatchOptions, type EventWatcher } from '../native';
export { VfioUserRegion, type WriteOptions } from './region';
export { DeviceFeatures } from './device-feature';
export type { DirtyLog, DirtyLogOptions } from './dirty-log';
export { DeviceMigration, type MigrationSupport } from './migration';
export {
  MigrationReadStream,
  MigrationWriteStream,
  type MigrationReadOptions,
  type MigrationWriteOptions,
} from './migration-stream';
