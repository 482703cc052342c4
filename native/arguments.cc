// SPDX-License-Identifier: MIT
#include "arguments.h"

#include <climits>
#include <cmath>

namespace {

constexpr int64_t kMaxSafeInteger = (int64_t{1} << 53) - 1;

}  // namespace

void Arguments::Fail(const std::string& message) {
  if (ok_) Napi::TypeError::New(info_.Env(), message).ThrowAsJavaScriptException();
  ok_ = false;
}

void Arguments::FailType(size_t index, const char* expected) {
  Fail("Argument " + std::to_string(index) + " of the vfio-user addon must be " + expected);
}

int64_t Arguments::Integer(size_t index, int64_t minimum, int64_t maximum) {
  double value = 0;
  const napi_status status = napi_get_value_double(info_.Env(), info_[index], &value);
  // NaN fails the comparison as well.
  const bool fits = status == napi_ok && value >= static_cast<double>(minimum) &&
                    value <= static_cast<double>(maximum) && std::trunc(value) == value;
  if (fits) return static_cast<int64_t>(value);
  FailType(index, "an integer within its range");
  return minimum;
}

int Arguments::Descriptor(size_t index) { return Natural(index); }

int Arguments::Natural(size_t index) { return static_cast<int>(Integer(index, 0, INT_MAX)); }

size_t Arguments::Size(size_t index) { return static_cast<size_t>(Integer(index, 0, kMaxSafeInteger)); }

uint64_t Arguments::Address(size_t index) {
  uint64_t value = 0;
  bool lossless = false;
  const napi_status status = napi_get_value_bigint_uint64(info_.Env(), info_[index], &value, &lossless);
  if (status != napi_ok || !lossless) FailType(index, "a bigint of 64 bits");
  return value;
}

double Arguments::Double(size_t index) {
  double value = 0;
  if (napi_get_value_double(info_.Env(), info_[index], &value) != napi_ok) FailType(index, "a number");
  return value;
}

bool Arguments::Boolean(size_t index) {
  bool value = false;
  if (napi_get_value_bool(info_.Env(), info_[index], &value) != napi_ok) FailType(index, "a boolean");
  return value;
}

std::string Arguments::String(size_t index) {
  if (info_[index].IsString()) return info_[index].As<Napi::String>().Utf8Value();
  FailType(index, "a string");
  return {};
}

Napi::Function Arguments::Function(size_t index) {
  if (info_[index].IsFunction()) return info_[index].As<Napi::Function>();
  FailType(index, "a function");
  return {};
}

Napi::ArrayBuffer Arguments::ArrayBuffer(size_t index) {
  if (info_[index].IsArrayBuffer()) return info_[index].As<Napi::ArrayBuffer>();
  FailType(index, "an ArrayBuffer");
  return {};
}

View<uint8_t> Arguments::Bytes(size_t index) {
  napi_typedarray_type type;
  size_t length = 0;
  void* data = nullptr;
  const napi_status status =
      napi_get_typedarray_info(info_.Env(), info_[index], &type, &length, &data, nullptr, nullptr);
  if (status == napi_ok && type == napi_uint8_array) return {static_cast<uint8_t*>(data), length};
  FailType(index, "a Uint8Array");
  return {};
}

View<int32_t> Arguments::Integers(size_t index, size_t minimum) {
  napi_typedarray_type type;
  size_t length = 0;
  void* data = nullptr;
  const napi_status status =
      napi_get_typedarray_info(info_.Env(), info_[index], &type, &length, &data, nullptr, nullptr);
  if (status == napi_ok && type == napi_int32_array && length >= minimum) {
    return {static_cast<int32_t*>(data), length};
  }
  FailType(index, "an Int32Array that is long enough");
  return {};
}

View<uint8_t> Arguments::Part(View<uint8_t> bytes, size_t offset, size_t length) {
  if (offset <= bytes.length && length <= bytes.length - offset) {
    // No arithmetic on the null pointer of an empty array.
    return {length == 0 ? nullptr : bytes.data + offset, length};
  }
  Fail("Offset and length given to the vfio-user addon exceed the array");
  return {};
}
