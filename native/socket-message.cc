// SPDX-License-Identifier: MIT
// Sending, receiving and waiting on a connected socket.
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "addon.h"
#include "arguments.h"
#include "clock.h"
#include "rights.h"

namespace {

/** The kernel's SCM_MAX_FD: most descriptors in one message. */
constexpr size_t kMaxDescriptors = 253;
/** Room for the credentials too, which come along when someone has set SO_PASSCRED on an adopted socket. */
constexpr size_t kControlSize = CMSG_SPACE(kMaxDescriptors * sizeof(int)) + CMSG_SPACE(sizeof(ucred));
/** Longest spin and wait: a minute, and a day. */
constexpr int64_t kMaxSpinMicroseconds = 60'000'000;
constexpr int64_t kMaxTimeoutMilliseconds = 86'400'000;

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

/**
 * send(fd, head, headLength, body, bodyOffset, fds): one sendmsg(2) of the first bytes of `head` and the last
 * ones of `body`. Bytes taken or -errno. `body` and `fds` may be null.
 */
Napi::Value Send(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  const View<uint8_t> head = arguments.Part(arguments.Bytes(1), 0, arguments.Size(2));
  const View<uint8_t> whole = arguments.IsNull(3) ? View<uint8_t>{} : arguments.Bytes(3);
  const size_t offset = arguments.Size(4);
  const View<uint8_t> body = arguments.Part(whole, offset, whole.length - std::min(offset, whole.length));
  const View<int32_t> fds = arguments.IsNull(5) ? View<int32_t>{} : arguments.Integers(5, 0);
  if (!arguments.ok()) return info.Env().Undefined();
  if (fds.length > kMaxDescriptors) return Napi::Number::New(info.Env(), -EINVAL);

  if (body.length == 0 && fds.length == 0) {
    // The usual message. send(2) is quicker than sendmsg(2), which has more to look at.
    const ssize_t sent = Retry([&] { return send(fd, head.data, head.length, MSG_NOSIGNAL | MSG_DONTWAIT); });
    return Napi::Number::New(info.Env(), static_cast<double>(OrErrno(sent)));
  }
  iovec parts[2] = {{head.data, head.length}, {body.data, body.length}};
  msghdr message = {};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  alignas(cmsghdr) char control[kControlSize];
  if (fds.length > 0) AttachRights(&message, control, fds.data, fds.length);
  const ssize_t sent = Retry([&] { return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT); });
  return Napi::Number::New(info.Env(), static_cast<double>(OrErrno(sent)));
}

/** Puts received descriptors into `out` after its two counters; those that find no room are closed. */
void TakeDescriptors(msghdr* message, View<int32_t> out, DescriptorTable* owner) {
  int32_t count = 0;
  bool truncated = (message->msg_flags & MSG_CTRUNC) != 0;
  for (cmsghdr* part = CMSG_FIRSTHDR(message); part != nullptr; part = CMSG_NXTHDR(message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const size_t number = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t index = 0; index < number; index++) {
      int received = -1;
      std::memcpy(&received, CMSG_DATA(part) + index * sizeof(int), sizeof(int));
      UniqueFd fd(received);
      if (static_cast<size_t>(count) + 2 < out.length) {
        out.data[2 + count++] = owner->Add(std::move(fd));
      } else {
        truncated = true;
      }
    }
  }
  out.data[0] = count;
  out.data[1] = truncated ? 1 : 0;
}

/** One recvmsg(2): bytes, 0 at the end of the stream, or -errno. */
ssize_t ReceiveOnce(int fd, View<uint8_t> buffer, View<int32_t> descriptors, DescriptorTable* owner) {
  iovec part = {buffer.data, buffer.length};
  alignas(cmsghdr) char control[kControlSize];
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  const ssize_t received = Retry([&] { return recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT); });
  if (received == -1) return -errno;
  TakeDescriptors(&message, descriptors, owner);
  return received;
}

/**
 * receive(fd, buffer, offset, length, fdsOut, spinMicroseconds, timeoutMilliseconds): bytes, 0 at the end of
 * the stream, or -errno; -EAGAIN when nothing came in time. Tries for the time to spin, then sleeps until the
 * time-out, both counted from the call. fdsOut gets the number of descriptors, whether some were lost, then
 * the descriptors.
 */
Napi::Value Receive(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  const View<uint8_t> buffer = arguments.Part(arguments.Bytes(1), arguments.Size(2), arguments.Size(3));
  const View<int32_t> descriptors = arguments.Integers(4, 2);
  const int64_t spin = arguments.Integer(5, 0, kMaxSpinMicroseconds) * 1000;
  const int64_t timeout = arguments.Integer(6, 0, kMaxTimeoutMilliseconds) * 1'000'000;
  if (!arguments.ok()) return info.Env().Undefined();
  // A read of no bytes would look like the end of the stream.
  if (buffer.length == 0) return Napi::Number::New(info.Env(), -EINVAL);

  descriptors.data[0] = 0;
  descriptors.data[1] = 0;
  auto* const owner = &info.Env().GetInstanceData<AddonData>()->descriptors;
  ssize_t received = ReceiveOnce(fd, buffer, descriptors, owner);
  if (received == -EAGAIN && spin + timeout > 0) {
    const int64_t start = Nanoseconds();
    while (received == -EAGAIN && Nanoseconds() < start + spin)
      received = ReceiveOnce(fd, buffer, descriptors, owner);
    while (received == -EAGAIN) {
      const int ready = WaitUntil(fd, POLLIN, start + timeout);
      if (ready == 0) break;
      received = ready < 0 ? ready : ReceiveOnce(fd, buffer, descriptors, owner);
    }
  }
  return Napi::Number::New(info.Env(), static_cast<double>(received));
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
  Export<Send>(env, exports, "send");
  Export<Receive>(env, exports, "receive");
  Export<Wait>(env, exports, "wait");
}
