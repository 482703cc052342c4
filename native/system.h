// SPDX-License-Identifier: MIT
#ifndef VFIO_USER_SYSTEM_H_
#define VFIO_USER_SYSTEM_H_

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

/** Repeats a system call for as long as a signal interrupts it. */
template <typename Call>
auto Retry(Call call) {
  auto result = call();
  while (result == -1 && errno == EINTR) result = call();
  return result;
}

/** The value of a system call as JavaScript gets it: the result, or -errno. */
template <typename Result>
Result OrErrno(Result result) {
  return result == -1 ? -errno : result;
}

/** What a descriptor refers to. */
using FileStatus = struct statx;

/** fstat(2): 0, or -1 with errno set. By statx(2), which glibc 2.28 has; its fstat is of 2.33 (see glibc.cc).
 */
inline int StatusOf(int fd, FileStatus* status) {
  return statx(fd, "", AT_EMPTY_PATH, STATX_TYPE | STATX_INO | STATX_SIZE, status);
}

inline bool SameFile(const FileStatus& a, const FileStatus& b) {
  return a.stx_ino == b.stx_ino && a.stx_dev_major == b.stx_dev_major && a.stx_dev_minor == b.stx_dev_minor;
}

/** Owns a descriptor. */
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.Release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) {
      Reset();
      fd_ = other.Release();
    }
    return *this;
  }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  ~UniqueFd() { Reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int Release() { return std::exchange(fd_, -1); }
  void Reset() {
    // Never repeated after EINTR: Linux has released the number by then, and another thread may own it.
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }

 private:
  int fd_ = -1;
};

#endif  // VFIO_USER_SYSTEM_H_
