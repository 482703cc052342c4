// SPDX-License-Identifier: MIT
#include "memory.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/vfs.h>

#include <algorithm>
#include <cstring>

#include "addon.h"
#include "arguments.h"

namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
constexpr size_t kHugePage2M = size_t{1} << 21;
constexpr size_t kHugePage1G = size_t{1} << 30;

size_t RoundUp(size_t value, size_t multiple) { return (value + multiple - 1) / multiple * multiple; }

/** Size of the pages that a mapping of `fd` gets; 0 with errno set when `fd` is not open. */
size_t PageSizeOf(int fd) {
  struct statfs status = {};
  if (Retry([&] { return fstatfs(fd, &status); }) == -1) return 0;
  if (static_cast<unsigned long>(status.f_type) == HUGETLBFS_MAGIC)
    return static_cast<size_t>(status.f_bsize);
  return static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

constexpr int kPrivate = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

/** Address space at a multiple of `alignment`: reserves more, then gives back what is too much. */
void* Reserve(size_t length, size_t alignment, int protection) {
  void* reserved = mmap(nullptr, length + alignment, protection, kPrivate, -1, 0);
  if (reserved == MAP_FAILED) return MAP_FAILED;
  auto* const start = static_cast<char*>(reserved);
  const size_t excess = reinterpret_cast<uintptr_t>(start) % alignment;
  char* const aligned = start + (excess == 0 ? 0 : alignment - excess);
  if (aligned != start) munmap(start, static_cast<size_t>(aligned - start));
  munmap(aligned + length, static_cast<size_t>(start + alignment - aligned));
  return aligned;
}

/** mmap(2) of a file at an address that is a multiple of the alignment that is asked for. */
void* MapAligned(const Mapping::Request& request, size_t length, int protection) {
  void* reserved = Reserve(length, request.alignment, PROT_NONE);
  if (reserved == MAP_FAILED) return MAP_FAILED;
  void* mapped = mmap(reserved, length, protection, MAP_SHARED | MAP_FIXED, request.fd, request.offset);
  if (mapped == MAP_FAILED) {
    const int error = errno;
    munmap(reserved, length);
    errno = error;
  }
  return mapped;
}

}  // namespace

int Mapping::Open(const Request& request) {
  const size_t page_size = PageSizeOf(request.fd);
  if (page_size == 0) return -errno;
  const auto offset = static_cast<size_t>(request.offset);
  if (request.length == 0 || offset % page_size != 0 || request.alignment % page_size != 0) return -EINVAL;
  FileStatus file;
  if (StatusOf(request.fd, &file) == -1) return -errno;
  // The last page may exceed the file; pages beyond it raise SIGBUS. Devices have no size to check.
  const bool exceeds = offset + request.length > RoundUp(static_cast<size_t>(file.stx_size), page_size);
  if (S_ISREG(file.stx_mode) && exceeds) return -ENXIO;

  const size_t length = RoundUp(request.length, page_size);
  const int protection = request.writable ? PROT_READ | PROT_WRITE : PROT_READ;
  void* mapped = request.alignment > page_size
                     ? MapAligned(request, length, protection)
                     : mmap(nullptr, length, protection, MAP_SHARED, request.fd, request.offset);
  if (mapped == MAP_FAILED) return -errno;
  // What a regular file has lost is lost for good; the memory of a device comes back.
  UniqueFd device(S_ISREG(file.stx_mode) ? -1 : fcntl(request.fd, F_DUPFD_CLOEXEC, 0));
  if (!S_ISREG(file.stx_mode) && !device.valid()) {
    const int error = -errno;
    munmap(mapped, length);
    return error;
  }
  device_ = std::move(device);
  return Own({mapped, length, page_size, request.writable, device_.get(), request.offset},
             request.lost_event);
}

int Mapping::Allocate(size_t length, size_t huge, int lost_event) {
  const auto page_size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t whole = RoundUp(length, page_size);
  void* memory = Reserve(whole, kHugePage2M, PROT_READ | PROT_WRITE);
  if (memory == MAP_FAILED) return -errno;
  // Where there are none, ordinary pages do. The rest has these also where the system takes huge ones
  // unasked.
  auto* const start = static_cast<char*>(memory);
  if (huge > 0) madvise(start, huge, MADV_HUGEPAGE);
  if (huge < whole) madvise(start + huge, whole - huge, MADV_NOHUGEPAGE);
  return Own({memory, whole, page_size, true}, lost_event);
}

int Mapping::Own(const bus_error_guard::Range& range, int lost_event) {
  const int slot = bus_error_guard::Add(range, lost_event);
  if (slot < 0) {
    munmap(range.address, range.length);
    device_.Reset();
    return slot;
  }
  address_ = range.address;
  length_ = range.length;
  slot_ = slot;
  return 0;
}

