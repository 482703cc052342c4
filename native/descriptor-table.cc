// SPDX-License-Identifier: MIT
#include "descriptor-table.h"

#include <list>
#include <map>
#include <mutex>

namespace {

/** Who owns a number, and the file that it named then. All eventfds have one inode: those are not told apart.
 */
struct Entry {
  const DescriptorTable* owner;
  FileStatus file;
};

struct Owners {
  std::mutex mutex;
  std::map<int, Entry> entries;
};

/** Never destroyed: workers may end later than the destructors of the process run. */
Owners& AllOwners() {
  static auto* const owners = new Owners();
  return *owners;
}

bool IsOpen(int fd, const Entry& entry) {
  FileStatus file;
  return StatusOf(fd, &file) == 0 && SameFile(file, entry.file);
}

}  // namespace

int DescriptorTable::Add(UniqueFd fd) {
  Adopt(fd.get());
  return fd.Release();
}

int DescriptorTable::Adopt(int fd) {
  FileStatus file;
  if (StatusOf(fd, &file) == -1) return -errno;
  Owners& owners = AllOwners();
  const std::lock_guard<std::mutex> lock(owners.mutex);
  owners.entries[fd] = {this, file};
  return 0;
}

int DescriptorTable::Close(int fd) {
  Owners& owners = AllOwners();
  {
    const std::lock_guard<std::mutex> lock(owners.mutex);
    const auto found = owners.entries.find(fd);
    if (found == owners.entries.end() || found->second.owner != this) return -EBADF;
    const bool open = IsOpen(fd, found->second);
    owners.entries.erase(found);
    if (!open) return -EBADF;
  }
  // The number is free even when close was interrupted; a second attempt could hit another thread's file.
  return close(fd) == -1 && errno != EINTR ? -errno : 0;
}

void DescriptorTable::CloseAll() {
  // Closed once the lock is free: freeing the memory behind a descriptor takes its time.
  std::list<UniqueFd> closing;
  Owners& owners = AllOwners();
  const std::lock_guard<std::mutex> lock(owners.mutex);
  for (auto entry = owners.entries.begin(); entry != owners.entries.end();) {
    if (entry->second.owner != this) {
      ++entry;
      continue;
    }
    if (IsOpen(entry->first, entry->second)) closing.emplace_back(entry->first);
    entry = owners.entries.erase(entry);
  }
}
