// SPDX-License-Identifier: MIT
#include "eventfd.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>

#include <string_view>

#include "addon.h"
#include "arguments.h"

namespace {

/** Whether a call would not block. True for what is not open: the call tells. */
bool IsReady(int fd, int16_t event) {
  pollfd request = {fd, event, 0};
  Retry([&] { return poll(&request, 1, 0); });
  return (request.revents & (event | POLLNVAL)) != 0;
}

}  // namespace

int ReadCounter(int fd, uint64_t* count) {
  iovec part = {count, sizeof(*count)};
  // The peer shares the open file and can clear O_NONBLOCK, so ask for each call not to block.
  ssize_t bytes = Retry([&] { return preadv2(fd, &part, 1, -1, RWF_NOWAIT); });
  if (bytes == -1 && (errno == EOPNOTSUPP || errno == ENOSYS)) {
    // Before Linux 5.8 eventfds do not know the flag. Only somebody else who reads the counter between the
    // two calls could now make the read wait, and only where O_NONBLOCK is not set.
    if (!IsReady(fd, POLLIN)) return -EAGAIN;
    bytes = Retry([&] { return read(fd, count, sizeof(*count)); });
  }
  if (bytes == -1) return -errno;
  return bytes == sizeof(*count) ? 0 : -EINVAL;
}

namespace {

constexpr int64_t kMaxSafeInteger = (int64_t{1} << 53) - 1;

/** eventfdCreate(initial): a non-blocking eventfd, closed on exec, or -errno. */
Napi::Value Create(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const auto initial = static_cast<unsigned>(arguments.Integer(0, 0, UINT32_MAX));
  if (!arguments.ok()) return info.Env().Undefined();
  return OwnedOrErrno(info.Env(), eventfd(initial, EFD_CLOEXEC | EFD_NONBLOCK));
}

/**
 * eventfdAdopt(fd): 0, -EPROTOTYPE when it is no eventfd, or -errno. Makes it closed on exec. O_NONBLOCK is
 * left as it is: the flag is shared with the peer that sent the descriptor, which may read its eventfd with a
 * blocking read(2).
 */
Napi::Value Adopt(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  if (!arguments.ok()) return info.Env().Undefined();
  constexpr std::string_view kEventfd = "anon_inode:[eventfd]";
  char name[64];
  const ssize_t length = readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), name, sizeof(name));
  int result = 0;
  if (length == -1) {
    result = errno == ENOENT ? -EBADF : -errno;
  } else if (std::string_view(name, static_cast<size_t>(length)) != kEventfd) {
    result = -EPROTOTYPE;
  } else if (fcntl(fd, F_SETFD, FD_CLOEXEC) == -1) {
    result = -errno;
  } else {
    result = info.Env().GetInstanceData<AddonData>()->descriptors.Adopt(fd);
  }
  return Napi::Number::New(info.Env(), result);
}

/** eventfdSignal(fd, count): 0, -EAGAIN when the counter is full, or -errno. */
Napi::Value Signal(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  const auto count = static_cast<uint64_t>(arguments.Integer(1, 1, kMaxSafeInteger));
  if (!arguments.ok()) return info.Env().Undefined();
  // A full counter of an eventfd without O_NONBLOCK would make write(2) block; writing has no RWF_NOWAIT
  // here.
  const bool full = !IsReady(fd, POLLOUT);
  const bool done = !full && Retry([&] { return write(fd, &count, sizeof(count)); }) != -1;
  return Napi::Number::New(info.Env(), full ? -EAGAIN : done ? 0 : -errno);
}

/** eventfdRead(fd): the counter, which becomes 0; 0 when it was; or -errno. */
Napi::Value Read(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  if (!arguments.ok()) return info.Env().Undefined();
  uint64_t count = 0;
  const int result = ReadCounter(fd, &count);
  if (result < 0 && result != -EAGAIN) return Napi::Number::New(info.Env(), result);
  return Napi::Number::New(info.Env(), result == 0 ? static_cast<double>(count) : 0);
}

}  // namespace

void InitEventfd(Napi::Env env, Napi::Object exports) {
  Export<Create>(env, exports, "eventfdCreate");
  Export<Adopt>(env, exports, "eventfdAdopt");
  Export<Signal>(env, exports, "eventfdSignal");
  Export<Read>(env, exports, "eventfdRead");
}
