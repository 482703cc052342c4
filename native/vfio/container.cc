// SPDX-License-Identifier: MIT
// Containers and groups of VFIO, and the mappings of a container (linux/vfio.h, VFIO_TYPE1v2_IOMMU).
#include <cstddef>

#include "../addon.h"
#include "../arguments.h"
#include "abi.h"
#include "dma-memory.h"
#include "ioctl.h"

namespace {

/** apiVersion(fd): the version of VFIO's interface, or -errno. */
Napi::Value ApiVersion(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  if (!arguments.ok()) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), Ioctl(fd, vfio_abi::kGetApiVersion, 0));
}

/** checkExtension(fd, extension): above 0 when the container has it, such as a type of IOMMU; or -errno. */
Napi::Value CheckExtension(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  const int extension = arguments.Natural(1);
  if (!arguments.ok()) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), Ioctl(fd, vfio_abi::kCheckExtension, extension));
}

/** setIommu(fd, type): chooses the type of IOMMU of a container that has a group. 0 or -errno. */
Napi::Value SetIommu(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  const int type = arguments.Natural(1);
  if (!arguments.ok()) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), Ioctl(fd, vfio_abi::kSetIommu, type));
}

/** iommuInfo(fd, bytes): vfio_iommu_type1_info, with capabilities as far as there is room. 0 or -errno. */
Napi::Value IommuInfo(const Napi::CallbackInfo& info) {
  constexpr size_t kLeast = 24;
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  const View<uint8_t> bytes = arguments.Bytes(1);
  if (!arguments.ok()) return info.Env().Undefined();
  const int result = WriteArgsz(bytes, kLeast) ? Ioctl(fd, vfio_abi::kIommuGetInfo, bytes.data) : -EINVAL;
  return Napi::Number::New(info.Env(), result);
}

/** groupStatus(fd): VFIO_GROUP_FLAGS_*, or -errno. */
Napi::Value GroupStatus(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  if (!arguments.ok()) return info.Env().Undefined();
  vfio_abi::GroupStatus status = {};
  status.argsz = sizeof(status);
  const int result = Ioctl(fd, vfio_abi::kGroupGetStatus, &status);
  return Napi::Number::New(info.Env(), result < 0 ? result : static_cast<double>(status.flags));
}

/** setContainer(group, container): 0 or -errno. */
Napi::Value SetContainer(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int group = arguments.Descriptor(0);
  int container = arguments.Descriptor(1);
  if (!arguments.ok()) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), Ioctl(group, vfio_abi::kGroupSetContainer, &container));
}

/** unsetContainer(group): 0 or -errno. */
Napi::Value UnsetContainer(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int group = arguments.Descriptor(0);
  if (!arguments.ok()) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), Ioctl(group, vfio_abi::kGroupUnsetContainer, 0));
}

/** groupDevice(group, name): a descriptor of the device, closed on exec, or -errno. */
Napi::Value GroupDevice(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int group = arguments.Descriptor(0);
  const std::string name = arguments.String(1);
  if (!arguments.ok()) return info.Env().Undefined();
  return OwnedOrErrno(info.Env(),
                      Retry([&] { return ioctl(group, vfio_abi::kGroupGetDeviceFd, name.c_str()); }));
}

/** mapDma(container, buffer, slot, iova, access): maps all of a mapping. 0 or -errno. */
Napi::Value MapDma(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  const DmaMemory memory = ReadDmaMemory(info, arguments, 1);
  if (!arguments.ok()) return info.Env().Undefined();
  if (memory.address == nullptr) return Napi::Number::New(info.Env(), -EINVAL);
  vfio_abi::DmaMap map = {};
  map.argsz = sizeof(map);
  map.flags = (memory.readable ? vfio_abi::kDmaMapRead : 0) | (memory.writable ? vfio_abi::kDmaMapWrite : 0);
  map.vaddr = reinterpret_cast<uintptr_t>(memory.address);
  map.iova = memory.iova;
  map.size = memory.length;
  return Napi::Number::New(info.Env(), Ioctl(fd, vfio_abi::kIommuMapDma, &map));
}

/** unmapDma(container, iova, size): bytes that were unmapped, or -errno. */
Napi::Value UnmapDma(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  vfio_abi::DmaUnmap unmap = {};
  unmap.argsz = sizeof(unmap);
  unmap.iova = arguments.Address(1);
  unmap.size = arguments.Size(2);
  if (!arguments.ok()) return info.Env().Undefined();
  const int result = Ioctl(fd, vfio_abi::kIommuUnmapDma, &unmap);
  return Napi::Number::New(info.Env(), result < 0 ? result : static_cast<double>(unmap.size));
}

/** unmapAllDma(container): 0 or -errno; -EINVAL before Linux 5.12. */
Napi::Value UnmapAllDma(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  if (!arguments.ok()) return info.Env().Undefined();
  vfio_abi::DmaUnmap unmap = {};
  unmap.argsz = sizeof(unmap);
  unmap.flags = vfio_abi::kDmaUnmapAll;
  return Napi::Number::New(info.Env(), Ioctl(fd, vfio_abi::kIommuUnmapDma, &unmap));
}

}  // namespace

void InitVfioContainer(Napi::Env env, Napi::Object exports) {
  Export<ApiVersion>(env, exports, "apiVersion");
  Export<CheckExtension>(env, exports, "checkExtension");
  Export<SetIommu>(env, exports, "setIommu");
  Export<IommuInfo>(env, exports, "iommuInfo");
  Export<GroupStatus>(env, exports, "groupStatus");
  Export<SetContainer>(env, exports, "setContainer");
  Export<UnsetContainer>(env, exports, "unsetContainer");
  Export<GroupDevice>(env, exports, "groupDevice");
  Export<MapDma>(env, exports, "mapDma");
  Export<UnmapDma>(env, exports, "unmapDma");
  Export<UnmapAllDma>(env, exports, "unmapAllDma");
}
