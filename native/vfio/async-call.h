// SPDX-License-Identifier: MIT
#ifndef VFIO_USER_VFIO_ASYNC_CALL_H_
#define VFIO_USER_VFIO_ASYNC_CALL_H_

#include <napi.h>

#include <functional>

/**
 * Runs a system call that may sleep, as a reset does for a tenth of a second, on a thread of libuv's pool.
 * The call gets a duplicate of `fd`, so that the number cannot name another file meanwhile. A promise of its
 * result: 0 or above, or -errno.
 */
Napi::Value CallOffThread(Napi::Env env, int fd, std::function<int(int)> call);

#endif  // VFIO_USER_VFIO_ASYNC_CALL_H_
