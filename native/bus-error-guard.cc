// SPDX-License-Identifier: MIT
#include "bus-error-guard.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <mutex>

namespace bus_error_guard {
namespace {

/**
 * A range, and what became of it. The signal handler reads it while other threads may be writing it, so all
 * of it is atomic, and a sequence number tells whether what was read belongs together (a seqlock). There are
 * no fences, which ThreadSanitizer does not know: each field is released by its store and acquired by its
 * load, so that who sees a field of a later writing sees that writing's sequence number too.
 */
struct Slot {
  /** Odd while the slot is being written. */
  std::atomic<uintptr_t> sequence;
  /** 0 while the slot is free. */
  std::atomic<uintptr_t> begin;
  std::atomic<uintptr_t> end;
  std::atomic<uintptr_t> page_size;
  std::atomic<bool> writable;
  /** Descriptor plus one; 0 for none. */
  std::atomic<int> event;
  std::atomic<bool> is_device;
  /** Set by the handler; of a device cleared by Restore. */
  std::atomic<bool> lost;
  /** Where a device's memory is mapped from. Guarded by the mutex. */
  int device;
  off_t offset;
  /** Next in the list of free slots, plus one; 0 ends it. Guarded by the mutex. */
  int next_free;
};

/** What a slot says at one moment. */
struct Content {
  uintptr_t begin;
  uintptr_t end;
  uintptr_t page_size;
  bool writable;
  bool is_device;
  int event;
};

// Only then may a signal handler use them.
static_assert(std::atomic<uintptr_t>::is_always_lock_free);
static_assert(std::atomic<int>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);

/** Above vm.max_map_count of a stock kernel (65530): the system runs out of mappings first. */
constexpr int kSlots = 65536;

// Process-wide, as the signal handler is. All zero and without destructors, so that it is valid from start to
// end.
Slot slots[kSlots];
std::atomic<int> used_slots;
std::atomic<int> guarded;
int first_free;
std::mutex mutex;
bool installed;
struct sigaction previous_action;
/** Null until `previous_action` is whole. */
std::atomic<const struct sigaction*> previous;

/** Writes a slot. The caller holds the mutex. */
void Write(Slot& slot, const Content& content) {
  const uintptr_t sequence = slot.sequence.load(std::memory_order_relaxed);
  slot.sequence.store(sequence + 1, std::memory_order_relaxed);
  slot.begin.store(content.begin, std::memory_order_release);
  slot.end.store(content.end, std::memory_order_release);
  slot.page_size.store(content.page_size, std::memory_order_release);
  slot.writable.store(content.writable, std::memory_order_release);
  slot.is_device.store(content.is_device, std::memory_order_release);
  slot.event.store(content.event, std::memory_order_release);
  slot.sequence.store(sequence + 2, std::memory_order_release);
}

/** Reads a slot. False when it was being written meanwhile: then what was read may not belong together. */
bool Read(const Slot& slot, Content& content) {
  const uintptr_t sequence = slot.sequence.load(std::memory_order_acquire);
  content.begin = slot.begin.load(std::memory_order_acquire);
  content.end = slot.end.load(std::memory_order_acquire);
  content.page_size = slot.page_size.load(std::memory_order_acquire);
  content.writable = slot.writable.load(std::memory_order_acquire);
  content.is_device = slot.is_device.load(std::memory_order_acquire);
  content.event = slot.event.load(std::memory_order_acquire);
  return sequence % 2 == 0 && slot.sequence.load(std::memory_order_relaxed) == sequence;
}

/**
 * Puts other pages into the place of those that are lost, from `start` on. One page of ones for a device, so
 * that no more is replaced than was asked for. Zero pages up to the end for a file: it has lost all of that,
 * and a hostile peer could otherwise make us split the mapping until the kernel allows no more.
 */
bool Replace(uintptr_t start, const Content& content) {
  constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
  // The address is one that mmap returned, kept as a number for the arithmetic.
  auto* const place = reinterpret_cast<void*>(start);
  const int protection = content.writable ? PROT_READ | PROT_WRITE : PROT_READ;
  if (!content.is_device) return mmap(place, content.end - start, protection, kFlags, -1, 0) != MAP_FAILED;
  if (mmap(place, content.page_size, PROT_READ | PROT_WRITE, kFlags, -1, 0) == MAP_FAILED) return false;
  memset(place, 0xff, content.page_size);
  return content.writable || mprotect(place, content.page_size, protection) == 0;
}

/** Replaces what was lost at an address. False when the address is not ours. */
bool Repair(uintptr_t address) {
  const int used = used_slots.load(std::memory_order_acquire);
  for (int index = 0; index < used; index++) {
    Slot& slot = slots[index];
    Content content = {};
    // A slot that changes now is not that of the fault: nobody adds or removes a range that is being
    // accessed. So there is nothing to wait for, and a handler that interrupts a writer cannot hang.
    if (!Read(slot, content) || content.begin == 0 || address < content.begin || address >= content.end)
      continue;
    if (!Replace(address - (address - content.begin) % content.page_size, content)) return false;
    slot.lost.store(true, std::memory_order_release);
    const int event = content.event - 1;
    const uint64_t one = 1;
    // A full counter means that the event is pending already.
    if (event >= 0 && write(event, &one, sizeof(one)) == -1) return true;
    return true;
  }
  return false;
}

/** Does what would have happened without us. */
void CallPrevious(int signal_number, siginfo_t* info, void* context) {
  const struct sigaction& action = *previous.load(std::memory_order_acquire);
  if ((action.sa_flags & SA_SIGINFO) != 0) {
    action.sa_sigaction(signal_number, info, context);
    return;
  }
  const bool fault = info->si_code > 0;
  if (action.sa_handler == SIG_IGN && !fault) return;
  if (action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN) {
    action.sa_handler(signal_number);
    return;
  }
  // A faulting instruction runs again after we return, and now kills the process as it should. A signal that
  // someone sent has to be sent again; it is blocked until we return.
  signal(signal_number, SIG_DFL);
  if (!fault) raise(signal_number);
}

void OnBusError(int signal_number, siginfo_t* info, void* context) {
  const int saved_errno = errno;
  const bool repaired = info->si_code == BUS_ADRERR && Repair(reinterpret_cast<uintptr_t>(info->si_addr));
  if (!repaired) CallPrevious(signal_number, info, context);
  errno = saved_errno;
}

/** Installs the handler once, at the first guarded mapping. 0 or -errno. */
int Install() {
  if (installed) return 0;
  struct sigaction action = {};
  action.sa_sigaction = OnBusError;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  // `previous` must be there before the handler can run.
  if (sigaction(SIGBUS, nullptr, &previous_action) == -1) return -errno;
  previous.store(&previous_action, std::memory_order_release);
  if (sigaction(SIGBUS, &action, nullptr) == -1) return -errno;
  installed = true;
  return 0;
}

}  // namespace

int Add(const Range& range, int event) {
  const std::lock_guard<std::mutex> lock(mutex);
  const int installation = Install();
  if (installation < 0) return installation;
  int index = first_free - 1;
  if (index >= 0) {
    first_free = slots[index].next_free;
  } else {
    index = used_slots.load(std::memory_order_relaxed);
    if (index == kSlots) return -ENOMEM;
    used_slots.store(index + 1, std::memory_order_release);
  }
  Slot& slot = slots[index];
  const auto begin = reinterpret_cast<uintptr_t>(range.address);
  slot.lost.store(false, std::memory_order_relaxed);
  slot.device = range.device;
  slot.offset = range.offset;
  Write(slot, {begin, begin + range.length, range.page_size, range.writable, range.device >= 0, event + 1});
  guarded.fetch_add(1, std::memory_order_relaxed);
  return index;
}

void Remove(int slot) {
  const std::lock_guard<std::mutex> lock(mutex);
  Write(slots[slot], {});
  slots[slot].next_free = first_free;
  first_free = slot + 1;
  guarded.fetch_sub(1, std::memory_order_relaxed);
}

int Restore() {
  const std::lock_guard<std::mutex> lock(mutex);
  const int used = used_slots.load(std::memory_order_relaxed);
  int restored = 0;
  for (int index = 0; index < used; index++) {
    Slot& slot = slots[index];
    const uintptr_t begin = slot.begin.load(std::memory_order_relaxed);
    if (begin == 0 || !slot.is_device.load(std::memory_order_relaxed)) continue;
    // Cleared first: a page that is replaced from now on is mapped again too, or marks the slot anew.
    if (!slot.lost.exchange(false, std::memory_order_acq_rel)) continue;
    const size_t length = slot.end.load(std::memory_order_relaxed) - begin;
    const int protection = slot.writable.load(std::memory_order_relaxed) ? PROT_READ | PROT_WRITE : PROT_READ;
    // What a device that is gone for good refuses stays replaced.
    if (mmap(reinterpret_cast<void*>(begin), length, protection, MAP_SHARED | MAP_FIXED, slot.device,
             slot.offset) != MAP_FAILED)
      restored++;
  }
  return restored;
}

int Count() { return guarded.load(std::memory_order_relaxed); }

bool IsLost(int slot) {
  return slots[slot].lost.load(std::memory_order_acquire) &&
         !slots[slot].is_device.load(std::memory_order_acquire);
}

void ForgetEvent(int event) {
  const std::lock_guard<std::mutex> lock(mutex);
  const int used = used_slots.load(std::memory_order_relaxed);
  for (int index = 0; index < used; index++) {
    if (slots[index].event.load(std::memory_order_relaxed) == event + 1) {
      slots[index].event.store(0, std::memory_order_release);
    }
  }
}

}  // namespace bus_error_guard
