// The handlers that XLA calls. They check shapes, make jobs of buffers, and return errors; they throw nothing.
#include <algorithm>
#include <cstring>
#include <exception>
#include <initializer_list>
#include <string>
#include <string_view>

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

// The arrays that both passes take.
struct Inputs {
  Numbers xs, w_x, w_h, b, local, state, reset_state;
  Flags valid, reset;
};

// Fills in what both jobs have in common. Returns the kernel, or null after a failure.
template <class Job>
const Kernel* prepare(Job& job, const Inputs& in, std::string_view cell, std::string_view precision, bool reverse,
                      Index groups, Checker& check) {
  Precision allowed = Precision::FLOAT32;
  if (precision == "bfloat16") {
    allowed = Precision::BFLOAT16;
  } else if (precision == "bfloat16_x3") {
    allowed = Precision::BFLOAT16_X3;
  } else if (precision != "float32") {
    check.fail("jaxrnn's native library has no precision named '" + std::string(precision) + "'.");
  }
  const Kernel* kernel = find_kernel(cell, check.array("w_h", in.w_h).dtype, allowed);
  if (!kernel) check.fail("jaxrnn's native library has no kernel named '" + std::string(cell) + "'.");
  if (in.xs.dimensions().size() != 3) check.fail("jaxrnn's native kernel needs xs of three axes, (T, B, I).");
  if (in.state.dimensions().size() != 3) check.fail("jaxrnn's native kernel needs a state of three axes, (S, B, H).");
  if (check.failed()) return nullptr;
  const auto x = in.xs.dimensions();
  const Index T = x[0], B = x[1], I = x[2], H = in.state.dimensions()[2], G = kernel->gates, S = kernel->states;
  job.shape = {T, B, I, H, reverse, groups};
  if (groups < 1 || B % groups) check.fail("jaxrnn's native kernel needs a batch that its groups divide.");
  job.weights = {check.array("w_x", in.w_x, {I, G, H}), check.array("w_h", in.w_h, {H, G, H}),
                 check.array("b", in.b, {G, H}), check.array("local", in.local, {kernel->locals, H})};
  job.masks.valid = check.optional("valid", in.valid, {T, B});
  job.masks.reset = check.optional("reset", in.reset, {T, B});
  job.masks.reset_state = check.optional("reset_state", in.reset_state, {S, B, H});
  if (job.masks.reset && !job.masks.reset_state) {
    check.fail("jaxrnn's native kernel needs reset_state where there are resets.");
  }
  job.xs = check.array("xs", in.xs);
  job.state = check.array("state", in.state, {S, B, H});
  return check.failed() ? nullptr : kernel;
}

// Runs a job, and converts exceptions into errors.
template <class Job>
ffi::Error finish(const Kernel& kernel, const Job& job, ffi::ThreadPool& pool) {
  try {
    if (job.shape.batch * job.shape.hidden == 0 || run(kernel, job, pool)) return ffi::Error::Success();
    return ffi::Error(ffi::ErrorCode::kResourceExhausted,
                      "jaxrnn's native kernel could not allocate its workspace. Use a smaller batch, or BPTT().");
  } catch (const std::exception& failure) {
    return ffi::Error::Internal(std::string("jaxrnn's native kernel failed: ") + failure.what());
  }
}

ffi::Error forward(ffi::ThreadPool pool, Numbers xs, Numbers w_x, Numbers w_h, Numbers b, Numbers local, Numbers state,
                   Numbers reset_state, Flags valid, Flags reset, Result ys, Result final, Result residuals,
                   std::string_view cell, std::string_view precision, bool reverse) {
  Checker check;
  Forward job{};
  const Inputs in{xs, w_x, w_h, b, local, state, reset_state, valid, reset};
  const Kernel* kernel = prepare(job, in, cell, precision, reverse, 1, check);
  if (!kernel) return check.error();
  const auto [T, B, I, H, _, groups] = job.shape;
  job.ys = check.array("ys", *ys, {T, B, H});
  job.final = check.array("final", *final, {kernel->states, B, H});
  job.residuals = check.optional("residuals", *residuals, {T, B, kernel->residuals * padded(H)});
  return check.failed() ? check.error() : finish(*kernel, job, pool);
}

