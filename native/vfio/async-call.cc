// SPDX-License-Identifier: MIT
#include "async-call.h"

#include <fcntl.h>

#include <utility>

#include "../addon.h"

namespace {

class AsyncCall : public Napi::AsyncWorker {
 public:
  AsyncCall(Napi::Env env, int fd, OffThreadCall call)
      : Napi::AsyncWorker(env),
        fd_(fcntl(fd, F_DUPFD_CLOEXEC, 0)),
        call_(std::move(call)),
        deferred_(Napi::Promise::Deferred::New(env)),
        result_(fd_.valid() ? 0 : -errno) {}

  Napi::Promise Promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override {
    if (fd_.valid()) result_ = call_(fd_.get(), &opened_);
    // Here and not at the end of the object: closing a device may sleep as well.
    fd_.Reset();
  }
  void OnOK() override {
    if (opened_.valid())
      result_ = 1 + Env().GetInstanceData<AddonData>()->descriptors.Add(std::move(opened_));
    deferred_.Resolve(Napi::Number::New(Env(), result_));
  }

 private:
  UniqueFd fd_;
  /** Closed when nobody is there any more to whom it could be given. */
  UniqueFd opened_;
  OffThreadCall call_;
  Napi::Promise::Deferred deferred_;
  int result_;
};

}  // namespace

Napi::Value CallOffThread(Napi::Env env, int fd, OffThreadCall call) {
  // It deletes itself when it is done.
  auto* const work = new AsyncCall(env, fd, std::move(call));
  const Napi::Promise promise = work->Promise();
  work->Queue();
  return promise;
}
