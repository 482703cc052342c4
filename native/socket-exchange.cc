// SPDX-License-Identifier: MIT
// Small messages to the peer, and what the peer sends next, in one call without arguments.
#include <sys/socket.h>

#include <algorithm>
#include <cstdint>
#include <memory>

#include "addon.h"
#include "arguments.h"
#include "bound-function.h"
#include "clock.h"
#include "rights.h"

namespace {

constexpr size_t kMaxDescriptors = 8;
constexpr size_t kOutgoingSize = 4096;
constexpr size_t kIncomingSize = 16 << 10;

class SocketExchange {
 public:
  explicit SocketExchange(int fd) : fd_(fd) {}

  void* memory() { return &memory_; }
  size_t memory_size() const { return sizeof(memory_); }

  /**
   * Sends the first `length` bytes of `outgoing` with the first `fd_count` of `fds`; then, if `receive` is
   * set, takes what comes within the time to spin. -errno; -EAGAIN when nothing came, or not all was sent; 0
   * when only to send, or at the end of the stream; bytes received.
   */
  int32_t Run() {
    const size_t length = std::min<size_t>(memory_.length, kOutgoingSize);
    // Of nothing, send(2) would only tell whether the peer is there.
    const ssize_t sent = length == 0 ? 0 : Retry([&] { return Send(length); });
    memory_.sent = static_cast<uint32_t>(std::max<ssize_t>(sent, 0));
    if (sent == -1) return -errno;
    if (static_cast<size_t>(sent) < length) return -EAGAIN;
    return memory_.receive != 0 ? Receive() : 0;
  }

 private:
  struct Memory {
    uint32_t length;
    uint32_t fd_count;
    uint32_t receive;
    uint32_t spin_microseconds;
    uint32_t sent;
    uint32_t reserved[3];
    int32_t fds[kMaxDescriptors];
    uint8_t outgoing[kOutgoingSize];
    uint8_t incoming[kIncomingSize];
  };

  /** Of a round trip of 10 us, send(2) and recv(2) spare one or two of sendmsg(2) and recvmsg(2). */
  ssize_t Send(size_t length) {
    constexpr int kFlags = MSG_NOSIGNAL | MSG_DONTWAIT;
    const size_t count = std::min<size_t>(memory_.fd_count, kMaxDescriptors);
    if (count == 0) return send(fd_, memory_.outgoing, length, kFlags);
    iovec part = {memory_.outgoing, length};
    msghdr message = {};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    alignas(cmsghdr) char control[CMSG_SPACE(kMaxDescriptors * sizeof(int32_t))];
    AttachRights(&message, control, memory_.fds, count);
    return sendmsg(fd_, &message, kFlags);
  }

  /** The kernel drops descriptors that come along, so the peer must have no reason to send any. */
  int32_t Receive() {
    const int64_t deadline = Nanoseconds() + int64_t{memory_.spin_microseconds} * 1000;
    for (;;) {
      const ssize_t received =
          Retry([&] { return recv(fd_, memory_.incoming, kIncomingSize, MSG_DONTWAIT); });
      if (received >= 0) return static_cast<int32_t>(received);
      const int error = errno;
      if (error != EAGAIN || Nanoseconds() >= deadline) return -error;
    }
  }

  const int fd_;
  Memory memory_ = {};
};

/** socketExchange(fd): [run, memory], as of BindToMemory(). The descriptor must be open whenever it is run.
 */
Napi::Value CreateSocketExchange(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  if (!arguments.ok()) return info.Env().Undefined();
  return BindToMemory(info.Env(), std::make_shared<SocketExchange>(fd));
}

}  // namespace

void InitSocketExchange(Napi::Env env, Napi::Object exports) {
  Export<CreateSocketExchange>(env, exports, "socketExchange");
}
