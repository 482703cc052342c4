// SPDX-License-Identifier: MIT
// The state of a device that is moved elsewhere (linux/vfio.h, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE).
#include <cstddef>

#include "../addon.h"
#include "../arguments.h"
#include "abi.h"
#include "async-call.h"
#include "ioctl.h"

namespace {

/**
 * setMigrationState(fd, state): brings a device into a state of vfio_device_mig_state. A promise, since a
 * device may take its time to stop: of 0; of one more than the descriptor that the data go through, which is
 * the caller's, for a state that begins a transfer; or of -errno.
 */
Napi::Value SetMigrationState(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  vfio_abi::DeviceMigrationState change = {};
  change.feature.argsz = sizeof(change);
  change.feature.flags = vfio_abi::kFeatureSet | vfio_abi::kFeatureMigrationState;
  change.device_state = static_cast<uint32_t>(arguments.Integer(1, 0, UINT32_MAX));
  change.data_fd = -1;
  if (!arguments.ok()) return info.Env().Undefined();
  return CallOffThread(info.Env(), fd, [change](int device, UniqueFd* data) mutable {
    const int result = Ioctl(device, vfio_abi::kDeviceFeature, &change);
    if (result >= 0 && change.data_fd >= 0) *data = UniqueFd(change.data_fd);
    return result;
  });
}

/** precopyInfo(fd, bytes): vfio_precopy_info, of the descriptor of the data. 0 or -errno. */
Napi::Value PrecopyInfo(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  const View<uint8_t> bytes = arguments.Bytes(1);
  if (!arguments.ok()) return info.Env().Undefined();
  const bool room = WriteArgsz(bytes, sizeof(vfio_abi::PrecopyInfo));
  const int result = room ? Ioctl(fd, vfio_abi::kMigGetPrecopyInfo, bytes.data) : -EINVAL;
  return Napi::Number::New(info.Env(), result);
}

}  // namespace

void InitVfioMigration(Napi::Env env, Napi::Object exports) {
  Export<SetMigrationState>(env, exports, "setMigrationState");
  Export<PrecopyInfo>(env, exports, "precopyInfo");
}
