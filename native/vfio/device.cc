// SPDX-License-Identifier: MIT
// What is asked of a VFIO device, by the descriptor of the device (linux/vfio.h).
#include <cstddef>
#include <vector>

#include "../addon.h"
#include "../arguments.h"
#include "abi.h"
#include "async-call.h"
#include "ioctl.h"

namespace {

/** Most vectors of an interrupt: MSI-X has 2048 (PCI Express base 5.0, 7.7.2.2). */
constexpr int64_t kMaxVectors = 2048;
/** Offset of the index in vfio_region_info and vfio_irq_info. */
constexpr size_t kIndexOffset = 8;

/** Asks for a structure with argsz, and the index of what is asked about. `bytes` takes it. */
Napi::Value AskByIndex(const Napi::CallbackInfo& info, unsigned long request, size_t least) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  const auto index = static_cast<uint32_t>(arguments.Integer(1, 0, UINT32_MAX));
  const View<uint8_t> bytes = arguments.Bytes(2);
  if (!arguments.ok()) return info.Env().Undefined();
  if (!WriteArgsz(bytes, least)) return Napi::Number::New(info.Env(), -EINVAL);
  memset(bytes.data + sizeof(uint32_t), 0, bytes.length - sizeof(uint32_t));
  memcpy(bytes.data + kIndexOffset, &index, sizeof(index));
  return Napi::Number::New(info.Env(), Ioctl(fd, request, bytes.data));
}

/** As AskByIndex, for what has no index. */
Napi::Value Ask(const Napi::CallbackInfo& info, unsigned long request, size_t least) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  const View<uint8_t> bytes = arguments.Bytes(1);
  if (!arguments.ok()) return info.Env().Undefined();
  if (!WriteArgsz(bytes, least)) return Napi::Number::New(info.Env(), -EINVAL);
  memset(bytes.data + sizeof(uint32_t), 0, bytes.length - sizeof(uint32_t));
  return Napi::Number::New(info.Env(), Ioctl(fd, request, bytes.data));
}

/** deviceInfo(fd, bytes): vfio_device_info. 0 or -errno, as of all of these. */
Napi::Value DeviceInfo(const Napi::CallbackInfo& info) {
  constexpr size_t kLeast = 16;
  return Ask(info, vfio_abi::kDeviceGetInfo, kLeast);
}

/** regionInfo(fd, index, bytes): vfio_region_info, with capabilities as far as there is room. */
Napi::Value RegionInfo(const Napi::CallbackInfo& info) {
  constexpr size_t kLeast = 32;
  return AskByIndex(info, vfio_abi::kDeviceGetRegionInfo, kLeast);
}

/** irqInfo(fd, index, bytes): vfio_irq_info. */
Napi::Value IrqInfo(const Napi::CallbackInfo& info) {
  constexpr size_t kLeast = 16;
  return AskByIndex(info, vfio_abi::kDeviceGetIrqInfo, kLeast);
}

/** hotResetInfo(fd, bytes): vfio_pci_hot_reset_info. -ENOSPC when there is no room for all devices. */
Napi::Value HotResetInfo(const Napi::CallbackInfo& info) {
  return Ask(info, vfio_abi::kDeviceGetPciHotResetInfo, sizeof(vfio_abi::PciHotReset));
}

/**
 * setIrqs(fd, index, flags, start, count, eventfds): vfio_irq_set; `eventfds` has `count` descriptors, -1 for
 * none, or is null for an action without data.
 */
Napi::Value SetIrqs(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  vfio_abi::IrqSet set = {};
  set.index = static_cast<uint32_t>(arguments.Integer(1, 0, UINT32_MAX));
  set.flags = static_cast<uint32_t>(arguments.Integer(2, 0, UINT32_MAX));
  set.start = static_cast<uint32_t>(arguments.Integer(3, 0, kMaxVectors));
  set.count = static_cast<uint32_t>(arguments.Integer(4, 0, kMaxVectors));
  const View<int32_t> eventfds =
      arguments.IsNull(5) ? View<int32_t>{} : arguments.Integers(5, static_cast<size_t>(set.count));
  if (!arguments.ok()) return info.Env().Undefined();
  const size_t data = eventfds.data == nullptr ? 0 : set.count * sizeof(int32_t);
  set.argsz = static_cast<uint32_t>(sizeof(set) + data);
  std::vector<uint8_t> message(set.argsz);
  memcpy(message.data(), &set, sizeof(set));
  if (data > 0) memcpy(message.data() + sizeof(set), eventfds.data, data);
  return Napi::Number::New(info.Env(), Ioctl(fd, vfio_abi::kDeviceSetIrqs, message.data()));
}

