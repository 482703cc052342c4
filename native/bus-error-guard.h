// SPDX-License-Identifier: MIT
#ifndef VFIO_USER_BUS_ERROR_GUARD_H_
#define VFIO_USER_BUS_ERROR_GUARD_H_

#include <sys/types.h>

#include <cstddef>

/**
 * Whoever holds the file behind a shared mapping can truncate it; touching the lost pages then raises SIGBUS,
 * which kills the process. The guard knows all live mappings of the process. For a fault in one of them it
 * puts anonymous zero pages in place, from the faulting page to the end of the mapping, and signals an
 * eventfd. Faults elsewhere take their usual course. All functions may be called from any thread.
 *
 * The registers of a device are different: they are away while the device is reset, or while its memory
 * decoding is off (PCI Local Bus 3.0, 6.2.2), and come back. Their faulting page alone is replaced, by one of
 * ones, which is what a bus reads when no device answers, until Restore.
 */
namespace bus_error_guard {

/** A range of the process as mmap(2) returned it. */
struct Range {
  void* address;
  size_t length;
  /** Size of its pages; `address` and `length` are multiples of it. */
  size_t page_size;
  bool writable;
  /** Of a device, the descriptor to map its memory from again, open until Remove; -1 of a file. */
  int device = -1;
  /** Offset in `device`. */
  off_t offset = 0;
};

/** Guards a range; `event` is the eventfd to signal. A slot number (0 or above), or -errno. */
int Add(const Range& range, int event);

/** Ends guarding. Must come before munmap(2), since another mapping may get the address at once. */
void Remove(int slot);

/** Number of ranges that are guarded now, those of all threads. */
int Count();

/** Maps the registers of all devices again where their pages were replaced. Number of ranges. */
int Restore();

/** Whether pages of the range, which is one of a file, were replaced. */
bool IsLost(int slot);

/** Stops signalling `event`, for all ranges. */
void ForgetEvent(int event);

}  // namespace bus_error_guard

#endif  // VFIO_USER_BUS_ERROR_GUARD_H_
