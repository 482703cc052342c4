// SPDX-License-Identifier: MIT
#include <sched.h>

#include <cerrno>

#include "addon.h"
#include "arguments.h"

namespace {

/** bindThread(processors): 0 or -errno. The calling thread runs on these processors alone from now on. */
Napi::Value BindThread(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const View<int32_t> processors = arguments.Integers(0, 1);
  if (!arguments.ok()) return info.Env().Undefined();
  cpu_set_t set;
  CPU_ZERO(&set);
  for (size_t index = 0; index < processors.length; index++) {
    const int32_t processor = processors.data[index];
    if (processor < 0 || processor >= CPU_SETSIZE) return Napi::Number::New(info.Env(), -EINVAL);
    CPU_SET(static_cast<size_t>(processor), &set);
  }
  return Napi::Number::New(info.Env(), OrErrno(sched_setaffinity(0, sizeof(set), &set)));
}

}  // namespace

void InitAffinity(Napi::Env env, Napi::Object exports) { Export<BindThread>(env, exports, "bindThread"); }
