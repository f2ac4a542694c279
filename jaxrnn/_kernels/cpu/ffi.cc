// The handlers that XLA calls. They check shapes, make jobs of buffers, and return errors; they throw nothing.
#include <algorithm>
#include <exception>
#include <initializer_list>
#include <string>
#include <string_view>

#include "library.h"
#include "xla/ffi/api/ffi.h"

namespace jaxrnn {
namespace {

namespace ffi = xla::ffi;
using Floats = ffi::Buffer<ffi::F32>;
using Flags = ffi::Buffer<ffi::PRED>;
using Result = ffi::Result<Floats>;

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

  // Checks an array that may be absent, which has the shape (0,). Returns its data; null if it is absent.
  template <class Buffer>
  auto optional(const char* name, const Buffer& buffer, std::initializer_list<Index> shape) {
    const bool absent = buffer.dimensions().size() == 1 && buffer.dimensions()[0] == 0;
    if (!absent) expect(name, buffer, shape);
    return absent ? nullptr : buffer.typed_data();
  }

  void fail(std::string message) {
    if (message_.empty()) message_ = std::move(message);
  }

  bool failed() const { return !message_.empty(); }
  ffi::Error error() const { return ffi::Error::InvalidArgument(message_); }

 private:
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
  Floats xs, w_x, w_h, b, local, state, reset_state;
  Flags valid, reset;
};

// Fills in what both jobs have in common. Returns the kernel, or null after a failure.
template <class Job>
const Kernel* prepare(Job& job, const Inputs& in, std::string_view cell, bool reverse, Index groups, Checker& check) {
  const Kernel* kernel = find_kernel(cell.data(), cell.size());
  if (!kernel) check.fail("jaxrnn's native library has no kernel named '" + std::string(cell) + "'.");
  if (in.xs.dimensions().size() != 3) check.fail("jaxrnn's native kernel needs xs of three axes, (T, B, I).");
  if (in.state.dimensions().size() != 3) check.fail("jaxrnn's native kernel needs a state of three axes, (S, B, H).");
  if (check.failed()) return nullptr;
  const auto x = in.xs.dimensions();
  const Index T = x[0], B = x[1], I = x[2], H = in.state.dimensions()[2], G = kernel->gates, S = kernel->states;
  job.shape = {T, B, I, H, reverse, groups};
  if (groups < 1 || B % groups) check.fail("jaxrnn's native kernel needs a batch that its groups divide.");
  check.expect("w_x", in.w_x, {I, G, H});
  check.expect("w_h", in.w_h, {H, G, H});
  check.expect("b", in.b, {G, H});
  check.expect("local", in.local, {kernel->locals, H});
  check.expect("state", in.state, {S, B, H});
  job.weights = {in.w_x.typed_data(), in.w_h.typed_data(), in.b.typed_data(), in.local.typed_data()};
  const auto flags = [](const bool* at) { return reinterpret_cast<const std::uint8_t*>(at); };
  job.masks.valid = flags(check.optional("valid", in.valid, {T, B}));
  job.masks.reset = flags(check.optional("reset", in.reset, {T, B}));
  job.masks.reset_state = check.optional("reset_state", in.reset_state, {S, B, H});
  if (job.masks.reset && !job.masks.reset_state) {
    check.fail("jaxrnn's native kernel needs reset_state where there are resets.");
  }
  job.xs = in.xs.typed_data();
  job.state = in.state.typed_data();
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

ffi::Error forward(ffi::ThreadPool pool, Floats xs, Floats w_x, Floats w_h, Floats b, Floats local, Floats state,
                   Floats reset_state, Flags valid, Flags reset, Result ys, Result final, Result residuals,
                   std::string_view cell, bool reverse) {
  Checker check;
  Forward job{};
  const Inputs in{xs, w_x, w_h, b, local, state, reset_state, valid, reset};
  const Kernel* kernel = prepare(job, in, cell, reverse, 1, check);
  if (!kernel) return check.error();
  const auto [T, B, I, H, _, groups] = job.shape;
  check.expect("ys", *ys, {T, B, H});
  check.expect("final", *final, {kernel->states, B, H});
  job.ys = ys->typed_data();
  job.final = final->typed_data();
  job.residuals = check.optional("residuals", *residuals, {T, B, kernel->residuals * padded(H)});
  return check.failed() ? check.error() : finish(*kernel, job, pool);
}

ffi::Error backward(ffi::ThreadPool pool, Floats xs, Floats w_x, Floats w_h, Floats b, Floats local, Floats state,
                    Floats reset_state, Flags valid, Flags reset, Floats ys, Floats residuals, Floats dys,
                    Floats dfinal, Result dxs, Result dw_x, Result dw_h, Result db, Result dlocal, Result dstate,
                    Result dreset_state, std::string_view cell, bool reverse, std::int64_t groups) {
  Checker check;
  Backward job{};
  const Inputs in{xs, w_x, w_h, b, local, state, reset_state, valid, reset};
  const Kernel* kernel = prepare(job, in, cell, reverse, groups, check);
  if (!kernel) return check.error();
  const auto [T, B, I, H, _, N] = job.shape;
  const Index G = kernel->gates, S = kernel->states;
  check.expect("ys", ys, {T, B, H});
  check.expect("residuals", residuals, {T, B, kernel->residuals * padded(H)});
  check.expect("dw_x", *dw_x, {N * I, G, H});
  check.expect("dw_h", *dw_h, {N * H, G, H});
  check.expect("db", *db, {N * G, H});
  check.expect("dlocal", *dlocal, {N * kernel->locals, H});
  check.expect("dstate", *dstate, {S, B, H});
  job.ys = ys.typed_data();
  job.residuals = residuals.typed_data();
  job.dys = check.optional("dys", dys, {T, B, H});
  job.dfinal = check.optional("dfinal", dfinal, {S, B, H});
  job.dxs = check.optional("dxs", *dxs, {T, B, I});
  job.dw_x = dw_x->typed_data();
  job.dw_h = dw_h->typed_data();
  job.db = db->typed_data();
  job.dlocal = dlocal->typed_data();
  job.dstate = dstate->typed_data();
  job.dreset_state = check.optional("dreset_state", *dreset_state, {S, B, H});
  if (job.masks.reset && !job.dreset_state) {
    check.fail("jaxrnn's native kernel needs dreset_state where there are resets.");
  }
  if (check.failed()) return check.error();
  if (B == 0) {  // no row adds to these
    for (Result* gradient : {&dw_x, &dw_h, &db, &dlocal}) {
      std::fill_n((*gradient)->typed_data(), (*gradient)->element_count(), 0.0f);
    }
  }
  return finish(*kernel, job, pool);
}

ffi::Error affine(ffi::ThreadPool pool, Floats a, Floats b, Floats state, Result out, bool reverse) {
  Checker check;
  const auto dims = a.dimensions();
  if (dims.size() == 0) check.fail("jaxrnn's affine recurrence needs a of an axis of time at least.");
  if (check.failed()) return check.error();
  check.expect("b", b, dims);
  check.expect("the result", *out, dims);
  check.expect("state", state, dims.last(dims.size() - 1));
  if (check.failed()) return check.error();
  const Index width = static_cast<Index>(state.element_count());
  if (a.element_count() == 0) return ffi::Error::Success();
  const Affine job{dims[0], width, reverse, a.typed_data(), b.typed_data(), state.typed_data(), out->typed_data()};
  try {
    run(job, pool);
    return ffi::Error::Success();
  } catch (const std::exception& failure) {
    return ffi::Error::Internal(std::string("jaxrnn's affine recurrence failed: ") + failure.what());
  }
}

auto bind_inputs() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<Floats>()
      .Arg<Floats>()
      .Arg<Floats>()
      .Arg<Floats>()
      .Arg<Floats>()
      .Arg<Floats>()
      .Arg<Floats>()
      .Arg<Flags>()
      .Arg<Flags>();
}

}  // namespace
}  // namespace jaxrnn

