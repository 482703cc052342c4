// SPDX-License-Identifier: MIT
#include "dma-memory.h"

#include "../addon.h"

DmaMemory ReadDmaMemory(const Napi::CallbackInfo& info, Arguments& arguments, size_t first) {
  const Napi::ArrayBuffer buffer = arguments.ArrayBuffer(first);
  const int slot = arguments.Natural(first + 1);
  DmaMemory memory;
  memory.iova = arguments.Address(first + 2);
  const int64_t access = arguments.Integer(first + 3, 1, 3);
  if (!arguments.ok()) return memory;
  memory.readable = (access & 1) != 0;
  memory.writable = (access & 2) != 0;
  if (const auto mapping = LiveMapping(info.Env(), buffer, slot)) {
    memory.address = mapping->address();
    memory.length = mapping->length();
  }
  return memory;
}
