// SPDX-License-Identifier: MIT
#ifndef VFIO_USER_BUS_ERROR_GUARD_H_
#define VFIO_USER_BUS_ERROR_GUARD_H_

#include <cstddef>

/**
 * Whoever holds the file behind a shared mapping can truncate it; touching the lost pages then raises SIGBUS,
 * which kills the process. The guard knows all live mappings of the process. For a fault in one of them it
 * puts anonymous zero pages in place, from the faulting page to the end of the mapping, and signals an
 * eventfd. Faults elsewhere take their usual course. All functions may be called from any thread.
 */
namespace bus_error_guard {

/** A range of the process as mmap(2) returned it. */
struct Range {
  void* address;
  size_t length;
  /** Size of its pages; `address` and `length` are multiples of it. */
  size_t page_size;
  bool writable;
};

/** Guards a range; `event` is the eventfd to signal. A slot number (0 or above), or -errno. */
int Add(const Range& range, int event);

/** Ends guarding. Must come before munmap(2), since another mapping may get the address at once. */
void Remove(int slot);

/** Number of ranges that are guarded now, those of all threads. */
int Count();

/** Whether pages of the range were replaced. */
bool IsLost(int slot);

/** Stops signalling `event`, for all ranges. */
void ForgetEvent(int event);

}  // namespace bus_error_guard

#endif  // VFIO_USER_BUS_ERROR_GUARD_H_