ffi::Error backward(ffi::ThreadPool pool, Numbers xs, Numbers w_x, Numbers w_h, Numbers b, Numbers local, Numbers state,
                    Numbers reset_state, Flags valid, Flags reset, Numbers ys, Numbers residuals, Numbers dys,
                    Numbers dfinal, Result dxs, Result dw_x, Result dw_h, Result db, Result dlocal, Result dstate,
                    Result dreset_state, std::string_view cell, std::string_view precision, bool reverse,
                    std::int64_t groups) {
  Checker check;
  Backward job{};
  const Inputs in{xs, w_x, w_h, b, local, state, reset_state, valid, reset};
  const Kernel* kernel = prepare(job, in, cell, precision, reverse, groups, check);
  if (!kernel) return check.error();
  const auto [T, B, I, H, _, N] = job.shape;
  const Index G = kernel->gates, S = kernel->states;
  job.ys = check.array("ys", ys, {T, B, H});
  job.residuals = check.array("residuals", residuals, {T, B, kernel->residuals * padded(H)});
  job.dys = check.optional("dys", dys, {T, B, H});
  job.dfinal = check.optional("dfinal", dfinal, {S, B, H});
  job.dxs = check.optional("dxs", *dxs, {T, B, I});
  job.dw_x = check.array("dw_x", *dw_x, {N * I, G, H});
  job.dw_h = check.array("dw_h", *dw_h, {N * H, G, H});
  job.db = check.array("db", *db, {N * G, H});
  job.dlocal = check.array("dlocal", *dlocal, {N * kernel->locals, H});
  job.dstate = check.array("dstate", *dstate, {S, B, H});
  job.dreset_state = check.optional("dreset_state", *dreset_state, {S, B, H});
  if (job.masks.reset && !job.dreset_state) {
    check.fail("jaxrnn's native kernel needs dreset_state where there are resets.");
  }
  if (check.failed()) return check.error();
  if (B == 0) {  // no row adds to these
    for (Result* gradient : {&dw_x, &dw_h, &db, &dlocal}) {
      std::memset((*gradient)->untyped_data(), 0, (*gradient)->size_bytes());
    }
  }
  return finish(*kernel, job, pool);
}

ffi::Error affine(ffi::ThreadPool pool, Numbers a, Numbers b, Numbers state, Result out, bool reverse) {
  Checker check;
  const auto dims = a.dimensions();
  if (dims.size() == 0) check.fail("jaxrnn's affine recurrence needs a of an axis of time at least.");
  if (check.failed()) return check.error();
  const Index width = static_cast<Index>(state.element_count());
  const auto row = dims.last(dims.size() - 1);
  const Affine job{dims[0],
                   width,
                   reverse,
                   check.array("a", a),
                   check.array("b", b, dims),
                   check.array("state", state, row),
                   check.array("the result", *out, dims)};
  if (check.failed()) return check.error();
  if (a.element_count() == 0) return ffi::Error::Success();
  try {
    run(job, pool);
    return ffi::Error::Success();
  } catch (const std::exception& failure) {
    return ffi::Error::Internal(std::string("jaxrnn's affine recurrence failed: ") + failure.what());
  }
}

// Fills in what both passes of a matrix memory have in common.
bool prepare(Memory& job, Numbers q, Numbers k, Numbers v, Numbers log_decay, Numbers erase, std::int64_t chunk,
             Checker& check) {
  const auto keys = k.dimensions(), values = v.dimensions();
  if (keys.size() != 4 || values.size() != 4) check.fail("jaxrnn's matrix memory needs keys and values of four axes.");
  if (chunk < 1) check.fail("jaxrnn's matrix memory needs a chunk of one step at least.");
  if (check.failed()) return false;
  const Index T = keys[0], R = keys[1], N = keys[2], K = keys[3], V = values[3];
  job.time = T, job.pairs = R * N, job.keys = K, job.values = V, job.chunk = chunk;
  job.query = check.floats("the queries", q, {T, R, N, K});
  job.key = check.floats("the keys", k, {T, R, N, K});
  job.value = check.floats("the values", v, {T, R, N, V});
  job.log_decay = check.floats("log_decay", log_decay, {T, R, N});
  job.erase = check.optional_floats("erase", erase, {T, R, N});
  return !check.failed();
}

// Runs a pass of a matrix memory, and converts exceptions into errors.
template <class Job>
ffi::Error finish(const Job& job, const Memory& of, ffi::ThreadPool& pool) {
  try {
    if (of.pairs * of.keys * of.values == 0 || run(job, pool)) return ffi::Error::Success();
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, "jaxrnn's matrix memory could not allocate its workspace.");
  } catch (const std::exception& failure) {
    return ffi::Error::Internal(std::string("jaxrnn's matrix memory failed: ") + failure.what());
  }
}

ffi::Error memory_forward(ffi::ThreadPool pool, Numbers q, Numbers k, Numbers v, Numbers log_decay, Numbers erase,
                          Numbers memory, Result read, Result final, Result kept, std::int64_t chunk) {
  Checker check;
  Memory job{};
  if (!prepare(job, q, k, v, log_decay, erase, chunk, check)) return check.error();
  const auto rows = v.dimensions();
  const Index T = job.time, R = rows[1], N = rows[2], K = job.keys, V = job.values;
  job.memory = check.floats("the memory", memory, {R, N, K, V});
  job.read = check.floats("what is read", *read, {T, R, N, V});
  job.final = check.floats("the final memory", *final, {R, N, K, V});
  job.kept = check.optional_floats("the kept memories", *kept, {job.chunks(), R, N, K, V});
  return check.failed() ? check.error() : finish(job, job, pool);
}

