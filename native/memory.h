// SPDX-License-Identifier: MIT
#ifndef VFIO_USER_MEMORY_H_
#define VFIO_USER_MEMORY_H_

#include <sys/types.h>

#include <cstddef>

#include "bus-error-guard.h"
#include "system.h"

/**
 * A shared mapping of a file or of a device's memory, guarded against its loss; or memory of this process
 * alone. Unmaps itself.
 */
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
  /**
   * Maps zeroed memory, whose pages are taken from the system when they are touched; 0 or -errno. The first
   * `huge` bytes are made of huge pages where the system has them, the rest of ordinary ones.
   */
  int Allocate(size_t length, size_t huge, int lost_event);
  /** Idempotent. */
  void Close();
  /** Null once closed. */
  void* address() const { return address_; }
  size_t length() const { return length_; }
  int slot() const { return slot_; }

 private:
  /** Takes over what mmap(2) has returned, or unmaps it; 0 or -errno. */
  int Own(const bus_error_guard::Range& range, int lost_event);

  void* address_ = nullptr;
  /** Whole pages. */
  size_t length_ = 0;
  /** In the SIGBUS guard. */
  int slot_ = -1;
  /** Of a device: what the guard maps its memory from again. */
  UniqueFd device_;
};

#endif  // VFIO_USER_MEMORY_H_
