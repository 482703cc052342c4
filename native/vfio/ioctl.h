// SPDX-License-Identifier: MIT
#ifndef VFIO_USER_VFIO_IOCTL_H_
#define VFIO_USER_VFIO_IOCTL_H_

#include <sys/ioctl.h>

#include <cstdint>
#include <cstring>

#include "../arguments.h"
#include "../system.h"

/** ioctl(2): its result, or -errno. */
template <typename Argument>
int Ioctl(int fd, unsigned long request, Argument argument) {
  return OrErrno(Retry([&] { return ioctl(fd, request, argument); }));
}

/** Such structures begin with their own size, which bounds what the kernel writes. False when there is no
 * room for it. */
inline bool WriteArgsz(View<uint8_t> buffer, size_t least) {
  constexpr size_t kMost = size_t{1} << 20;
  if (buffer.length < least || buffer.length > kMost) return false;
  const auto argsz = static_cast<uint32_t>(buffer.length);
  memcpy(buffer.data, &argsz, sizeof(argsz));
  return true;
}

#endif  // VFIO_USER_VFIO_IOCTL_H_
