// SPDX-License-Identifier: MIT
// Sending, receiving and waiting on a connected socket.
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "addon.h"
#include "arguments.h"
#include "clock.h"

namespace {

/** The kernel's SCM_MAX_FD: most descriptors in one message. */
constexpr size_t kMaxDescriptors = 253;
/** Room for the credentials too, which come along when someone has set SO_PASSCRED on an adopted socket. */
constexpr size_t kControlSize = CMSG_SPACE(kMaxDescriptors * sizeof(int)) + CMSG_SPACE(sizeof(ucred));
/** Longest spin and wait: a minute, and a day. */
constexpr int64_t kMaxSpinMicroseconds = 60'000'000;
constexpr int64_t kMaxTimeoutMilliseconds = 86'400'000;

/**
 * Lets descriptors go with a message (unix(7), SCM_RIGHTS). `control` is aligned as a cmsghdr, has room for
 * them by CMSG_SPACE, and lives until the message is sent.
 */
void AttachRights(msghdr* message, void* control, const int32_t* fds, size_t count) {
  const size_t size = count * sizeof(int32_t);
  std::memset(control, 0, CMSG_SPACE(size));
  message->msg_control = control;
  message->msg_controllen = CMSG_SPACE(size);
  cmsghdr* const rights = CMSG_FIRSTHDR(message);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(size);
  std::memcpy(CMSG_DATA(rights), fds, size);
}

/** poll(2) until `deadline` (of Nanoseconds()): events, 0 after the deadline, or -errno. */
int WaitUntil(int fd, int16_t events, int64_t deadline) {
  for (;;) {
    const int64_t left = std::max<int64_t>(deadline - Nanoseconds(), 0);
    const timespec timeout = {static_cast<time_t>(left / 1'000'000'000),
                              static_cast<long>(left % 1'000'000'000)};
    pollfd request = {fd, events, 0};
    const int result = ppoll(&request, 1, &timeout, nullptr);
    if (result >= 0) return (request.revents & POLLNVAL) != 0 ? -EBADF : request.revents;
    if (errno != EINTR) return -errno;
  }
}

/** Bytes that one call sends or receives. */
constexpr size_t kMessageSize = 64 << 10;

/**
 * Memory by which JavaScript and this addon hand each other messages: a call with arguments, typed arrays
 * above all, would cost more than its system call. lib/native/message-window.ts has the same layout.
 */
struct Window {
  int32_t operation;
  int32_t fd;
  int32_t length;
  int32_t spin_microseconds;
  int32_t timeout_milliseconds;
  /** Descriptors that go with the bytes, or have come with them. Before receiving, 0 for none: the kernel
   * closes them. */
  int32_t fd_count;
  /** Not 0 when descriptors were lost. */
  int32_t fds_lost;
  int32_t fds[kMaxDescriptors];
  uint8_t bytes[kMessageSize];
};

enum Operation : int32_t { kSend = 0, kReceive = 1 };

/** One sendmsg(2) of the window's bytes and descriptors: bytes taken, or -errno. */
ssize_t Send(Window* window) {
  constexpr int kFlags = MSG_NOSIGNAL | MSG_DONTWAIT;
  const auto length = static_cast<size_t>(window->length);
  const auto fd_count = static_cast<size_t>(window->fd_count);
  if (fd_count > kMaxDescriptors) return -EINVAL;
  // Nearly all messages bring no descriptors, and send(2) has less to look at.
  if (fd_count == 0) return OrErrno(Retry([&] { return send(window->fd, window->bytes, length, kFlags); }));
  iovec part = {window->bytes, length};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[kControlSize];
  AttachRights(&message, control, window->fds, fd_count);
  return OrErrno(Retry([&] { return sendmsg(window->fd, &message, kFlags); }));
}

/** Puts received descriptors into the window; those that find no room are closed. */
void TakeDescriptors(msghdr* message, Window* window, DescriptorTable* owner) {
  if ((message->msg_flags & MSG_CTRUNC) != 0) window->fds_lost = 1;
  for (cmsghdr* part = CMSG_FIRSTHDR(message); part != nullptr; part = CMSG_NXTHDR(message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const size_t number = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t index = 0; index < number; index++) {
      int received = -1;
      std::memcpy(&received, CMSG_DATA(part) + index * sizeof(int), sizeof(int));
      UniqueFd fd(received);
      if (static_cast<size_t>(window->fd_count) < kMaxDescriptors) {
        window->fds[window->fd_count++] = owner->Add(std::move(fd));
      } else {
        window->fds_lost = 1;
      }
    }
  }
}

/** One recv(2), which has less to look at than recvmsg(2) and drops descriptors: results as of ReceiveOnce().
 */
ssize_t ReceiveBytes(Window* window) {
  const auto length = static_cast<size_t>(window->length);
  return OrErrno(Retry([&] { return recv(window->fd, window->bytes, length, MSG_DONTWAIT); }));
}

/** One recvmsg(2): bytes, 0 at the end of the stream, or -errno. */
ssize_t ReceiveOnce(Window* window, DescriptorTable* owner) {
  iovec part = {window->bytes, static_cast<size_t>(window->length)};
  alignas(cmsghdr) char control[kControlSize];
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  const ssize_t received =
      Retry([&] { return recvmsg(window->fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT); });
  if (received == -1) return -errno;
  TakeDescriptors(&message, window, owner);
  return received;
}

/**
 * Bytes, 0 at the end of the stream, or -errno; -EAGAIN when nothing came in time. Tries for the time to
 * spin, then sleeps until the time-out, both counted from the call.
 */
ssize_t Receive(Window* window, DescriptorTable* owner) {
  const int64_t spin = std::clamp<int64_t>(window->spin_microseconds, 0, kMaxSpinMicroseconds) * 1000;
  const int64_t timeout =
      std::clamp<int64_t>(window->timeout_milliseconds, 0, kMaxTimeoutMilliseconds) * 1'000'000;
  const bool takes_fds = window->fd_count != 0;
  const auto receive = [&] { return takes_fds ? ReceiveOnce(window, owner) : ReceiveBytes(window); };
  window->fd_count = 0;
  window->fds_lost = 0;
  // A read of no bytes would look like the end of the stream.
  if (window->length == 0) return -EINVAL;
  ssize_t received = receive();
  if (received != -EAGAIN || spin + timeout == 0) return received;
  const int64_t start = Nanoseconds();
  while (received == -EAGAIN && Nanoseconds() < start + spin) received = receive();
  while (received == -EAGAIN) {
    const int ready = WaitUntil(window->fd, POLLIN, start + timeout);
    if (ready == 0) break;
    received = ready < 0 ? ready : receive();
  }
  return received;
}

/** What keeps the memory of a function of MessageWindow(). */
struct WindowOwner {
  Window* window;
  Napi::Reference<Napi::ArrayBuffer> memory;
};

napi_value RunWindow(napi_env env, napi_callback_info info) {
  void* data = nullptr;
  napi_get_cb_info(env, info, nullptr, nullptr, nullptr, &data);
  Window* const window = static_cast<WindowOwner*>(data)->window;
  DescriptorTable* const owner = &Napi::Env(env).GetInstanceData<AddonData>()->descriptors;
  ssize_t result = -EINVAL;
  if (window->length >= 0 && static_cast<size_t>(window->length) <= kMessageSize) {
    if (window->operation == kSend) result = Send(window);
    if (window->operation == kReceive) result = Receive(window, owner);
  }
  napi_value value = nullptr;
  napi_create_int32(env, static_cast<int32_t>(result), &value);
  return value;
}

/** messageWindow(memory): a function without arguments that does what the memory says; see Window. */
Napi::Value MessageWindow(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  Napi::ArrayBuffer memory = arguments.ArrayBuffer(0);
  if (!arguments.ok()) return info.Env().Undefined();
  if (memory.ByteLength() < sizeof(Window)) return Napi::Number::New(info.Env(), -EINVAL);
  auto* const owner = new WindowOwner{static_cast<Window*>(memory.Data()),
                                      Napi::Reference<Napi::ArrayBuffer>::New(memory, 1)};
  napi_value run = nullptr;
  const auto release = [](napi_env, void*, void* data) { delete static_cast<WindowOwner*>(data); };
  if (napi_create_function(info.Env(), "run", NAPI_AUTO_LENGTH, RunWindow, owner, &run) != napi_ok ||
      napi_add_finalizer(info.Env(), run, owner, release, owner, nullptr) != napi_ok) {
    delete owner;
    return Napi::Number::New(info.Env(), -ENOMEM);
  }
  return Napi::Value(info.Env(), run);
}

/** wait(fd, events, timeoutMilliseconds): mask of poll(2) events, 0 after the time-out, or -errno. */
Napi::Value Wait(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  const auto events = static_cast<int16_t>(arguments.Integer(1, 0, INT16_MAX));
  const int64_t timeout = arguments.Integer(2, 0, kMaxTimeoutMilliseconds) * 1'000'000;
  if (!arguments.ok()) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), WaitUntil(fd, events, Nanoseconds() + timeout));
}

}  // namespace

void InitSocketMessage(Napi::Env env, Napi::Object exports) {
  Export<MessageWindow>(env, exports, "messageWindow");
  Export<Wait>(env, exports, "wait");
}
