// SPDX-License-Identifier: MIT
export { VfioContainer, VfioGroup } from './container';
export { VfioDeviceFile } from './device-file';
export { DmaAccessBit } from './dma-access';
export { MigrationFile } from './migration-file';
export { Iommufd } from './iommufd';
