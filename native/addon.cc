// SPDX-License-Identifier: MIT
#include "addon.h"

#include "bus-error-guard.h"

namespace {

/**
 * Runs before the environment ends, in a worker as in the main thread. A uv handle that is still open when
 * its loop is closed aborts the whole process, so every watcher is closed here. A peer learns of the end by
 * its socket, which a worker that was terminated could not close. Memory is unmapped later, by the finalizers
 * of the ArrayBuffers, but nothing may be told to an environment that has ended.
 */
void CloseAll(AddonData* data) {
  data->watchers.clear();
  if (data->lost_event.valid()) bus_error_guard::ForgetEvent(data->lost_event.get());
  data->lost_event.Reset();
  data->descriptors.CloseAll();
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  auto* data = new AddonData();
  env.SetInstanceData(data);
  env.AddCleanupHook(CloseAll, data);
  InitAffinity(env, exports);
  InitDescriptor(env, exports);
  InitEventfd(env, exports);
  InitMemory(env, exports);
  InitNvme(env, exports);
  InitReadiness(env, exports);
  InitSocket(env, exports);
  InitSocketMessage(env, exports);
  const Napi::Object vfio = Napi::Object::New(env);
  InitVfioContainer(env, vfio);
  InitVfioDevice(env, vfio);
  InitVfioDirtyLog(env, vfio);
  InitVfioMigration(env, vfio);
  InitIommufd(env, vfio);
  exports.Set("vfio", vfio);
  return exports;
}

}  // namespace

Napi::Value OwnedOrErrno(Napi::Env env, int fd) {
  const int result = fd == -1 ? -errno : env.GetInstanceData<AddonData>()->descriptors.Add(UniqueFd(fd));
  return Napi::Number::New(env, result);
}

NODE_API_MODULE(vfio_user, Init)
