// SPDX-License-Identifier: MIT
/**
 * The client: drive a PCI device that lives in another process.
 *
 * See `vfio-user/server` for serving devices, `vfio-user/nvme` for the NVMe driver and the emulated controller, and
 * `vfio-user/pci` for configuration space.
 */
export * from './client';
export * from './device';
export * from './irq';
export * from './kernel';
export type { FunctionSwitches, PciFunction, ProbedBar, SizedBar } from './pci';
export { DmaBatchError, type DmaBatch, type DmaBatchOutcome } from './dma/batch';
export { DmaContainer, type DmaContainerOptions, type DmaPlace } from './dma/container';
export type { DmaAccess, DmaMapOptions, DmaMapping, DmaRange } from './dma/memory';
export { VfioUserError, type VfioUserErrorCode, type VfioUserErrorDetails } from './errors';
export {
  DirtyBitmap,
  type Capabilities,
  type MigrationStateName,
  type NegotiatedLimits,
  type U64,
} from './protocol';
export type { ConnectionStatistics, MessageTrace, StateTrace } from './transport';
export type {
  Device,
  DeviceDma,
  DeviceEvents,
  DeviceInfo,
  DeviceIrq,
  DeviceListening,
  DeviceLoss,
  DeviceReconnected,
  DeviceReconnecting,
  DeviceRegion,
  DmaMemory,
  MappedArea,
  PciIrqName,
  PciRegionName,
  RegisterSpace,
  RegisterWidth,
  Registers,
  SparseArea,
} from './pci';
