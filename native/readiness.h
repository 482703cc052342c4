// SPDX-License-Identifier: MIT
#ifndef VFIO_USER_READINESS_H_
#define VFIO_USER_READINESS_H_

#include <napi.h>
#include <uv.h>

#include <memory>

#include "system.h"

/** Calls a JavaScript function when a descriptor becomes ready, on the event loop of the environment that
 * made it. */
class Watcher : public std::enable_shared_from_this<Watcher> {
 public:
  /**
   * Watches a duplicate of `fd`: closing `fd` elsewhere cannot then make libuv abort, and two watchers can
   * watch one file. With `drain` the function gets the counter of an eventfd, which is read here; else a mask
   * of events.
   */
  Watcher(Napi::Env env, UniqueFd duplicate, bool drain, Napi::Function callback);
  Watcher(const Watcher&) = delete;
  Watcher& operator=(const Watcher&) = delete;
  ~Watcher();

  /** Registers with the event loop; 0 or -errno. */
  int Open();
  /** Mask of UV_READABLE and UV_WRITABLE, 0 to pause. 0 or -errno. */
  int SetEvents(int events);
  /**
   * For how long after each delivery the event loop looks for the next one instead of sleeping, in
   * nanoseconds; 0 for not at all. 0 or -errno.
   */
  int SetSpin(uint64_t nanoseconds);
  /** Whether the watcher keeps the event loop alive. */
  void SetRef(bool on);
  /** Idempotent; safe from within the callback. */
  void Close();

 private:
  static void OnReady(uv_poll_t* poll, int status, int events);
  static void OnTurn(uv_prepare_t* turn);
  void Deliver(double value);
  /** Delivers what the descriptor has now; false when there is nothing. The callback may close the watcher.
   */
  bool Look();
  /** Takes the counter and delivers it; false when it is 0. The callback may close the watcher. */
  bool Drain();
  /** Keeps the event loop from sleeping until the time to spin is over. */
  void Spin();
  void StopSpinning();
  /** Whether nothing but this watcher keeps the event loop from sleeping now. */
  bool LoopIsIdle();

  Napi::Env env_;
  UniqueFd fd_;
  const bool drain_;
  Napi::FunctionReference callback_;
  napi_async_context context_ = nullptr;
  uv_poll_t* poll_ = nullptr;
  /** While active, the loop asks for events without waiting (libuv, uv_idle_t). */
  uv_idle_t* awake_ = nullptr;
  /** Called in each turn of the loop, right before it asks for events. */
  uv_prepare_t* turn_ = nullptr;
  uint64_t spin_ = 0;
  uint64_t spin_end_ = 0;
  int events_ = 0;
};

#endif  // VFIO_USER_READINESS_H_