void Mapping::Close() {
  if (address_ == nullptr) return;
  bus_error_guard::Remove(slot_);
  munmap(address_, length_);
  address_ = nullptr;
  device_.Reset();
}

namespace {

/**
 * createMemory(name, size, hugePageSize, seal): a memfd, closed on exec, or -errno. A sealed one keeps its
 * size, and takes no further seals.
 */
Napi::Value CreateMemory(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const std::string name = arguments.String(0);
  const size_t size = arguments.Size(1);
  const size_t huge_page_size = arguments.Size(2);
  const bool seal = arguments.Boolean(3);
  if (!arguments.ok()) return info.Env().Undefined();
  unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  if (huge_page_size == kHugePage2M) flags |= MFD_HUGETLB | MFD_HUGE_2MB;
  if (huge_page_size == kHugePage1G) flags |= MFD_HUGETLB | MFD_HUGE_1GB;
  UniqueFd fd(memfd_create(name.c_str(), flags));
  const bool made = fd.valid() && Retry([&] { return ftruncate(fd.get(), static_cast<off_t>(size)); }) == 0 &&
                    (!seal || fcntl(fd.get(), F_ADD_SEALS, kSeals) == 0);
  return OwnedOrErrno(info.Env(), made ? fd.Release() : -1);
}

/** lostEvent(): the eventfd that tells of truncated files, owned by the environment, or -errno. */
int LostEvent(AddonData* data) {
  if (!data->lost_event.valid()) data->lost_event = UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  return data->lost_event.valid() ? data->lost_event.get() : -errno;
}

Napi::Value LostEventFd(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), LostEvent(info.Env().GetInstanceData<AddonData>()));
}

/** Longest ArrayBuffer. A longer one must not be asked for: before Node.js 22, V8 refuses it too late. */
size_t MaximumLength(napi_env env) {
  const napi_node_version* version = nullptr;
  const bool old = napi_get_node_version(env, &version) != napi_ok || version->major < 22;
  return old ? size_t{1} << 32 : (size_t{1} << 53) - 1;
}

/** An ArrayBuffer over a mapping, as map() returns it. */
Napi::Value BufferOver(Napi::Env env, const std::shared_ptr<Mapping>& mapping, size_t length,
                       const View<int32_t>& slot) {
  // The finalizer, which may run long after unmap(), owns the mapping; it needs nothing of the environment.
  auto* owner = new std::shared_ptr<Mapping>(mapping);
  const auto finalize = [](napi_env, void*, void* hint) {
    delete static_cast<std::shared_ptr<Mapping>*>(hint);
  };
  napi_value buffer = nullptr;
  const napi_status status =
      napi_create_external_arraybuffer(env, mapping->address(), length, finalize, owner, &buffer);
  if (status != napi_ok) {
    // Some failures run the finalizer and some do not: unmap now, and let `owner` be lost rather than freed
    // twice.
    mapping->Close();
    constexpr int kNoExternalBuffersAllowed = 22;
    return Napi::Number::New(env, static_cast<int>(status) == kNoExternalBuffersAllowed ? 0 : -ENOMEM);
  }
  slot.data[0] = mapping->slot();
  env.GetInstanceData<AddonData>()->mappings[mapping->slot()] = mapping;
  return Napi::Value(env, buffer);
}

/**
 * map(fd, offset, length, writable, alignment, slot): an ArrayBuffer over the file, its slot in slot[0]; or
 * -errno; or 0 when this runtime does not allow an ArrayBuffer over memory of ours.
 */
Napi::Value Map(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Arguments arguments(info);
  const int fd = arguments.Descriptor(0);
  const size_t offset = arguments.Size(1);
  const size_t length = arguments.Size(2);
  const bool writable = arguments.Boolean(3);
  const auto alignment = static_cast<size_t>(arguments.Integer(4, 0, kHugePage1G));
  const View<int32_t> slot = arguments.Integers(5, 1);
  if (!arguments.ok()) return env.Undefined();
  if (length > MaximumLength(env)) return Napi::Number::New(env, -EFBIG);

  const int event = LostEvent(env.GetInstanceData<AddonData>());
  if (event < 0) return Napi::Number::New(env, event);
  const auto mapping = std::make_shared<Mapping>();
  const int error = mapping->Open({fd, static_cast<off_t>(offset), length, writable, alignment, event});
  if (error < 0) return Napi::Number::New(env, error);

  return BufferOver(env, mapping, length, slot);
}

/**
 * allocate(length, huge, slot): an ArrayBuffer over zeroed memory, of which the first `huge` bytes shall be
 * huge pages; otherwise as map().
 */
