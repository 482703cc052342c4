// SPDX-License-Identifier: MIT
#include "readiness.h"

#include <fcntl.h>
#include <poll.h>

#include <algorithm>

#include "addon.h"
#include "arguments.h"
#include "eventfd.h"

namespace {

/**
 * Longest time for which a watcher keeps a turn of the event loop to itself, in nanoseconds. Only a loop that
 * has nothing else to do gives it. What descriptors and other threads bring meanwhile ends it; timers, which
 * count milliseconds, may be late by it.
 */
constexpr uint64_t kSlice = 50'000;
/** Looks at the descriptor, of 0.3 µs each, for one at what else the loop waits for. */
constexpr int kLooksPerPoll = 8;

/** Makes a handle that does not keep the loop alive, as what does that is the descriptor. 0 or -errno. */
template <typename Handle>
int MakeHandle(uv_loop_t* loop, int (*init)(uv_loop_t*, Handle*), void* data, Handle** made) {
  auto handle = std::make_unique<Handle>();
  const int result = init(loop, handle.get());
  if (result < 0) return result;
  handle->data = data;
  uv_unref(reinterpret_cast<uv_handle_t*>(handle.get()));
  *made = handle.release();
  return 0;
}

/** Closes a handle, if there is one. The loop needs it until it has called back, which is after its owner is
 * gone. */
template <typename Handle>
void CloseHandle(Handle** handle) {
  if (*handle == nullptr) return;
  uv_close(reinterpret_cast<uv_handle_t*>(std::exchange(*handle, nullptr)),
           [](uv_handle_t* closed) { delete reinterpret_cast<Handle*>(closed); });
}

}  // namespace

Watcher::Watcher(Napi::Env env, UniqueFd duplicate, bool drain, Napi::Function callback)
    : env_(env), fd_(std::move(duplicate)), drain_(drain), callback_(Napi::Persistent(callback)) {
  // Without a resource of ours, Node.js makes one and keeps it: a collected resource would lose
  // AsyncLocalStorage.
  const Napi::String name = Napi::String::New(env, "VfioUserWatcher");
  if (napi_async_init(env, nullptr, name, &context_) != napi_ok) context_ = nullptr;
}

Watcher::~Watcher() {
  Close();
  if (context_ != nullptr) napi_async_destroy(env_, context_);
}

int Watcher::Open() {
  uv_loop_t* loop = nullptr;
  if (napi_get_uv_event_loop(env_, &loop) != napi_ok) return -EINVAL;
  auto poll = std::make_unique<uv_poll_t>();
  const int result = uv_poll_init(loop, poll.get(), fd_.get());
  if (result < 0) return result;
  poll_ = poll.release();
  poll_->data = this;
  return 0;
}

int Watcher::SetEvents(int events) {
  events_ = events;
  return events == 0 ? uv_poll_stop(poll_) : uv_poll_start(poll_, events, OnReady);
}

int Watcher::SetSpin(uint64_t nanoseconds) {
  spin_ = nanoseconds;
  int result = 0;
  if (spin_ > 0 && awake_ == nullptr) result = MakeHandle(poll_->loop, uv_idle_init, this, &awake_);
  if (spin_ > 0 && turn_ == nullptr && result == 0)
    result = MakeHandle(poll_->loop, uv_prepare_init, this, &turn_);
  if (result < 0) return result;
  Spin();
  return 0;
}

void Watcher::SetRef(bool on) {
  auto* handle = reinterpret_cast<uv_handle_t*>(poll_);
  if (on) {
    uv_ref(handle);
  } else {
    uv_unref(handle);
  }
}

void Watcher::Close() {
  CloseHandle(&poll_);
  CloseHandle(&awake_);
  CloseHandle(&turn_);
  fd_.Reset();
}

void Watcher::OnReady(uv_poll_t* poll, int status, int events) {
  auto* watcher = static_cast<Watcher*>(poll->data);
  // The callback may close the watcher.
  const std::shared_ptr<Watcher> self = watcher->shared_from_this();
  if (status < 0) {
    // libuv stops a descriptor in an error state (EPOLLERR, such as a reset connection). Report it as ready
    // and go on: the next call on the descriptor tells the error, after the data that came before it.
    events = self->events_;
    if (self->SetEvents(events) < 0) return;
  }
  if (self->drain_) {
    self->Drain();
    return;
  }
  self->Deliver(events);
  self->Spin();
}

bool Watcher::Look() {
  if (drain_) return Drain();
  pollfd events = {fd_.get(), POLLIN, 0};
  if ((events_ & UV_READABLE) == 0 || poll(&events, 1, 0) <= 0) return false;
  Deliver(UV_READABLE);
  Spin();
  return true;
}

bool Watcher::Drain() {
  uint64_t count = 0;
  if (ReadCounter(fd_.get(), &count) != 0 || count == 0) return false;
  Deliver(static_cast<double>(count));
  Spin();
  return true;
}

void Watcher::Spin() {
  if (turn_ == nullptr) return;
  if (spin_ == 0) {
    StopSpinning();
    return;
  }
  spin_end_ = uv_hrtime() + spin_;
  uv_idle_start(awake_, [](uv_idle_t*) {});
  uv_prepare_start(turn_, OnTurn);
}

void Watcher::StopSpinning() {
  uv_idle_stop(awake_);
  uv_prepare_stop(turn_);
}

bool Watcher::LoopIsIdle() {
  uv_idle_stop(awake_);
  const bool idle = uv_backend_timeout(poll_->loop) != 0;
  uv_idle_start(awake_, [](uv_idle_t*) {});
  return idle;
}