ffi::Error memory_backward(ffi::ThreadPool pool, Numbers q, Numbers k, Numbers v, Numbers log_decay, Numbers erase,
                           Numbers kept, Numbers dread, Numbers dfinal, Result dq, Result dk, Result dv,
                           Result dlog_decay, Result derase, Result dmemory, std::int64_t chunk) {
  Checker check;
  MemoryGradients job{};
  if (!prepare(job.of, q, k, v, log_decay, erase, chunk, check)) return check.error();
  const auto rows = v.dimensions();
  const Index T = job.of.time, R = rows[1], N = rows[2], K = job.of.keys, V = job.of.values;
  job.of.kept = check.floats("the kept memories", kept, {job.of.chunks(), R, N, K, V});
  job.dread = check.floats("dread", dread, {T, R, N, V});
  job.dfinal = check.floats("dfinal", dfinal, {R, N, K, V});
  job.dquery = check.floats("dq", *dq, {T, R, N, K});
  job.dkey = check.floats("dk", *dk, {T, R, N, K});
  job.dvalue = check.floats("dv", *dv, {T, R, N, V});
  job.dlog_decay = check.floats("dlog_decay", *dlog_decay, {T, R, N});
  job.derase = check.optional_floats("derase", *derase, {T, R, N});
  job.dmemory = check.floats("dmemory", *dmemory, {R, N, K, V});
  if (job.of.erase && !job.derase) check.fail("jaxrnn's matrix memory needs derase where there is erase.");
  return check.failed() ? check.error() : finish(job, job.of, pool);
}

auto bind_memory() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<Numbers>()
      .Arg<Numbers>()
      .Arg<Numbers>()
      .Arg<Numbers>()
      .Arg<Numbers>()
      .Arg<Numbers>();
}

auto bind_inputs() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<Numbers>()
      .Arg<Numbers>()
      .Arg<Numbers>()
      .Arg<Numbers>()
      .Arg<Numbers>()
      .Arg<Numbers>()
      .Arg<Numbers>()
      .Arg<Flags>()
      .Arg<Flags>();
}

}  // namespace
}  // namespace jaxrnn

#pragma GCC visibility push(default)

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxrnn_forward, jaxrnn::forward,
                              jaxrnn::bind_inputs()
                                  .Ret<jaxrnn::Numbers>()
                                  .Ret<jaxrnn::Numbers>()
                                  .Ret<jaxrnn::Numbers>()
                                  .Attr<std::string_view>("cell")
                                  .Attr<std::string_view>("precision")
                                  .Attr<bool>("reverse"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxrnn_backward, jaxrnn::backward,
                              jaxrnn::bind_inputs()
                                  .Arg<jaxrnn::Numbers>()
                                  .Arg<jaxrnn::Numbers>()
                                  .Arg<jaxrnn::Numbers>()
                                  .Arg<jaxrnn::Numbers>()
                                  .Ret<jaxrnn::Numbers>()
                                  .Ret<jaxrnn::Numbers>()
                                  .Ret<jaxrnn::Numbers>()
                                  .Ret<jaxrnn::Numbers>()
                                  .Ret<jaxrnn::Numbers>()
                                  .Ret<jaxrnn::Numbers>()
                                  .Ret<jaxrnn::Numbers>()
                                  .Attr<std::string_view>("cell")
                                  .Attr<std::string_view>("precision")
                                  .Attr<bool>("reverse")
                                  .Attr<std::int64_t>("groups"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxrnn_affine, jaxrnn::affine,
                              jaxrnn::ffi::Ffi::Bind()
                                  .Ctx<jaxrnn::ffi::ThreadPool>()
                                  .Arg<jaxrnn::Numbers>()
                                  .Arg<jaxrnn::Numbers>()
                                  .Arg<jaxrnn::Numbers>()
                                  .Ret<jaxrnn::Numbers>()
                                  .Attr<bool>("reverse"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxrnn_memory_forward, jaxrnn::memory_forward,
                              jaxrnn::bind_memory()
                                  .Ret<jaxrnn::Numbers>()
                                  .Ret<jaxrnn::Numbers>()
                                  .Ret<jaxrnn::Numbers>()
                                  .Attr<std::int64_t>("chunk"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxrnn_memory_backward, jaxrnn::memory_backward,
                              jaxrnn::bind_memory()
                                  .Arg<jaxrnn::Numbers>()
                                  .Arg<jaxrnn::Numbers>()
                                  .Ret<jaxrnn::Numbers>()
                                  .Ret<jaxrnn::Numbers>()
                                  .Ret<jaxrnn::Numbers>()
                                  .Ret<jaxrnn::Numbers>()
                                  .Ret<jaxrnn::Numbers>()
                                  .Ret<jaxrnn::Numbers>()
                                  .Attr<std::int64_t>("chunk"));

#pragma GCC visibility pop