Napi::Value Allocate(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Arguments arguments(info);
  const size_t length = arguments.Size(0);
  const size_t huge = arguments.Size(1);
  const View<int32_t> slot = arguments.Integers(2, 1);
  if (!arguments.ok()) return env.Undefined();
  if (length == 0 || length > MaximumLength(env) || huge > length) return Napi::Number::New(env, -EINVAL);
  const int event = LostEvent(env.GetInstanceData<AddonData>());
  if (event < 0) return Napi::Number::New(env, event);
  const auto mapping = std::make_shared<Mapping>();
  const int error = mapping->Allocate(length, huge, event);
  if (error < 0) return Napi::Number::New(env, error);
  return BufferOver(env, mapping, length, slot);
}

/**
 * discard(buffer, slot, offset, length): makes bytes of allocated memory zero, and gives whole pages back to
 * the system. 0 or -errno.
 */
Napi::Value Discard(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Arguments arguments(info);
  const Napi::ArrayBuffer buffer = arguments.ArrayBuffer(0);
  const int slot = arguments.Natural(1);
  const size_t offset = arguments.Size(2);
  const size_t length = arguments.Size(3);
  if (!arguments.ok()) return env.Undefined();
  const std::shared_ptr<Mapping> mapping = LiveMapping(env, buffer, slot);
  if (mapping == nullptr || offset > mapping->length() || length > mapping->length() - offset)
    return Napi::Number::New(env, -EINVAL);
  auto* const memory = static_cast<char*>(mapping->address());
  const auto page_size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t end = offset + length;
  const size_t first = std::min(RoundUp(offset, page_size), end);
  const size_t last = std::max(first, end / page_size * page_size);
  memset(memory + offset, 0, first - offset);
  memset(memory + last, 0, end - last);
  // The system does not take back pages that are locked (mlockall(2)).
  if (first < last && madvise(memory + first, last - first, MADV_DONTNEED) == -1)
    memset(memory + first, 0, last - first);
  return Napi::Number::New(env, 0);
}

/** unmap(buffer, slot): detaches the buffer, then unmaps. 0, or -EINVAL when they do not belong together. */
Napi::Value Unmap(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Arguments arguments(info);
  Napi::ArrayBuffer buffer = arguments.ArrayBuffer(0);
  const int slot = arguments.Natural(1);
  if (!arguments.ok()) return env.Undefined();
  const std::shared_ptr<Mapping> mapping = LiveMapping(env, buffer, slot);
  // Detached first: from then on JavaScript cannot reach the memory, whatever views it holds.
  if (mapping == nullptr || napi_detach_arraybuffer(env, buffer) != napi_ok)
    return Napi::Number::New(env, -EINVAL);
  env.GetInstanceData<AddonData>()->mappings.erase(slot);
  mapping->Close();
  return Napi::Number::New(env, 0);
}

/** mappingCount(): live mappings of the process, those of all environments. */
Napi::Value MappingCount(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), bus_error_guard::Count());
}

/** restoreDevices(): maps the memory of devices again where its pages were replaced. Number of mappings. */
Napi::Value RestoreDevices(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), bus_error_guard::Restore());
}

/** isLost(slot): whether the file was truncated under the mapping; false for an unknown slot. */
Napi::Value IsLost(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int slot = arguments.Natural(0);
  if (!arguments.ok()) return info.Env().Undefined();
  const auto& mappings = info.Env().GetInstanceData<AddonData>()->mappings;
  const auto found = mappings.find(slot);
  const bool live = found != mappings.end() && !found->second.expired();
  return Napi::Boolean::New(info.Env(), live && bus_error_guard::IsLost(slot));
}

}  // namespace

std::shared_ptr<Mapping> LiveMapping(Napi::Env env, const Napi::ArrayBuffer& buffer, int slot) {
  const auto& mappings = env.GetInstanceData<AddonData>()->mappings;
  const auto found = mappings.find(slot);
  if (found == mappings.end()) return nullptr;
  std::shared_ptr<Mapping> mapping = found->second.lock();
  const bool matches = mapping != nullptr && mapping->address() != nullptr &&
                       mapping->address() == const_cast<Napi::ArrayBuffer&>(buffer).Data();
  return matches ? mapping : nullptr;
}

void InitMemory(Napi::Env env, Napi::Object exports) {
  Export<CreateMemory>(env, exports, "createMemory");
  Export<LostEventFd>(env, exports, "lostEvent");
  Export<Map>(env, exports, "map");
  Export<Allocate>(env, exports, "allocate");
  Export<Discard>(env, exports, "discard");
  Export<Unmap>(env, exports, "unmap");
  Export<MappingCount>(env, exports, "mappingCount");
  Export<RestoreDevices>(env, exports, "restoreDevices");
  Export<IsLost>(env, exports, "isLost");
}
