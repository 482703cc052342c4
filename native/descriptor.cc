// SPDX-License-Identifier: MIT
// What any file descriptor can do: close, duplicate, tell its size; give back storage of a file, and lock it.
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/file.h>

#include "addon.h"
#include "arguments.h"

namespace {

/** close(fd): 0 or -errno; -EBADF for a descriptor that this environment does not own. */
Napi::Value Close(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  if (!arguments.ok()) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), info.Env().GetInstanceData<AddonData>()->descriptors.Close(fd));
}

/** duplicate(fd): a new descriptor, closed on exec, or -errno. */
Napi::Value Duplicate(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  if (!arguments.ok()) return info.Env().Undefined();
  return OwnedOrErrno(info.Env(), fcntl(fd, F_DUPFD_CLOEXEC, 0));
}

/** openDevice(path): a descriptor of a device node, for reading and writing, closed on exec; or -errno. */
Napi::Value OpenDevice(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const std::string path = arguments.String(0);
  if (!arguments.ok()) return info.Env().Undefined();
  return OwnedOrErrno(info.Env(), Retry([&] { return open(path.c_str(), O_RDWR | O_CLOEXEC); }));
}

/** fileSize(fd): bytes or -errno. */
Napi::Value FileSize(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  if (!arguments.ok()) return info.Env().Undefined();
  FileStatus file;
  const int result = StatusOf(fd, &file);
  return Napi::Number::New(info.Env(), result == -1 ? -errno : static_cast<double>(file.stx_size));
}

/** zeroRange(fd, offset, length, deallocate): 0 or -errno. Never changes the size of a file. */
Napi::Value ZeroRange(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  const auto offset = static_cast<off_t>(arguments.Size(1));
  const auto length = static_cast<off_t>(arguments.Size(2));
  const bool deallocate = arguments.Boolean(3);
  if (!arguments.ok()) return info.Env().Undefined();
  const int mode = FALLOC_FL_KEEP_SIZE | (deallocate ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE);
  return Napi::Number::New(info.Env(), OrErrno(Retry([&] { return fallocate(fd, mode, offset, length); })));
}

/** lock(fd): 0 or -errno; -EWOULDBLOCK when another descriptor has the lock, which ends with it. */
Napi::Value Lock(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  if (!arguments.ok()) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), OrErrno(Retry([&] { return flock(fd, LOCK_EX | LOCK_NB); })));
}

}  // namespace

void InitDescriptor(Napi::Env env, Napi::Object exports) {
  Export<Close>(env, exports, "close");
  Export<Duplicate>(env, exports, "duplicate");
  Export<OpenDevice>(env, exports, "openDevice");
  Export<FileSize>(env, exports, "fileSize");
  Export<ZeroRange>(env, exports, "zeroRange");
  Export<Lock>(env, exports, "lock");
}
