// SPDX-License-Identifier: MIT
// Which memory devices have written: as a device tells itself, as the IOMMU of a container tells, and as that
// of an iommufd does (linux/vfio.h, linux/iommufd.h).
#include <cstddef>

#include "../addon.h"
#include "../arguments.h"
#include "abi.h"
#include "ioctl.h"

namespace {

/** What is asked for: a bit for each page of a range, set in `bitmap` and never cleared there. */
struct DirtyQuery {
  uint64_t iova = 0;
  uint64_t length = 0;
  uint64_t page_size = 0;
  View<uint8_t> bitmap;
};

/** Whether a bitmap has room for all bits: the kernel takes its size from the range. */
bool Fits(const DirtyQuery& query) {
  constexpr uint64_t kBits = 64;
  if (query.page_size == 0 || query.length == 0) return false;
  const uint64_t pages = (query.length - 1) / query.page_size + 1;
  return query.bitmap.length / sizeof(uint64_t) >= (pages - 1) / kBits + 1;
}

/**
 * Takes what was logged of a range: the arguments from `first` on are iova (a bigint), length, page size and
 * bitmap, of which `structure` makes what the ioctl `request` reads. 0 or -errno.
 */
template <typename Structure>
Napi::Value Report(const Napi::CallbackInfo& info, Arguments& arguments, size_t first, int fd,
                   unsigned long request, Structure structure) {
  DirtyQuery query;
  query.iova = arguments.Address(first);
  query.length = arguments.Size(first + 1);
  query.page_size = arguments.Size(first + 2);
  query.bitmap = arguments.Bytes(first + 3);
  if (!arguments.ok()) return info.Env().Undefined();
  if (!Fits(query)) return Napi::Number::New(info.Env(), -EINVAL);
  auto report = structure(query);
  return Napi::Number::New(info.Env(), Ioctl(fd, request, &report));
}

/**
 * startDeviceLog(fd, pageSize, ranges): lets a device log the pages that it writes; `ranges` has pairs of
 * u64, address and bytes. The size of page that the device has chosen, or -errno.
 */
Napi::Value StartDeviceLog(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  vfio_abi::DeviceLogStart start = {};
  start.feature.argsz = sizeof(start);
  start.feature.flags = vfio_abi::kFeatureSet | vfio_abi::kFeatureDmaLoggingStart;
  start.page_size = arguments.Size(1);
  const View<uint8_t> ranges = arguments.Bytes(2);
  if (!arguments.ok()) return info.Env().Undefined();
  start.num_ranges = static_cast<uint32_t>(ranges.length / sizeof(vfio_abi::DeviceLogRange));
  start.ranges = reinterpret_cast<uintptr_t>(ranges.data);
  const int result = Ioctl(fd, vfio_abi::kDeviceFeature, &start);
  return Napi::Number::New(info.Env(), result < 0 ? result : static_cast<double>(start.page_size));
}

/** stopDeviceLog(fd): 0 or -errno. */
Napi::Value StopDeviceLog(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  if (!arguments.ok()) return info.Env().Undefined();
  vfio_abi::DeviceFeature stop = {};
  stop.argsz = sizeof(stop);
  stop.flags = vfio_abi::kFeatureSet | vfio_abi::kFeatureDmaLoggingStop;
  return Napi::Number::New(info.Env(), Ioctl(fd, vfio_abi::kDeviceFeature, &stop));
}

/** reportDeviceLog(fd, iova, length, pageSize, bitmap): takes what was logged. 0 or -errno. */
Napi::Value ReportDeviceLog(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  return Report(info, arguments, 1, fd, vfio_abi::kDeviceFeature, [](const DirtyQuery& query) {
    vfio_abi::DeviceLogReport report = {};
    report.feature.argsz = sizeof(report);
    report.feature.flags = vfio_abi::kFeatureGet | vfio_abi::kFeatureDmaLoggingReport;
    report.iova = query.iova;
    report.length = query.length;
    report.page_size = query.page_size;
    report.bitmap = reinterpret_cast<uintptr_t>(query.bitmap.data);
    return report;
  });
}

/** logContainer(container, on): begins or ends the log of all mappings of a container. 0 or -errno. */
Napi::Value LogContainer(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  const bool on = arguments.Boolean(1);
  if (!arguments.ok()) return info.Env().Undefined();
  vfio_abi::ContainerDirtyPages pages = {};
  pages.argsz = sizeof(pages);
  pages.flags = on ? vfio_abi::kDirtyPagesStart : vfio_abi::kDirtyPagesStop;
  return Napi::Number::New(info.Env(), Ioctl(fd, vfio_abi::kIommuDirtyPages, &pages));
}

/** reportContainerLog(container, iova, length, pageSize, bitmap): of a range that was mapped as a whole. 0 or
 * -errno. */
Napi::Value ReportContainerLog(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  return Report(info, arguments, 1, fd, vfio_abi::kIommuDirtyPages, [](const DirtyQuery& query) {
    vfio_abi::ContainerDirtyBitmap report = {};
    report.head.argsz = sizeof(report);
    report.head.flags = vfio_abi::kDirtyPagesGetBitmap;
    report.iova = query.iova;
    report.size = query.length;
    report.page_size = query.page_size;
    report.bitmap_size = query.bitmap.length;
    report.bitmap = reinterpret_cast<uintptr_t>(query.bitmap.data);
    return report;
  });
}

/** logPageTable(iommufd, table, on): begins or ends the log of a page table. 0 or -errno. */
Napi::Value LogPageTable(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  vfio_abi::IommuHwptSetDirtyTracking tracking = {};
  tracking.size = sizeof(tracking);
  tracking.hwpt_id = static_cast<uint32_t>(arguments.Integer(1, 0, UINT32_MAX));
  tracking.flags = arguments.Boolean(2) ? vfio_abi::kHwptDirtyTrackingEnable : 0;
  if (!arguments.ok()) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), Ioctl(fd, vfio_abi::kIommuHwptSetDirtyTracking, &tracking));
}

/** reportPageTableLog(iommufd, table, iova, length, pageSize, bitmap): takes what was logged. 0 or -errno. */
Napi::Value ReportPageTableLog(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  const auto table = static_cast<uint32_t>(arguments.Integer(1, 0, UINT32_MAX));
  return Report(info, arguments, 2, fd, vfio_abi::kIommuHwptGetDirtyBitmap, [table](const DirtyQuery& query) {
    vfio_abi::IommuHwptGetDirtyBitmap report = {};
    report.size = sizeof(report);
    report.hwpt_id = table;
    report.iova = query.iova;
    report.length = query.length;
    report.page_size = query.page_size;
    report.data = reinterpret_cast<uintptr_t>(query.bitmap.data);
    return report;
  });
}

}  // namespace

void InitVfioDirtyLog(Napi::Env env, Napi::Object exports) {
  Export<StartDeviceLog>(env, exports, "startDeviceLog");
  Export<StopDeviceLog>(env, exports, "stopDeviceLog");
  Export<ReportDeviceLog>(env, exports, "reportDeviceLog");
  Export<LogContainer>(env, exports, "logContainer");
  Export<ReportContainerLog>(env, exports, "reportContainerLog");
  Export<LogPageTable>(env, exports, "logPageTable");
  Export<ReportPageTableLog>(env, exports, "reportPageTableLog");
}
