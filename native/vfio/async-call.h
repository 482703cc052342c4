// SPDX-License-Identifier: MIT
#ifndef VFIO_USER_VFIO_ASYNC_CALL_H_
#define VFIO_USER_VFIO_ASYNC_CALL_H_

#include <napi.h>

#include <functional>

#include "../system.h"

/** Made of the duplicate of the descriptor; a descriptor that the call opens goes to `opened`. Its result: 0
 * or above, or -errno. */
using OffThreadCall = std::function<int(int fd, UniqueFd* opened)>;

/**
 * Runs a system call that may sleep, as a reset does for a tenth of a second, on a thread of libuv's pool.
 * The call gets a duplicate of `fd`, so that the number cannot name another file meanwhile. A promise of its
 * result; of one more than the number of a descriptor that it has opened, which is the caller's.
 */
Napi::Value CallOffThread(Napi::Env env, int fd, OffThreadCall call);

#endif  // VFIO_USER_VFIO_ASYNC_CALL_H_
