// SPDX-License-Identifier: MIT
#ifndef VFIO_USER_EVENTFD_H_
#define VFIO_USER_EVENTFD_H_

#include <cstdint>

/** Takes the counter of an eventfd into `count` without blocking. 0 or -errno; -EAGAIN when the counter is 0.
 */
int ReadCounter(int fd, uint64_t* count);

#endif  // VFIO_USER_EVENTFD_H_
