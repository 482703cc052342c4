// SPDX-License-Identifier: MIT
#ifndef VFIO_USER_MEMORY_H_
#define VFIO_USER_MEMORY_H_

#include <sys/types.h>

#include <cstddef>

#include "system.h"

/** A shared mapping of a file or of a device's memory, guarded against its loss. Unmaps itself. */
class Mapping {
 public:
  Mapping() = default;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() { Close(); }

  struct Request {
    int fd;
    off_t offset;
    size_t length;
    bool writable;
    /** Multiple of which the address shall be; 0 for any. */
    size_t alignment;
    /** eventfd to signal when the file is truncated. */
    int lost_event;
  };

  /** Maps; 0 or -errno. -ENXIO when the range exceeds the file. */
  int Open(const Request& request);
  /** Idempotent. */
  void Close();
  /** Null once closed. */
  void* address() const { return address_; }
  size_t length() const { return length_; }
  int slot() const { return slot_; }

 private:
  void* address_ = nullptr;
  /** Whole pages. */
  size_t length_ = 0;
  /** In the SIGBUS guard. */
  int slot_ = -1;
  /** Of a device: what the guard maps its memory from again. */
  UniqueFd device_;
};

#endif  // VFIO_USER_MEMORY_H_
