// SPDX-License-Identifier: MIT
#ifndef VFIO_USER_DESCRIPTOR_TABLE_H_
#define VFIO_USER_DESCRIPTOR_TABLE_H_

#include "system.h"

/**
 * The descriptors that one environment (the main thread, or a worker) owns. JavaScript holds their numbers
 * and closes them; what is left when the environment ends, as a worker may without running any code, is
 * closed then.
 *
 * The tables of all environments share one list of the process, so a descriptor has one owner. Each entry
 * knows its file and not only its number: a number that somebody else closed and that names another file by
 * now is left alone.
 */
class DescriptorTable {
 public:
  DescriptorTable() = default;
  DescriptorTable(const DescriptorTable&) = delete;
  DescriptorTable& operator=(const DescriptorTable&) = delete;
  ~DescriptorTable() { CloseAll(); }

  /** Owns a new descriptor; its number. */
  int Add(UniqueFd fd);
  /** Takes over a descriptor, also from another environment. 0 or -errno. */
  int Adopt(int fd);
  /** Closes a descriptor. 0 or -errno; -EBADF when this table does not own it. */
  int Close(int fd);
  void CloseAll();
};

#endif  // VFIO_USER_DESCRIPTOR_TABLE_H_
