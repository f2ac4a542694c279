// The check of the buffers that XLA passes.
#pragma once
#include <algorithm>
#include <initializer_list>
#include <string>

#include "library.h"
#include "xla/ffi/api/ffi.h"

namespace jaxrnn {
namespace {

namespace ffi = xla::ffi;
using Numbers = ffi::AnyBuffer;
using Flags = ffi::Buffer<ffi::PRED>;
using Result = ffi::Result<Numbers>;

// Checks the shapes of buffers; the error names the first that does not fit.
class Checker {
 public:
  template <class Buffer, class Dims = std::initializer_list<Index>>
  void expect(const char* name, const Buffer& buffer, const Dims& shape) {
    const auto dims = buffer.dimensions();
    if (!message_.empty() || (dims.size() == shape.size() && std::equal(shape.begin(), shape.end(), dims.begin())))
      return;
    message_ = std::string("jaxrnn's native kernel needs ") + name + " of shape " + text(shape.begin(), shape.end()) +
               "; got " + text(dims.begin(), dims.end()) + ".";
  }

  // Checks the dtype of a buffer, and returns it as an array.
  Array array(const char* name, const Numbers& buffer) {
    char* data = static_cast<char*>(buffer.untyped_data());
    switch (buffer.element_type()) {
      case ffi::F32: return {data, Dtype::F32};
      case ffi::BF16: return {data, Dtype::BF16};
      case ffi::F16: return {data, Dtype::F16};
      default: fail(std::string("jaxrnn's native kernel needs ") + name + " in float32, bfloat16 or float16.");
    }
    return {};
  }

  // Checks an array and its shape.
  template <class Dims = std::initializer_list<Index>>
  Array array(const char* name, const Numbers& buffer, const Dims& shape) {
    expect(name, buffer, shape);
    return array(name, buffer);
  }

  // The same for an array that may be absent, which has the shape (0,).
  Array optional(const char* name, const Numbers& buffer, std::initializer_list<Index> shape) {
    return absent(buffer) ? Array{} : array(name, buffer, shape);
  }
  const std::uint8_t* optional(const char* name, const Flags& buffer, std::initializer_list<Index> shape) {
    if (absent(buffer)) return nullptr;
    expect(name, buffer, shape);
    return reinterpret_cast<const std::uint8_t*>(buffer.typed_data());
  }

  // The same for arrays of float32 alone.
  float* floats(const char* name, const Numbers& buffer, std::initializer_list<Index> shape) {
    expect(name, buffer, shape);
    if (buffer.element_type() != ffi::F32) fail(std::string("jaxrnn's native kernel needs ") + name + " in float32.");
    return static_cast<float*>(buffer.untyped_data());
  }
  float* optional_floats(const char* name, const Numbers& buffer, std::initializer_list<Index> shape) {
    return absent(buffer) ? nullptr : floats(name, buffer, shape);
  }

  void fail(std::string message) {
    if (message_.empty()) message_ = std::move(message);
  }

  bool failed() const { return !message_.empty(); }
  ffi::Error error() const { return ffi::Error::InvalidArgument(message_); }

 private:
  template <class Buffer>
  static bool absent(const Buffer& buffer) {
    return buffer.dimensions().size() == 1 && buffer.dimensions()[0] == 0;
  }

  template <class At>
  static std::string text(At at, At end) {
    std::string out = "(";
    for (; at != end; ++at) out += std::to_string(*at) + ", ";
    return out + ")";
  }

  std::string message_;
};

}  // namespace
}  // namespace jaxrnn
