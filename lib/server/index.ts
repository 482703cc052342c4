// SPDX-License-Identifier: MIT
export { CommandError, Errno } from '../transport';
export { configRegion } from './config-region';
export type {
  Client,
  ClientMemory,
  ClientRange,
  MappedPlace,
  PciDeviceModel,
  ServedRegion,
} from './device-model';
export { serve, Server, type ServeOptions } from './server';
