// SPDX-License-Identifier: MIT

/**
 * The functions of `native/vfio`: one for each ioctl(2). They return 0 or a result, and `-errno` when negative. What tells
 * its own size in its first word (`argsz`) is written into a `Uint8Array`, no further than that reaches.
 */
export interface VfioAddon {
  apiVersion(container: number): number;
  checkExtension(container: number, extension: number): number;
  setIommu(container: number, type: number): number;
  iommuInfo(container: number, out: Uint8Array): number;
  groupStatus(group: number): number;
  setContainer(group: number, container: number): number;
  unsetContainer(group: number): number;
  groupDevice(group: number, name: string): number;
  mapDma(container: number, buffer: ArrayBuffer, slot: number, iova: bigint, access: number): number;
  unmapDma(container: number, iova: bigint, size: number): number;
  unmapAllDma(container: number): number;

  deviceInfo(device: number, out: Uint8Array): number;
  regionInfo(device: number, index: number, out: Uint8Array): number;
  irqInfo(device: number, index: number, out: Uint8Array): number;
  setIrqs(
    device: number,
    index: number,
    flags: number,
    start: number,
    count: number,
    eventfds: Int32Array | null,
  ): number;
  reset(device: number): Promise<number>;
  hotResetInfo(device: number, out: Uint8Array): number;
  hotReset(device: number, groups: Int32Array): Promise<number>;
  deviceFeature(device: number, inOut: Uint8Array): number;
  bindIommufd(device: number, iommufd: number, token: Uint8Array | null): number;
  attachIommufd(device: number, space: number): number;

  setMigrationState(device: number, state: number): Promise<number>;
  precopyInfo(data: number, out: Uint8Array): number;

  startDeviceLog(device: number, pageSize: number, ranges: Uint8Array): number;
  stopDeviceLog(device: number): number;
  reportDeviceLog(device: number, iova: bigint, length: number, pageSize: number, bitmap: Uint8Array): number;
  logContainer(container: number, on: boolean): number;
  reportContainerLog(
    container: number,
    iova: bigint,
    length: number,
    pageSize: number,
    bitmap: Uint8Array,
  ): number;
  logPageTable(iommufd: number, table: number, on: boolean): number;
  reportPageTableLog(
    iommufd: number,
    table: number,
    iova: bigint,
    length: number,
    pageSize: number,
    bitmap: Uint8Array,
  ): number;

  allocateSpace(iommufd: number): number;
  hardwareCapabilities(iommufd: number, device: number): number;
  allocatePageTable(iommufd: number, device: number, space: number): number;
  destroyObject(iommufd: number, id: number): number;
  iovaRanges(iommufd: number, space: number, out: Uint8Array): number;
  mapSpace(
    iommufd: number,
    space: number,
    buffer: ArrayBuffer,
    slot: number,
    iova: bigint,
    access: number,
  ): number;
  unmapSpace(iommufd: number, space: number, iova: bigint, size: number): number;
}