/** reset(fd): a promise of 0 or -errno. */
Napi::Value Reset(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  if (!arguments.ok()) return info.Env().Undefined();
  return CallOffThread(info.Env(), fd,
                       [](int device, UniqueFd*) { return Ioctl(device, vfio_abi::kDeviceReset, 0); });
}

/**
 * hotReset(fd, groups): resets all devices of the bus or slot; `groups` has the descriptors of their groups,
 * none for devices that were opened by themselves. A promise of 0 or -errno.
 */
Napi::Value HotReset(const Napi::CallbackInfo& info) {
  constexpr size_t kMostGroups = 256;
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  const View<int32_t> groups = arguments.Integers(1, 0);
  if (!arguments.ok()) return info.Env().Undefined();
  if (groups.length > kMostGroups) return Napi::Number::New(info.Env(), -EINVAL);
  vfio_abi::PciHotReset reset = {};
  reset.count = static_cast<uint32_t>(groups.length);
  reset.argsz = static_cast<uint32_t>(sizeof(reset) + groups.length * sizeof(int32_t));
  std::vector<uint8_t> message(reset.argsz);
  memcpy(message.data(), &reset, sizeof(reset));
  if (groups.length > 0) memcpy(message.data() + sizeof(reset), groups.data, groups.length * sizeof(int32_t));
  return CallOffThread(info.Env(), fd, [message](int device, UniqueFd*) mutable {
    return Ioctl(device, vfio_abi::kDevicePciHotReset, message.data());
  });
}

/** deviceFeature(fd, bytes): vfio_device_feature, of which `bytes` has the flags and the data; the answer
 * takes their place. */
Napi::Value DeviceFeature(const Napi::CallbackInfo& info) {
  constexpr size_t kLeast = 8;
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  const View<uint8_t> bytes = arguments.Bytes(1);
  if (!arguments.ok()) return info.Env().Undefined();
  const int result = WriteArgsz(bytes, kLeast) ? Ioctl(fd, vfio_abi::kDeviceFeature, bytes.data) : -EINVAL;
  return Napi::Number::New(info.Env(), result);
}

/**
 * bindIommufd(fd, iommufd, token): takes a device that was opened by itself. `token` has the 16 bytes of a VF
 * token, or is null. Its id in the iommufd, or -errno.
 */
Napi::Value BindIommufd(const Napi::CallbackInfo& info) {
  constexpr size_t kToken = 16;
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  const int iommufd = arguments.Descriptor(1);
  const View<uint8_t> token = arguments.IsNull(2) ? View<uint8_t>{} : arguments.Bytes(2);
  if (!arguments.ok()) return info.Env().Undefined();
  if (token.data != nullptr && token.length != kToken) return Napi::Number::New(info.Env(), -EINVAL);
  vfio_abi::DeviceBindIommufd bind = {};
  // Kernels that know no token take the structure without it alone.
  bind.argsz = token.data == nullptr ? offsetof(vfio_abi::DeviceBindIommufd, token_uuid_ptr) : sizeof(bind);
  bind.flags = token.data == nullptr ? 0 : vfio_abi::kBindToken;
  bind.iommufd = iommufd;
  bind.token_uuid_ptr = reinterpret_cast<uintptr_t>(token.data);
  const int result = Ioctl(fd, vfio_abi::kDeviceBindIommufd, &bind);
  return Napi::Number::New(info.Env(), result < 0 ? result : static_cast<double>(bind.out_devid));
}

/** attachIommufd(fd, space): lets the device use an I/O address space. */
Napi::Value AttachIommufd(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  vfio_abi::DeviceAttachIommufdPt attach = {};
  attach.argsz = sizeof(attach);
  attach.pt_id = static_cast<uint32_t>(arguments.Integer(1, 0, UINT32_MAX));
  if (!arguments.ok()) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), Ioctl(fd, vfio_abi::kDeviceAttachIommufdPt, &attach));
}

}  // namespace

void InitVfioDevice(Napi::Env env, Napi::Object exports) {
  Export<DeviceInfo>(env, exports, "deviceInfo");
  Export<RegionInfo>(env, exports, "regionInfo");
  Export<IrqInfo>(env, exports, "irqInfo");
  Export<HotResetInfo>(env, exports, "hotResetInfo");
  Export<SetIrqs>(env, exports, "setIrqs");
  Export<Reset>(env, exports, "reset");
  Export<HotReset>(env, exports, "hotReset");
  Export<DeviceFeature>(env, exports, "deviceFeature");
  Export<BindIommufd>(env, exports, "bindIommufd");
  Export<AttachIommufd>(env, exports, "attachIommufd");
}
