// SPDX-License-Identifier: MIT
#ifndef VFIO_USER_VFIO_DMA_MEMORY_H_
#define VFIO_USER_VFIO_DMA_MEMORY_H_

#include <napi.h>

#include <cstddef>
#include <cstdint>

#include "../arguments.h"

/** Memory of this process that a device shall access. */
struct DmaMemory {
  /** Null when the buffer is no live mapping of ours: memory of V8's own must never be a device's. */
  void* address = nullptr;
  /** Whole pages. */
  size_t length = 0;
  uint64_t iova = 0;
  bool readable = false;
  bool writable = false;
};

/** Reads the arguments buffer, slot, iova (a bigint) and access (1 read, 2 write, 3 both) from `first` on. */
DmaMemory ReadDmaMemory(const Napi::CallbackInfo& info, Arguments& arguments, size_t first);

#endif  // VFIO_USER_VFIO_DMA_MEMORY_H_