/**
 * Looks for a signal or a message without a whole turn of the loop for each look. The descriptor shows it
 * before the loop's own descriptor does, which tells of all else that the loop waits for.
 */
void Watcher::OnTurn(uv_prepare_t* turn) {
  auto* watcher = static_cast<Watcher*>(turn->data);
  uint64_t now = uv_hrtime();
  if (now > watcher->spin_end_) {
    watcher->StopSpinning();
    return;
  }
  if (!watcher->LoopIsIdle()) return;
  // The callback may close the watcher.
  const std::shared_ptr<Watcher> self = watcher->shared_from_this();
  pollfd events = {uv_backend_fd(turn->loop), POLLIN, 0};
  const uint64_t end = std::min(watcher->spin_end_, now + kSlice);
  for (int look = 0; now < end; look++, now = uv_hrtime()) {
    if (self->Look()) return;
    if (look % kLooksPerPoll == 0 && poll(&events, 1, 0) != 0) return;
  }
}

void Watcher::Deliver(double value) {
  const Napi::HandleScope scope(env_);
  const napi_value argument = Napi::Number::New(env_, value);
  const napi_status status =
      napi_make_callback(env_, context_, env_.Global(), callback_.Value(), 1, &argument, nullptr);
  if (status != napi_pending_exception) return;
  napi_value exception = nullptr;
  if (napi_get_and_clear_last_exception(env_, &exception) == napi_ok) napi_fatal_exception(env_, exception);
}

namespace {

constexpr int kAllEvents = UV_READABLE | UV_WRITABLE;
/** A hundred years, which stands for ever. */
constexpr int64_t kMaxSpinMicroseconds = int64_t{100} * 365 * 86'400 * 1'000'000;

Watcher* Find(Napi::Env env, int id) {
  const auto& watchers = env.GetInstanceData<AddonData>()->watchers;
  const auto found = watchers.find(id);
  return found == watchers.end() ? nullptr : found->second.get();
}

/** watch(fd, events, drain, callback): the watcher's number, above 0, or -errno. */
Napi::Value Watch(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  const int events = static_cast<int>(arguments.Integer(1, 0, kAllEvents));
  const bool drain = arguments.Boolean(2);
  const Napi::Function callback = arguments.Function(3);
  if (!arguments.ok()) return info.Env().Undefined();
  UniqueFd duplicate(fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!duplicate.valid()) return Napi::Number::New(info.Env(), -errno);
  const auto watcher = std::make_shared<Watcher>(info.Env(), std::move(duplicate), drain, callback);
  int result = watcher->Open();
  if (result == 0) result = watcher->SetEvents(events);
  if (result < 0) return Napi::Number::New(info.Env(), result);
  auto* data = info.Env().GetInstanceData<AddonData>();
  const int id = data->next_watcher++;
  data->watchers.emplace(id, watcher);
  return Napi::Number::New(info.Env(), id);
}

/** setWatcherEvents(watcher, events): 0 or -errno; -EBADF for a closed watcher. */
Napi::Value SetWatcherEvents(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int id = arguments.Natural(0);
  const int events = static_cast<int>(arguments.Integer(1, 0, kAllEvents));
  if (!arguments.ok()) return info.Env().Undefined();
  Watcher* watcher = Find(info.Env(), id);
  return Napi::Number::New(info.Env(), watcher == nullptr ? -EBADF : watcher->SetEvents(events));
}

/**
 * setWatcherSpin(watcher, microseconds): 0, or -errno; -EBADF for a closed watcher. Counts from now on, and
 * from each call of the watcher's function.
 */
Napi::Value SetWatcherSpin(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int id = arguments.Natural(0);
  const auto microseconds = static_cast<uint64_t>(arguments.Integer(1, 0, kMaxSpinMicroseconds));
  if (!arguments.ok()) return info.Env().Undefined();
  Watcher* watcher = Find(info.Env(), id);
  return Napi::Number::New(info.Env(), watcher == nullptr ? -EBADF : watcher->SetSpin(microseconds * 1000));
}

/** setWatcherRef(watcher, on): 0, or -EBADF for a closed watcher. */
Napi::Value SetWatcherRef(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int id = arguments.Natural(0);
  const bool on = arguments.Boolean(1);
  if (!arguments.ok()) return info.Env().Undefined();
  Watcher* watcher = Find(info.Env(), id);
  if (watcher == nullptr) return Napi::Number::New(info.Env(), -EBADF);
  watcher->SetRef(on);
  return Napi::Number::New(info.Env(), 0);
}

/** unwatch(watcher): 0, or -EBADF for a closed watcher. */
Napi::Value Unwatch(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int id = arguments.Natural(0);
  if (!arguments.ok()) return info.Env().Undefined();
  Watcher* watcher = Find(info.Env(), id);
  if (watcher == nullptr) return Napi::Number::New(info.Env(), -EBADF);
  watcher->Close();
  info.Env().GetInstanceData<AddonData>()->watchers.erase(id);
  return Napi::Number::New(info.Env(), 0);
}

}  // namespace

void InitReadiness(Napi::Env env, Napi::Object exports) {
  Export<Watch>(env, exports, "watch");
  Export<SetWatcherEvents>(env, exports, "setWatcherEvents");
  Export<SetWatcherSpin>(env, exports, "setWatcherSpin");
  Export<SetWatcherRef>(env, exports, "setWatcherRef");
  Export<Unwatch>(env, exports, "unwatch");
}