#pragma GCC visibility push(default)

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxrnn_forward, jaxrnn::forward,
                              jaxrnn::bind_inputs()
                                  .Ret<jaxrnn::Floats>()
                                  .Ret<jaxrnn::Floats>()
                                  .Ret<jaxrnn::Floats>()
                                  .Attr<std::string_view>("cell")
                                  .Attr<bool>("reverse"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxrnn_backward, jaxrnn::backward,
                              jaxrnn::bind_inputs()
                                  .Arg<jaxrnn::Floats>()
                                  .Arg<jaxrnn::Floats>()
                                  .Arg<jaxrnn::Floats>()
                                  .Arg<jaxrnn::Floats>()
                                  .Ret<jaxrnn::Floats>()
                                  .Ret<jaxrnn::Floats>()
                                  .Ret<jaxrnn::Floats>()
                                  .Ret<jaxrnn::Floats>()
                                  .Ret<jaxrnn::Floats>()
                                  .Ret<jaxrnn::Floats>()
                                  .Ret<jaxrnn::Floats>()
                                  .Attr<std::string_view>("cell")
                                  .Attr<bool>("reverse")
                                  .Attr<std::int64_t>("groups"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxrnn_affine, jaxrnn::affine,
                              jaxrnn::ffi::Ffi::Bind()
                                  .Ctx<jaxrnn::ffi::ThreadPool>()
                                  .Arg<jaxrnn::Floats>()
                                  .Arg<jaxrnn::Floats>()
                                  .Arg<jaxrnn::Floats>()
                                  .Ret<jaxrnn::Floats>()
                                  .Attr<bool>("reverse"));

#pragma GCC visibility pop
