// The handlers that XLA calls. They check shapes, make jobs of buffers, and return errors; they throw nothing.
#include <cstring>
#include <exception>
#include <string_view>

#include "checker.h"

namespace jaxrnn {
namespace {

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

#pragma GCC visibility pop
