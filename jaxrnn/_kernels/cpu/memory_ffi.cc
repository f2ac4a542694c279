// The handlers of matrix memories that XLA calls, as those in ffi.cc.
#include <exception>

#include "checker.h"

namespace jaxrnn {
namespace {

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

}  // namespace
}  // namespace jaxrnn

#pragma GCC visibility push(default)

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
