// SPDX-License-Identifier: MIT
/** Configuration space and its capabilities, read and built, and the interfaces of a PCI device. */
export * from './capabilities';
export * from './capability-list';
export * from './config-header';
export {
  ConfigSpace,
  type BarEffect,
  type CommandEffect,
  type ConfigEffect,
  type FunctionLevelResetEffect,
  type MsiEffect,
  type MsiState,
  type MsixEffect,
  type MsixState,
  type PowerEffect,
} from './config-space';
export type {
  AdvancedErrorsDeclaration,
  BarDeclaration,
  BarDeclarations,
  CapabilityDeclaration,
  ConfigSpaceDeclaration,
  ExpressDeclaration,
  IoBarDeclaration,
  MemoryBarDeclaration,
  MsiDeclaration,
  MsixDeclaration,
  PowerManagementDeclaration,
  SerialNumberDeclaration,
  VendorDeclaration,
} from './declaration';
export * from './device';
export type { ProbedBar } from './bar-probe';
export * from './names';
export type { FunctionSwitches, PciFunction, SizedBar } from './pci-function';
export { RegisterAccess, type RegisterWidth, type Registers } from './registers';
