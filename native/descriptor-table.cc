// SPDX-License-Identifier: MIT
#include "descriptor-table.h"

#include <sys/stat.h>

#include <mutex>
#include <unordered_map>
#include <vector>

namespace {

/** Who owns a number, and the file that it named then. All eventfds have one inode: those are not told apart.
 */
struct Entry {
  const DescriptorTable* owner;
  dev_t device;
  ino_t inode;
};

struct Owners {
  std::mutex mutex;
  std::unordered_map<int, Entry> entries;
};

/** Never destroyed: workers may end later than the destructors of the process run. */
Owners& AllOwners() {
  static auto* const owners = new Owners();
  return *owners;
}

bool IsOpen(int fd, const Entry& entry) {
  struct stat status = {};
  return fstat(fd, &status) == 0 && status.st_dev == entry.device && status.st_ino == entry.inode;
}

}  // namespace

int DescriptorTable::Add(UniqueFd fd) {
  Adopt(fd.get());
  return fd.Release();
}

int DescriptorTable::Adopt(int fd) {
  struct stat status = {};
  if (fstat(fd, &status) == -1) return -errno;
  Owners& owners = AllOwners();
  const std::lock_guard<std::mutex> lock(owners.mutex);
  owners.entries[fd] = {this, status.st_dev, status.st_ino};
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
  std::vector<UniqueFd> closing;
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
