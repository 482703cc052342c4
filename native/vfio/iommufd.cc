// SPDX-License-Identifier: MIT
// I/O address spaces of an iommufd (linux/iommufd.h).
#include <cstddef>

#include "../addon.h"
#include "../arguments.h"
#include "abi.h"
#include "dma-memory.h"
#include "ioctl.h"

namespace {

/** An id is 32 bits wide. */
uint32_t Id(Arguments& arguments, size_t index) {
  return static_cast<uint32_t>(arguments.Integer(index, 0, UINT32_MAX));
}

/** allocateSpace(fd): the id of a new I/O address space, or -errno. */
Napi::Value AllocateSpace(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  if (!arguments.ok()) return info.Env().Undefined();
  vfio_abi::IommuIoasAlloc allocate = {};
  allocate.size = sizeof(allocate);
  const int result = Ioctl(fd, vfio_abi::kIommuIoasAlloc, &allocate);
  return Napi::Number::New(info.Env(), result < 0 ? result : static_cast<double>(allocate.out_ioas_id));
}

/** destroyObject(fd, id): 0 or -errno. */
Napi::Value DestroyObject(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  vfio_abi::IommuDestroy destroy = {};
  destroy.size = sizeof(destroy);
  const int fd = arguments.Descriptor(0);
  destroy.id = Id(arguments, 1);
  if (!arguments.ok()) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), Ioctl(fd, vfio_abi::kIommuDestroy, &destroy));
}

/**
 * iovaRanges(fd, space, bytes): the addresses that may be mapped, as pairs of u64, first and last. The number
 * of all pairs, of which `bytes` has those that there was room for, or -errno.
 */
Napi::Value IovaRanges(const Napi::CallbackInfo& info) {
  constexpr size_t kPair = 16;
  Arguments arguments(info);
  vfio_abi::IommuIoasIovaRanges ranges = {};
  ranges.size = sizeof(ranges);
  const int fd = arguments.Descriptor(0);
  ranges.ioas_id = Id(arguments, 1);
  const View<uint8_t> bytes = arguments.Bytes(2);
  if (!arguments.ok()) return info.Env().Undefined();
  ranges.num_iovas = static_cast<uint32_t>(bytes.length / kPair);
  ranges.allowed_iovas = reinterpret_cast<uintptr_t>(bytes.data);
  const int result = Ioctl(fd, vfio_abi::kIommuIoasIovaRanges, &ranges);
  // Too little room is told by an errno, and the number all the same.
  const bool told = result >= 0 || result == -EMSGSIZE;
  return Napi::Number::New(info.Env(), told ? static_cast<double>(ranges.num_iovas) : result);
}

/** mapSpace(fd, space, buffer, slot, iova, access): maps all of a mapping. 0 or -errno. */
Napi::Value MapSpace(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  vfio_abi::IommuIoasMap map = {};
  map.size = sizeof(map);
  const int fd = arguments.Descriptor(0);
  map.ioas_id = Id(arguments, 1);
  const DmaMemory memory = ReadDmaMemory(info, arguments, 2);
  if (!arguments.ok()) return info.Env().Undefined();
  if (memory.address == nullptr) return Napi::Number::New(info.Env(), -EINVAL);
  map.flags = vfio_abi::kIoasMapFixedIova | (memory.readable ? vfio_abi::kIoasMapReadable : 0) |
              (memory.writable ? vfio_abi::kIoasMapWriteable : 0);
  map.user_va = reinterpret_cast<uintptr_t>(memory.address);
  map.length = memory.length;
  map.iova = memory.iova;
  return Napi::Number::New(info.Env(), Ioctl(fd, vfio_abi::kIommuIoasMap, &map));
}

/** unmapSpace(fd, space, iova, size): bytes that were unmapped, or -errno. */
Napi::Value UnmapSpace(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  vfio_abi::IommuIoasUnmap unmap = {};
  unmap.size = sizeof(unmap);
  const int fd = arguments.Descriptor(0);
  unmap.ioas_id = Id(arguments, 1);
  unmap.iova = arguments.Address(2);
  unmap.length = arguments.Size(3);
  if (!arguments.ok()) return info.Env().Undefined();
  const int result = Ioctl(fd, vfio_abi::kIommuIoasUnmap, &unmap);
  return Napi::Number::New(info.Env(), result < 0 ? result : static_cast<double>(unmap.length));
}

/** hardwareCapabilities(fd, device): iommufd_hw_capabilities of the IOMMU behind a device, or -errno. */
Napi::Value HardwareCapabilities(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  vfio_abi::IommuHwInfo hardware = {};
  hardware.size = sizeof(hardware);
  const int fd = arguments.Descriptor(0);
  hardware.dev_id = Id(arguments, 1);
  if (!arguments.ok()) return info.Env().Undefined();
  const int result = Ioctl(fd, vfio_abi::kIommuGetHwInfo, &hardware);
  return Napi::Number::New(info.Env(), result < 0 ? result : static_cast<double>(hardware.out_capabilities));
}

/** allocatePageTable(fd, device, space): the id of a new page table of a space, which logs writes; or -errno.
 */
Napi::Value AllocatePageTable(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  vfio_abi::IommuHwptAlloc allocate = {};
  allocate.size = sizeof(allocate);
  allocate.flags = vfio_abi::kHwptAllocDirtyTracking;
  const int fd = arguments.Descriptor(0);
  allocate.dev_id = Id(arguments, 1);
  allocate.pt_id = Id(arguments, 2);
  if (!arguments.ok()) return info.Env().Undefined();
  const int result = Ioctl(fd, vfio_abi::kIommuHwptAlloc, &allocate);
  return Napi::Number::New(info.Env(), result < 0 ? result : static_cast<double>(allocate.out_hwpt_id));
}

}  // namespace

void InitIommufd(Napi::Env env, Napi::Object exports) {
  Export<AllocateSpace>(env, exports, "allocateSpace");
  Export<DestroyObject>(env, exports, "destroyObject");
  Export<IovaRanges>(env, exports, "iovaRanges");
  Export<HardwareCapabilities>(env, exports, "hardwareCapabilities");
  Export<AllocatePageTable>(env, exports, "allocatePageTable");
  Export<MapSpace>(env, exports, "mapSpace");
  Export<UnmapSpace>(env, exports, "unmapSpace");
}
