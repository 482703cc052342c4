// SPDX-License-Identifier: MIT
#ifndef VFIO_USER_CLOCK_H_
#define VFIO_USER_CLOCK_H_

#include <cstdint>
#include <ctime>

/** CLOCK_MONOTONIC. */
inline int64_t Nanoseconds() {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

#endif  // VFIO_USER_CLOCK_H_
