// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cerrno>
#include <memory>
#include <vector>

#include "../addon.h"
#include "../arguments.h"
#include "../bound-function.h"
#include "../clock.h"

namespace {

// NVMe base 2.0, 3.3.3: sizes of the entries, and the words of them that are used here.
constexpr size_t kSubmissionWords = 16;
constexpr size_t kDataPointerWord = 6;
constexpr size_t kDataPointerWords = 4;
constexpr size_t kCompletionWords = 4;
constexpr size_t kStatusWord = 3;
constexpr uint32_t kPhaseShift = 16;
constexpr uint32_t kStatusShift = 17;
constexpr uint32_t kCidMask = 0xffff;
constexpr int64_t kMaxEntries = 1 << 16;
constexpr int64_t kMaxSets = 256;

/** Polls of an empty queue between two reads of the clock. */
constexpr uint32_t kPollsPerClock = 64;
/**
 * From this depth on, the loop waits between two polls, as many milliseconds as kWaitPerCommand says for each
 * command in flight. See Run().
 */
constexpr size_t kWaitDepth = 8;
constexpr double kWaitPerCommand = 4e-6;

double Milliseconds() { return static_cast<double>(Nanoseconds()) / 1e6; }

/** What JavaScript writes before a run. It is the beginning of the memory that both sides share. */
struct Control {
  uint32_t tail;
  uint32_t head;
  uint32_t phase;
  uint32_t ready;
  /** Microseconds without a completion after which the run ends. */
  uint32_t patience;
  uint32_t reserved[3];
};

/** The loop of a queue pair that is kept full. lib/nvme/host/queue-loop.ts says what it does. */
class QueueLoop {
 public:
  struct Place {
    std::shared_ptr<Mapping> memory;
    size_t submission_offset;
    size_t completion_offset;
    size_t entries;
    std::shared_ptr<Mapping> doorbells;
    size_t tail_index;
    size_t head_index;
    size_t depth;
    /** Data pointers of each command id, of which an entry takes one. */
    size_t sets;
    size_t room;
    /** The moment by CLOCK_MONOTONIC from which times are counted, in milliseconds. */
    double origin;
  };

  /** Whether everything that the loop reaches lies within the mappings. */
  static bool Fits(const Place& place) {
    const size_t memory = place.memory->length();
    const size_t submission = place.entries * kSubmissionWords * sizeof(uint32_t);
    const size_t completion = place.entries * kCompletionWords * sizeof(uint32_t);
    const size_t words = place.doorbells->length() / sizeof(uint32_t);
    const bool aligned = (place.submission_offset | place.completion_offset) % sizeof(uint32_t) == 0;
    return aligned && submission <= memory && place.submission_offset <= memory - submission &&
           completion <= memory && place.completion_offset <= memory - completion &&
           place.tail_index < words && place.head_index < words;
  }

  explicit QueueLoop(Place place)
      : place_(std::move(place)),
        wait_(place_.depth < kWaitDepth ? 0 : static_cast<double>(place_.depth) * kWaitPerCommand),
        shared_((sizeof(Control) + place_.room * (sizeof(double) + sizeof(uint32_t)) +
                 (place_.entries + place_.sets * place_.depth * kDataPointerWords) * sizeof(uint32_t) +
                 sizeof(double) - 1) /
                sizeof(double)),
        control_(reinterpret_cast<Control*>(shared_.data())),
        times_(reinterpret_cast<double*>(control_ + 1)),
        cids_(reinterpret_cast<uint32_t*>(times_ + place_.room)),
        sets_(cids_ + place_.room),
        pointers_(sets_ + place_.entries),
        last_set_(static_cast<uint32_t>((place_.sets - 1) * place_.depth * kDataPointerWords)) {}

  /**
   * The control, a time and a command id for each completion, for each entry the word at which its set of
   * data pointers begins, and the sets, each by command id.
   */
  void* memory() { return shared_.data(); }
  size_t memory_size() const { return shared_.size() * sizeof(double); }

  /** The number of completions taken; 0 when a mapping was closed, or the control is out of range. */
  int32_t Run() {
    auto* const memory = static_cast<char*>(place_.memory->address());
    doorbells_ = static_cast<uint32_t*>(place_.doorbells->address());
    tail_ = control_->tail;
    head_ = control_->head;
    phase_ = control_->phase;
    if (memory == nullptr || doorbells_ == nullptr || tail_ >= place_.entries || head_ >= place_.entries)
      return 0;
    submissions_ = reinterpret_cast<uint32_t*>(memory + place_.submission_offset);
    completions_ = reinterpret_cast<uint32_t*>(memory + place_.completion_offset);
    const auto ready = static_cast<uint32_t>(std::min<size_t>(control_->ready, place_.room));
    const double patience = control_->patience / 1e3;
    double now = Milliseconds();
    double last = now;
    uint32_t count = 0;
    for (uint32_t polls = 1; count < ready; polls++) {
      const uint32_t first = count;
      while (count < ready && Take(count)) count++;
      if (count > first) {
        Ring();
        last = now = Milliseconds();
        for (uint32_t index = first; index < count; index++) times_[index] = now - place_.origin;
      } else {
        if (wait_ == 0 && polls % kPollsPerClock == 0) now = Milliseconds();
        if (now - last >= patience) break;
      }
      // With many commands in flight, polling too early slows the controller down: its core has to fetch the
      // cache line of the next completion back, which four completions share, and it finds the doorbell
      // changed for every single command. The wait reads the clock because that causes no memory traffic.
      // Pause instructions cause none either, but a hypervisor may take the processor away from a program
      // that executes many of them (pause-loop exiting).
      for (const double next = now + wait_; now < next;) now = Milliseconds();
    }
    return static_cast<int32_t>(count);
  }

