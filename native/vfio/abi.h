// SPDX-License-Identifier: MIT
#ifndef VFIO_USER_VFIO_ABI_H_
#define VFIO_USER_VFIO_ABI_H_

#include <sys/ioctl.h>

#include <cstdint>

/**
 * The part of the kernel's VFIO and iommufd interfaces that the addon calls, as include/uapi/linux/vfio.h and
 * include/uapi/linux/iommufd.h of Linux 6.12 have it. Headers of older systems lack much of it, and what was
 * compiled with them runs on newer kernels: the interface only grows, and each structure tells its own size.
 */
namespace vfio_abi {

constexpr unsigned kBase = 100;
constexpr unsigned long Vfio(unsigned number) { return _IO(';', kBase + number); }
constexpr unsigned long Iommu(unsigned number) { return _IO(';', number); }

// /dev/vfio/vfio, the container
constexpr unsigned long kGetApiVersion = Vfio(0);
constexpr unsigned long kCheckExtension = Vfio(1);
constexpr unsigned long kSetIommu = Vfio(2);
constexpr unsigned long kIommuGetInfo = Vfio(12);
constexpr unsigned long kIommuMapDma = Vfio(13);
constexpr unsigned long kIommuUnmapDma = Vfio(14);
constexpr unsigned long kIommuDirtyPages = Vfio(17);

// /dev/vfio/GROUP
constexpr unsigned long kGroupGetStatus = Vfio(3);
constexpr unsigned long kGroupSetContainer = Vfio(4);
constexpr unsigned long kGroupUnsetContainer = Vfio(5);
constexpr unsigned long kGroupGetDeviceFd = Vfio(6);

// A device, from its group or /dev/vfio/devices/vfioN
constexpr unsigned long kDeviceGetInfo = Vfio(7);
constexpr unsigned long kDeviceGetRegionInfo = Vfio(8);
constexpr unsigned long kDeviceGetIrqInfo = Vfio(9);
constexpr unsigned long kDeviceSetIrqs = Vfio(10);
constexpr unsigned long kDeviceReset = Vfio(11);
constexpr unsigned long kDeviceGetPciHotResetInfo = Vfio(12);
constexpr unsigned long kDevicePciHotReset = Vfio(13);
constexpr unsigned long kDeviceFeature = Vfio(17);
constexpr unsigned long kDeviceBindIommufd = Vfio(18);
constexpr unsigned long kDeviceAttachIommufdPt = Vfio(19);

// What the data of a migration go through
constexpr unsigned long kMigGetPrecopyInfo = Vfio(21);

// /dev/iommu
constexpr unsigned long kIommuDestroy = Iommu(0x80);
constexpr unsigned long kIommuIoasAlloc = Iommu(0x81);
constexpr unsigned long kIommuIoasIovaRanges = Iommu(0x84);
constexpr unsigned long kIommuIoasMap = Iommu(0x85);
constexpr unsigned long kIommuIoasUnmap = Iommu(0x86);
constexpr unsigned long kIommuHwptAlloc = Iommu(0x89);
constexpr unsigned long kIommuGetHwInfo = Iommu(0x8a);
constexpr unsigned long kIommuHwptSetDirtyTracking = Iommu(0x8b);
constexpr unsigned long kIommuHwptGetDirtyBitmap = Iommu(0x8c);

/** Both interfaces number what a device may do with memory, differently. */
constexpr uint32_t kDmaMapRead = 1U << 0;
constexpr uint32_t kDmaMapWrite = 1U << 1;
constexpr uint32_t kDmaUnmapAll = 1U << 1;
constexpr uint32_t kIoasMapFixedIova = 1U << 0;
constexpr uint32_t kIoasMapWriteable = 1U << 1;
constexpr uint32_t kIoasMapReadable = 1U << 2;
constexpr uint32_t kBindToken = 1U << 0;
constexpr uint32_t kDirtyPagesStart = 1U << 0;
constexpr uint32_t kDirtyPagesStop = 1U << 1;
constexpr uint32_t kDirtyPagesGetBitmap = 1U << 2;
constexpr uint32_t kHwptAllocDirtyTracking = 1U << 1;
constexpr uint32_t kHwptDirtyTrackingEnable = 1U << 0;

// Flags of vfio_device_feature, whose low 16 bits are the number of the feature.
constexpr uint32_t kFeatureGet = 1U << 16;
constexpr uint32_t kFeatureSet = 1U << 17;
constexpr uint32_t kFeatureMigrationState = 2;
constexpr uint32_t kFeatureDmaLoggingStart = 6;
constexpr uint32_t kFeatureDmaLoggingStop = 7;
constexpr uint32_t kFeatureDmaLoggingReport = 8;

struct GroupStatus {
  uint32_t argsz;
  uint32_t flags;
};

struct DmaMap {
  uint32_t argsz;
  uint32_t flags;
  uint64_t vaddr;
  uint64_t iova;
  uint64_t size;
};

struct DmaUnmap {
  uint32_t argsz;
  uint32_t flags;
  uint64_t iova;
  uint64_t size;
};

/** Data follows. */
struct IrqSet {
  uint32_t argsz;
  uint32_t flags;
  uint32_t index;
  uint32_t start;
  uint32_t count;
};

/** Descriptors of groups follow. */
struct PciHotReset {
  uint32_t argsz;
  uint32_t flags;
  uint32_t count;
};

/** The token is of Linux 6.17, and no part of the structure before that. */
struct DeviceBindIommufd {
  uint32_t argsz;
  uint32_t flags;
  int32_t iommufd;
  uint32_t out_devid;
  uint64_t token_uuid_ptr;
};

struct DeviceAttachIommufdPt {
  uint32_t argsz;
  uint32_t flags;
  uint32_t pt_id;
};

/** Data follows. */
struct DeviceFeature {
  uint32_t argsz;
  uint32_t flags;
};

struct DeviceMigrationState {
  DeviceFeature feature;
  uint32_t device_state;
  int32_t data_fd;
};

struct PrecopyInfo {
  uint32_t argsz;
  uint32_t flags;
  uint64_t initial_bytes;
  uint64_t dirty_bytes;
};

struct DeviceLogRange {
  uint64_t iova;
  uint64_t length;
};

struct DeviceLogStart {
  DeviceFeature feature;
  uint64_t page_size;
  uint32_t num_ranges;
  uint32_t reserved;
  uint64_t ranges;
};

struct DeviceLogReport {
  DeviceFeature feature;
  uint64_t iova;
  uint64_t length;
  uint64_t page_size;
  uint64_t bitmap;
};

struct ContainerDirtyPages {
  uint32_t argsz;
  uint32_t flags;
};

struct ContainerDirtyBitmap {
  ContainerDirtyPages head;
  uint64_t iova;
  uint64_t size;
  uint64_t page_size;
  uint64_t bitmap_size;
  uint64_t bitmap;
};

struct IommuDestroy {
  uint32_t size;
  uint32_t id;
};

struct IommuIoasAlloc {
  uint32_t size;
  uint32_t flags;
  uint32_t out_ioas_id;
};

struct IommuIoasIovaRanges {
  uint32_t size;
  uint32_t ioas_id;
  uint32_t num_iovas;
  uint32_t reserved;
  uint64_t allowed_iovas;
  uint64_t out_iova_alignment;
};

struct IommuIoasMap {
  uint32_t size;
  uint32_t flags;
  uint32_t ioas_id;
  uint32_t reserved;
  uint64_t user_va;
  uint64_t length;
  uint64_t iova;
};

struct IommuIoasUnmap {
  uint32_t size;
  uint32_t ioas_id;
  uint64_t iova;
  uint64_t length;
};

struct IommuHwptAlloc {
  uint32_t size;
  uint32_t flags;
  uint32_t dev_id;
  uint32_t pt_id;
  uint32_t out_hwpt_id;
  uint32_t reserved;
  uint32_t data_type;
  uint32_t data_len;
  uint64_t data_uptr;
};

struct IommuHwInfo {
  uint32_t size;
  uint32_t flags;
  uint32_t dev_id;
  uint32_t data_len;
  uint64_t data_uptr;
  uint32_t out_data_type;
  uint32_t reserved;
  uint64_t out_capabilities;
};

struct IommuHwptSetDirtyTracking {
  uint32_t size;
  uint32_t flags;
  uint32_t hwpt_id;
  uint32_t reserved;
};

struct IommuHwptGetDirtyBitmap {
  uint32_t size;
  uint32_t hwpt_id;
  uint32_t flags;
  uint32_t reserved;
  uint64_t iova;
  uint64_t length;
  uint64_t page_size;
  uint64_t data;
};

// The layouts that the kernel reads. Its structures for memory have no holes, on any platform.
static_assert(sizeof(DmaMap) == 32 && sizeof(DmaUnmap) == 24 && sizeof(IrqSet) == 20);
static_assert(sizeof(PciHotReset) == 12 && sizeof(DeviceBindIommufd) == 24);
static_assert(sizeof(DeviceMigrationState) == 16 && sizeof(PrecopyInfo) == 24);
static_assert(sizeof(DeviceLogRange) == 16 && sizeof(DeviceLogStart) == 32 && sizeof(DeviceLogReport) == 40);
static_assert(sizeof(ContainerDirtyPages) == 8 && sizeof(ContainerDirtyBitmap) == 48);
static_assert(sizeof(IommuIoasIovaRanges) == 32 && sizeof(IommuIoasMap) == 40);
static_assert(sizeof(IommuIoasUnmap) == 24 && sizeof(IommuHwptAlloc) == 40 && sizeof(IommuHwInfo) == 40);
static_assert(sizeof(IommuHwptSetDirtyTracking) == 16 && sizeof(IommuHwptGetDirtyBitmap) == 48);

}  // namespace vfio_abi

#endif  // VFIO_USER_VFIO_ABI_H_
