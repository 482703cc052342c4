// SPDX-License-Identifier: MIT
#ifndef VFIO_USER_ADDON_H_
#define VFIO_USER_ADDON_H_

#include <napi.h>

#include <cstdint>
#include <map>
#include <memory>

#include "descriptor-table.h"
#include "memory.h"
#include "readiness.h"
#include "system.h"

/** What one environment (the main thread, or a worker) holds. Nothing of it is shared between threads. */
struct AddonData {
  DescriptorTable descriptors;
  std::map<int, std::shared_ptr<Watcher>> watchers;
  int next_watcher = 1;
  /** Live mappings by slot of the SIGBUS guard. The ArrayBuffers own them. */
  std::map<int, std::weak_ptr<Mapping>> mappings;
  /** Signalled by the SIGBUS guard when it had to repair a mapping of this environment. */
  UniqueFd lost_event;
};

void InitAffinity(Napi::Env env, Napi::Object exports);
void InitDescriptor(Napi::Env env, Napi::Object exports);
void InitEventfd(Napi::Env env, Napi::Object exports);
void InitMemory(Napi::Env env, Napi::Object exports);
void InitNvme(Napi::Env env, Napi::Object exports);
void InitIommufd(Napi::Env env, Napi::Object exports);
void InitReadiness(Napi::Env env, Napi::Object exports);
void InitSocket(Napi::Env env, Napi::Object exports);
void InitSocketMessage(Napi::Env env, Napi::Object exports);
void InitVfioContainer(Napi::Env env, Napi::Object exports);
void InitVfioDevice(Napi::Env env, Napi::Object exports);
void InitVfioDirtyLog(Napi::Env env, Napi::Object exports);
void InitVfioMigration(Napi::Env env, Napi::Object exports);

/** The mapping of this environment that an ArrayBuffer and a slot name together; null when it is none, or
 * closed. */
std::shared_ptr<Mapping> LiveMapping(Napi::Env env, const Napi::ArrayBuffer& buffer, int slot);

/** A new descriptor, or -1, as JavaScript gets it: its number, which the environment owns, or -errno. */
Napi::Value OwnedOrErrno(Napi::Env env, int fd);

/** Adds a function to the exports. The template form allocates nothing per function. */
template <Napi::Value (*function)(const Napi::CallbackInfo&)>
void Export(Napi::Env env, Napi::Object exports, const char* name) {
  exports.Set(name, Napi::Function::New<function>(env, name));
}

#endif  // VFIO_USER_ADDON_H_
