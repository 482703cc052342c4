// SPDX-License-Identifier: MIT
// bus-error-guard-race [ROUNDS]: threads whose mappings lose their files, while other ranges come and go in
// the same slots of the guard. Foreign memory lies between those ranges: a handler that joins the begin of
// one range to the end of another puts zeros over it. Exits with 0 when all faults were repaired and nothing
// else was touched.
//
// Built with -fsanitize=thread it also fails for a data race. Built with -DYIELD, other threads get their
// turn between any two loads of the guard: by chance that happens too rarely to be waited for.
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#ifdef YIELD
// What the guard includes comes before it is told another name for std::atomic.
#include <cerrno>
#include <csignal>
#include <mutex>

namespace std {
template <typename T>
class yielding_atomic : public atomic<T> {
 public:
  T load(memory_order order) const {
    const T value = atomic<T>::load(order);
    sched_yield();
    return value;
  }
};
}  // namespace std

#define atomic yielding_atomic
#include "bus-error-guard.cc"
#undef atomic
#else
#include "bus-error-guard.h"
#endif

namespace {

constexpr int kThreads = 3;
constexpr uint64_t kPattern = 0x5a5a'a5a5'1234'8765;
/** Pages of a thread's memory: a guarded range on each side, foreign memory, and the victim in the middle. */
enum Page { kLow, kForeignBelow, kVictim, kForeignAbove, kHigh, kPages };

std::atomic<bool> failed;

void Fail(const char* what) {
  if (!failed.exchange(true)) std::fprintf(stderr, "%s\n", what);
}

class Arena {
 public:
  explicit Arena(size_t page_size) : page_size_(page_size) {
    void* memory =
        mmap(nullptr, kPages * page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) std::abort();
    memory_ = static_cast<char*>(memory);
    file_ = memfd_create("victim", 0);
    event_ = eventfd(0, EFD_NONBLOCK);
    if (file_ == -1 || event_ == -1) std::abort();
    *Word(kForeignBelow) = kPattern;
    *Word(kForeignAbove) = kPattern;
  }

  ~Arena() {
    munmap(memory_, kPages * page_size_);
    close(file_);
    close(event_);
  }

  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  /** Loses the memory of a device, which comes back: what stands in for it reads as ones, and goes with
   * Restore. */
  void Suspend(int rounds) {
    const uint64_t ones = ~uint64_t{0};
    for (int round = 0; round < rounds && !failed.load(); round++) {
      if (ftruncate(file_, static_cast<off_t>(page_size_)) == -1) return Fail("ftruncate");
      if (pwrite(file_, &kPattern, sizeof(kPattern), 0) != sizeof(kPattern)) return Fail("pwrite");
      const int protection = round % 2 == 0 ? PROT_READ | PROT_WRITE : PROT_READ;
      if (mmap(At(kVictim), page_size_, protection, MAP_SHARED | MAP_FIXED, file_, 0) == MAP_FAILED)
        return Fail("mmap");
      const int slot =
          bus_error_guard::Add({At(kVictim), page_size_, page_size_, round % 2 == 0, file_, 0}, event_);
      if (*Word(kVictim) != kPattern) Fail("a device's memory is not its own");
      if (ftruncate(file_, 0) == -1) return Fail("ftruncate");
      if (*Word(kVictim) != ones) Fail("memory that is away does not read as ones");
      if (bus_error_guard::IsLost(slot)) Fail("a device's memory is lost for good");
      bus_error_guard::Restore();
      if (*Word(kVictim) != ones) Fail("memory that is still away does not read as ones after Restore");
      if (ftruncate(file_, static_cast<off_t>(page_size_)) == -1) return Fail("ftruncate");
      if (pwrite(file_, &kPattern, sizeof(kPattern), 0) != sizeof(kPattern)) return Fail("pwrite");
      bus_error_guard::Restore();
      if (*Word(kVictim) != kPattern) Fail("a device's memory has not come back");
      uint64_t count = 0;
      if (read(event_, &count, sizeof(count)) != sizeof(count)) Fail("the event was not signalled");
      bus_error_guard::Remove(slot);
    }
  }

  /** Lets two ranges come and go by turns. They take the slot that was freed last, which is that of the
   * other. */
  void Churn(const std::atomic<bool>& done) {
    while (!done.load()) {
      for (const Page page : {kLow, kHigh}) bus_error_guard::Remove(Guard(page, true));
    }
  }

  /** Loses the file of a mapping, again and again. */
  void Fault(int rounds) {
    for (int round = 0; round < rounds && !failed.load(); round++) {
      if (ftruncate(file_, static_cast<off_t>(page_size_)) == -1) return Fail("ftruncate");
      const bool writable = round % 2 == 0;
      const int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
      if (mmap(At(kVictim), page_size_, protection, MAP_SHARED | MAP_FIXED, file_, 0) == MAP_FAILED)
        return Fail("mmap");
      const int slot = Guard(kVictim, writable);
      if (slot < 0) return Fail("the guard took no range");
      if (bus_error_guard::IsLost(slot)) Fail("a new range is lost already");
      if (ftruncate(file_, 0) == -1) return Fail("ftruncate");
      if (*Word(kVictim) != 0) Fail("a page that was repaired is not zero");
      if (*Word(kForeignBelow) != kPattern || *Word(kForeignAbove) != kPattern)
        Fail("zeros were put over foreign memory");
      if (!bus_error_guard::IsLost(slot)) Fail("a range that was repaired is not lost");
      uint64_t count = 0;
      if (read(event_, &count, sizeof(count)) != sizeof(count) || count != 1)
        Fail("the event was not signalled");
      bus_error_guard::Remove(slot);
    }
    bus_error_guard::ForgetEvent(event_);
  }

 private:
  char* At(Page page) const { return memory_ + page * page_size_; }
  volatile uint64_t* Word(Page page) const { return reinterpret_cast<volatile uint64_t*>(At(page)); }
  int Guard(Page page, bool writable) const {
    return bus_error_guard::Add({At(page), page_size_, page_size_, writable}, event_);
  }

  size_t page_size_;
  char* memory_;
  int file_;
  int event_;
};

}  // namespace

int main(int count, char** arguments) {
  const int rounds = count > 1 ? std::atoi(arguments[1]) : 20000;
  const auto page_size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  std::atomic<bool> done{false};
  std::vector<std::thread> faulting;
  std::vector<std::thread> churning;
  std::vector<Arena*> arenas;
  for (int index = 0; index < kThreads; index++) arenas.push_back(new Arena(page_size));
  for (Arena* arena : arenas) {
    faulting.emplace_back([=] {
      arena->Suspend(rounds);
      arena->Fault(rounds);
    });
    churning.emplace_back([=, &done] { arena->Churn(done); });
  }
  for (auto& thread : faulting) thread.join();
  done.store(true);
  for (auto& thread : churning) thread.join();
  for (const Arena* arena : arenas) delete arena;
  if (bus_error_guard::Count() != 0) Fail("ranges are guarded that nobody has any more");
  if (!failed.load()) std::printf("%d faults repaired\n", kThreads * rounds);
  return failed.load() ? 1 : 0;
}
