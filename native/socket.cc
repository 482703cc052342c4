// SPDX-License-Identifier: MIT
// Unix stream sockets, non-blocking and closed on exec, with descriptors passed along (SCM_RIGHTS).
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <cstddef>
#include <cstring>
#include <optional>

#include "addon.h"
#include "arguments.h"

namespace {

constexpr int kSocketType = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;

struct Address {
  sockaddr_un name = {};
  socklen_t length = 0;
};

/** '@' or NUL first means an abstract name, which may hold any bytes and ends with its length (unix(7)). */
std::optional<Address> AddressOf(const std::string& path) {
  Address address;
  address.name.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.name.sun_path)) return std::nullopt;
  const bool abstract = path[0] == '@' || path[0] == '\0';
  if (!abstract && path.find('\0') != std::string::npos) return std::nullopt;
  std::memcpy(address.name.sun_path, path.data(), path.size());
  if (abstract) address.name.sun_path[0] = '\0';
  address.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + (abstract ? 0 : 1));
  return address;
}

/** A new socket after `act` (connect or bind) on it, or -errno. */
template <typename Act>
Napi::Value OpenAt(const Napi::CallbackInfo& info, Act act) {
  Arguments arguments(info);
  const std::string path = arguments.String(0);
  if (!arguments.ok()) return info.Env().Undefined();
  const std::optional<Address> address = AddressOf(path);
  if (!address) return Napi::Number::New(info.Env(), -EINVAL);
  UniqueFd fd(socket(AF_UNIX, kSocketType, 0));
  const auto* name = reinterpret_cast<const sockaddr*>(&address->name);
  const bool done = fd.valid() && Retry([&] { return act(fd.get(), name, address->length); }) == 0;
  return OwnedOrErrno(info.Env(), done ? fd.Release() : -1);
}

/** connect(path): a connected socket or -errno; -EAGAIN when the listener's backlog is full. */
Napi::Value Connect(const Napi::CallbackInfo& info) { return OpenAt(info, connect); }

/** bind(path): a bound socket or -errno. */
Napi::Value Bind(const Napi::CallbackInfo& info) { return OpenAt(info, bind); }

/** listen(fd, backlog): 0 or -errno. */
Napi::Value Listen(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  const int backlog = arguments.Natural(1);
  if (!arguments.ok()) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), OrErrno(listen(fd, backlog)));
}

/** accept(fd): a connected socket or -errno; -EAGAIN when nobody waits. */
Napi::Value Accept(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  if (!arguments.ok()) return info.Env().Undefined();
  const int result = Retry([&] { return accept4(fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC); });
  return OwnedOrErrno(info.Env(), result);
}

/** socketPair(fds): 0 or -errno; the two sockets in fds[0] and fds[1]. */
Napi::Value SocketPair(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const View<int32_t> fds = arguments.Integers(0, 2);
  if (!arguments.ok()) return info.Env().Undefined();
  const int result = OrErrno(socketpair(AF_UNIX, kSocketType, 0, fds.data));
  auto& descriptors = info.Env().GetInstanceData<AddonData>()->descriptors;
  for (size_t index = 0; result == 0 && index < 2; index++) descriptors.Add(UniqueFd(fds.data[index]));
  return Napi::Number::New(info.Env(), result);
}

/** Value of an integer option, or nothing with errno set. */
std::optional<int> Option(int fd, int option) {
  int value = 0;
  socklen_t size = sizeof(value);
  if (getsockopt(fd, SOL_SOCKET, option, &value, &size) == -1) return std::nullopt;
  return value;
}

/**
 * adoptSocket(fd, listening): 0 or -errno; -EPROTOTYPE when it is no unix stream socket, -EINVAL when it
 * listens and is not to, or the other way round, -ENOTCONN when it does neither. Makes it non-blocking and
 * closed on exec.
 */
Napi::Value AdoptSocket(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  const bool listening = arguments.Natural(1) != 0;
  if (!arguments.ok()) return info.Env().Undefined();
  const auto adopt = [&] {
    const std::optional<int> domain = Option(fd, SO_DOMAIN);
    const std::optional<int> type = Option(fd, SO_TYPE);
    const std::optional<int> listens = Option(fd, SO_ACCEPTCONN);
    if (!domain || !type || !listens) return -errno;
    if (domain != AF_UNIX || type != SOCK_STREAM) return -EPROTOTYPE;
    if ((listens != 0) != listening) return -EINVAL;
    sockaddr_un peer{};
    socklen_t length = sizeof(peer);
    if (!listening && getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &length) == -1) return -errno;
    const int flags = fcntl(fd, F_GETFL);
    if (flags == -1 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) == -1) return -errno;
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) == -1) return -errno;
    return info.Env().GetInstanceData<AddonData>()->descriptors.Adopt(fd);
  };
  return Napi::Number::New(info.Env(), adopt());
}

/** setSendBuffer(fd, bytes): 0 or -errno. */
Napi::Value SetSendBuffer(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  const int bytes = arguments.Natural(1);
  if (!arguments.ok()) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), OrErrno(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes))));
}

/** peerCredentials(fd, out): 0 or -errno; process, user and group id in out[0], out[1] and out[2]. */
Napi::Value PeerCredentials(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  const View<int32_t> out = arguments.Integers(1, 3);
  if (!arguments.ok()) return info.Env().Undefined();
  ucred credentials = {};
  socklen_t size = sizeof(credentials);
  const int result = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size);
  if (result == 0) {
    out.data[0] = credentials.pid;
    out.data[1] = static_cast<int32_t>(credentials.uid);
    out.data[2] = static_cast<int32_t>(credentials.gid);
  }
  return Napi::Number::New(info.Env(), OrErrno(result));
}

}  // namespace

void InitSocket(Napi::Env env, Napi::Object exports) {
  Export<Connect>(env, exports, "connect");
  Export<Bind>(env, exports, "bind");
  Export<Listen>(env, exports, "listen");
  Export<Accept>(env, exports, "accept");
  Export<SocketPair>(env, exports, "socketPair");
  Export<AdoptSocket>(env, exports, "adoptSocket");
  Export<SetSendBuffer>(env, exports, "setSendBuffer");
  Export<PeerCredentials>(env, exports, "peerCredentials");
}
