// SPDX-License-Identifier: MIT
#ifndef VFIO_USER_ARGUMENTS_H_
#define VFIO_USER_ARGUMENTS_H_

#include <napi.h>

#include <cstddef>
#include <cstdint>
#include <string>

/** The elements of a typed array. `data` may be null when `length` is 0. */
template <typename Element>
struct View {
  Element* data = nullptr;
  size_t length = 0;
};

/**
 * Reads and checks the arguments of a call. The first argument that does not fit throws a JavaScript
 * exception; the function must then return without using any of the values: test `ok()` after reading them
 * all.
 */
class Arguments {
 public:
  explicit Arguments(const Napi::CallbackInfo& info) : info_(info) {}

  bool ok() const { return ok_; }
  /** An integer within [minimum, maximum]; both bounds must be exact as double. */
  int64_t Integer(size_t index, int64_t minimum, int64_t maximum);
  /** The number of a file descriptor, open or not. */
  int Descriptor(size_t index);
  /** An `int` that is not negative. */
  int Natural(size_t index);
  /** A byte count or offset, up to 2^53 - 1. */
  size_t Size(size_t index);
  double Double(size_t index);
  /** An address of 64 bits, as a bigint. */
  uint64_t Address(size_t index);
  bool Boolean(size_t index);
  std::string String(size_t index);
  Napi::Function Function(size_t index);
  Napi::ArrayBuffer ArrayBuffer(size_t index);
  View<uint8_t> Bytes(size_t index);
  /** An Int32Array of at least `minimum` elements. */
  View<int32_t> Integers(size_t index, size_t minimum);
  bool IsNull(size_t index) const { return info_[index].IsNull(); }
  /** The part [offset, offset + length) of bytes, which must lie within them. */
  View<uint8_t> Part(View<uint8_t> bytes, size_t offset, size_t length);

 private:
  void Fail(const std::string& message);
  void FailType(size_t index, const char* expected);

  const Napi::CallbackInfo& info_;
  bool ok_ = true;
};

#endif  // VFIO_USER_ARGUMENTS_H_