 private:
  /** Takes a completion if a good one has arrived: the next entry gets its command id and data pointer. */
  bool Take(uint32_t index) {
    const uint32_t word =
        __atomic_load_n(&completions_[head_ * kCompletionWords + kStatusWord], __ATOMIC_ACQUIRE);
    const uint32_t cid = word & kCidMask;
    const bool good = word >> kStatusShift == 0 && cid < place_.depth;
    if (((word >> kPhaseShift) & 1) != phase_ || !good) return false;
    if (++head_ == place_.entries) {
      head_ = 0;
      phase_ ^= 1;
    }
    uint32_t* const entry = submissions_ + tail_ * kSubmissionWords;
    const uint32_t* const pointer = pointers_ + std::min(sets_[tail_], last_set_) + cid * kDataPointerWords;
    entry[0] = cid << 16 | (entry[0] & 0xffff);
    for (size_t word_index = 0; word_index < kDataPointerWords; word_index++)
      entry[kDataPointerWord + word_index] = pointer[word_index];
    if (++tail_ == place_.entries) tail_ = 0;
    cids_[index] = cid;
    return true;
  }

  /** The head goes first: both leave in one cache line, which the controller polls for the tail. */
  void Ring() const {
    __atomic_store_n(&doorbells_[place_.head_index], head_, __ATOMIC_RELAXED);
    __atomic_store_n(&doorbells_[place_.tail_index], tail_, __ATOMIC_RELEASE);
  }

  const Place place_;
  /** Milliseconds between two polls. */
  const double wait_;
  std::vector<double> shared_;
  Control* const control_;
  double* const times_;
  uint32_t* const cids_;
  uint32_t* const sets_;
  uint32_t* const pointers_;
  const uint32_t last_set_;

  // The state of a run.
  uint32_t* submissions_ = nullptr;
  uint32_t* completions_ = nullptr;
  uint32_t* doorbells_ = nullptr;
  uint32_t tail_ = 0;
  uint32_t head_ = 0;
  uint32_t phase_ = 0;
};

/** The live mapping behind an ArrayBuffer, or null. */
std::shared_ptr<Mapping> FindMapping(Napi::Env env, Napi::ArrayBuffer buffer) {
  for (const auto& [slot, reference] : env.GetInstanceData<AddonData>()->mappings) {
    const auto mapping = reference.lock();
    if (mapping != nullptr && mapping->address() != nullptr && mapping->address() == buffer.Data())
      return mapping;
  }
  return nullptr;
}

/**
 * queueLoop(memory, submissionOffset, completionOffset, entries, doorbells, tailIndex, headIndex, depth,
 * sets, room, origin): [run, shared]; or -EINVAL when it does not fit the mappings; or 0 when this runtime
 * does not allow an ArrayBuffer over memory of ours.
 */
Napi::Value CreateQueueLoop(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Arguments arguments(info);
  const Napi::ArrayBuffer memory = arguments.ArrayBuffer(0);
  QueueLoop::Place place = {};
  place.submission_offset = arguments.Size(1);
  place.completion_offset = arguments.Size(2);
  place.entries = static_cast<size_t>(arguments.Integer(3, 2, kMaxEntries));
  const Napi::ArrayBuffer doorbells = arguments.ArrayBuffer(4);
  place.tail_index = arguments.Size(5);
  place.head_index = arguments.Size(6);
  place.depth = static_cast<size_t>(arguments.Integer(7, 1, kMaxEntries));
  place.sets = static_cast<size_t>(arguments.Integer(8, 1, kMaxSets));
  place.room = static_cast<size_t>(arguments.Integer(9, 1, kMaxEntries));
  place.origin = arguments.Double(10);
  if (!arguments.ok()) return env.Undefined();
  place.memory = FindMapping(env, memory);
  place.doorbells = FindMapping(env, doorbells);
  if (place.memory == nullptr || place.doorbells == nullptr || !QueueLoop::Fits(place))
    return Napi::Number::New(env, -EINVAL);

  return BindToMemory(env, std::make_shared<QueueLoop>(std::move(place)));
}

}  // namespace

void InitNvme(Napi::Env env, Napi::Object exports) {
  const Napi::Object nvme = Napi::Object::New(env);
  Export<CreateQueueLoop>(env, nvme, "queueLoop");
  exports.Set("nvme", nvme);
}
