// A test of the kernels without XLA, for the sanitizers: every cell, every dtype and odd sizes, called from several
// threads at a time, with pools that start their tasks at once, late and never. Prints "the same" if all results are
// equal to the last bit, and as near to those of float32 as their dtype allows. It is built for one instruction set,
// ISA; a macro HAS_... names each set of kernels that is linked.
#include <cmath>
#include <condition_variable>
#include <cstdio>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "library.h"

#define LEFT_OUT(isa)                          \
  namespace jaxrnn::isa {                      \
  extern const Kernel kernels[CELLS] = {};     \
  void affine(const Affine&, Rows) {}          \
  extern const MemoryKernel memory{};          \
  }
#if !defined(HAS_avx512)
LEFT_OUT(avx512)
#endif
#if !defined(HAS_avx2)
LEFT_OUT(avx2)
#endif
#if !defined(HAS_baseline)
LEFT_OUT(baseline)
#endif
#if !defined(HAS_amx)
namespace jaxrnn::amx {
extern const Kernel one_pass[CELLS] = {}, three_passes[CELLS] = {};
}
#endif
#define NAME(isa) TEXT(isa)
#define TEXT(isa) #isa
extern "C" int jaxrnn_use_isa(const char*);

using namespace jaxrnn;

// Threads that take tasks from a queue. With `hold` they start only when the pool is destroyed. It says that it has as
// many as `claimed`, into which work is cut.
class Pool {
 public:
  Pool(Index threads, bool hold, Index claimed) : held_(hold), claimed_(claimed) {
    for (Index i = 0; i < threads; i++) threads_.emplace_back([this] { work(); });
  }
  ~Pool() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      closed_ = true;
      held_ = false;
    }
    changed_.notify_all();
    for (auto& thread : threads_) thread.join();
  }
  Index num_threads() const { return claimed_; }
  template <class Task>
  void Schedule(Task&& task) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      tasks_.emplace_back(std::forward<Task>(task));
    }
    changed_.notify_one();
  }

 private:
  void work() {
    for (;;) {
      std::function<void()> task;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait(lock, [this] { return !held_ && (closed_ || !tasks_.empty()); });
        if (tasks_.empty()) return;
        task = std::move(tasks_.front());
        tasks_.pop_front();
      }
      task();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  std::vector<std::thread> threads_;
  bool held_, closed_ = false;
  Index claimed_;
};

// A dtype, a precision, and the largest error that they explain, relative to the largest number of an array.
struct Mode {
  Dtype dtype;
  Precision precision;
  float tolerance;
};

struct Case {
  const char* cell;
  Shape shape;
  bool masked;
  Mode mode;
};

// Numbers in memory of exactly the size that they need, so that the sanitizer detects an access beyond the end.
class Data {
 public:
  // Starts from NaN, in every dtype.
  Data(Index count, Dtype dtype) : dtype_(dtype), bytes_(count * (dtype == Dtype::F32 ? 4 : 2), '\xff') {}

  // Draws multiples of 2^-8 from -1/2 to 1/2, which every dtype has, times a power of two.
  static Data drawn(Index count, unsigned seed, Dtype dtype, float scale = 1) {
    Data out(count, dtype);
    for (Index i = 0; i < count; i++) {
      seed = seed * 1664525u + 1013904223u;
      out.set(i, scale * (static_cast<float>(seed >> 24) / 256 - 0.5f));
    }
    return out;
  }

  Index count() const { return static_cast<Index>(bytes_.size()) / (dtype_ == Dtype::F32 ? 4 : 2); }
  Array array() const { return {const_cast<char*>(bytes_.data()), dtype_}; }

  float get(Index i) const {
    std::uint32_t bits = 0;
    std::uint16_t half;
    float x;
    if (dtype_ == Dtype::F32) {
      std::memcpy(&x, &bytes_[i * 4], 4);
      return x;
    }
    std::memcpy(&half, &bytes_[i * 2], 2);
    if (dtype_ == Dtype::F16) return std::ldexp(half & 0x7c00 ? 1024 + (half & 0x3ff) : half & 0x3ff,
                                                std::max(half >> 10 & 31, 1) - 25) * (half >> 15 ? -1 : 1);
    bits = static_cast<std::uint32_t>(half) << 16;
    std::memcpy(&x, &bits, 4);
    return x;
  }

 private:
  void set(Index i, float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, 4);
    std::uint16_t half = static_cast<std::uint16_t>(bits >> 16);
    if (dtype_ == Dtype::F16) {
      const std::uint32_t magnitude = bits & 0x7fffffff;
      half = static_cast<std::uint16_t>((magnitude ? (magnitude - 0x38000000) >> 13 : 0) | (bits >> 16 & 0x8000));
    }
    if (dtype_ == Dtype::F32) std::memcpy(&bytes_[i * 4], &x, 4);
    if (dtype_ != Dtype::F32) std::memcpy(&bytes_[i * 2], &half, 2);
  }

  Dtype dtype_;
  std::vector<char> bytes_;
};

using Answer = std::vector<std::vector<float>>;

// Runs the forward and the backward pass, and returns all outputs.
template <class P>
Answer answer(const Case& c, P& pool) {
  const Dtype dtype = c.mode.dtype;
  const Kernel& k = *find_kernel(c.cell, dtype, c.mode.precision);
  const auto [T, B, I, H, reverse, N] = c.shape;
  const auto drawn = [&](Index count, unsigned seed) { return Data::drawn(count, seed, dtype); };
  const Data xs = drawn(T * B * I, 1), w_x = drawn(I * k.gates * H, 2);
  const Data w_h = Data::drawn(H * k.gates * H, 3, dtype, 0.25f);
  const Data b = drawn(k.gates * H, 4), local = drawn(k.locals * H, 5), dys = drawn(T * B * H, 8);
  const auto wide = [&](unsigned seed) { return Data::drawn(k.states * B * H, seed, Dtype::F32); };
  const Data state = wide(6), reset_state = wide(7), dfinal = wide(9);
  std::vector<std::uint8_t> valid(T * B), reset(T * B);
  for (Index i = 0; i < T * B; i++) valid[i] = i / B < T - i % B % 3, reset[i] = valid[i] && i % 5 == 0;
  const Data ys(T * B * H, dtype), final(k.states * B * H, Dtype::F32), dxs(T * B * I, dtype);
  const Data residuals(T * B * k.residuals * padded(H), dtype), dw_x(N * w_x.count(), dtype);
  const Data dw_h(N * w_h.count(), dtype), db(N * b.count(), dtype), dlocal(N * local.count(), dtype);
  const Data dstate(state.count(), Dtype::F32), dreset_state(state.count(), Dtype::F32);
  const Weights weights{w_x.array(), w_h.array(), b.array(), local.array()};
  const StepMasks masks = c.masked ? StepMasks{valid.data(), reset.data(), reset_state.array()} : StepMasks{};
  const Forward forward{c.shape,    weights,       masks, xs.array(), state.array(), ys.array(), final.array(),
                        residuals.array()};
  const Backward backward{c.shape,     weights,       masks,           xs.array(),   state.array(),  ys.array(),
                          residuals.array(), dys.array(), dfinal.array(), dxs.array(), dw_x.array(), dw_h.array(),
                          db.array(),  dlocal.array(), dstate.array(), dreset_state.array()};
  if (!run(k, forward, pool) || !run(k, backward, pool)) std::printf("no memory\n");
  Answer all;
  for (const Data* data : {&ys, &final, &dxs, &dw_x, &dw_h, &db, &dlocal, &dstate, &dreset_state}) {
    all.emplace_back();
    for (Index i = 0; i < data->count(); i++) all.back().push_back(data->get(i));
  }
  return all;
}

// Returns the largest error of an array, relative to its largest number or to 1; infinity for one that is not finite.
float error(const Answer& got, const Answer& want) {
  float worst = 0;
  for (std::size_t i = 0; i < got.size(); i++) {
    float most = 1, far = 0;
    for (std::size_t j = 0; j < got[i].size(); j++) {
      most = std::max(most, std::fabs(want[i][j]));
      far = std::isfinite(got[i][j]) ? std::max(far, std::fabs(got[i][j] - want[i][j])) : INFINITY;
    }
    worst = std::max(worst, far / most);
  }
  return worst;
}

// Runs the affine recurrence, long enough for several threads, with a last vector that is not full.
template <class P>
Answer affine_answer(P& pool) {
  const Index time = 900, width = 151;
  const auto drawn = [&](Index count, unsigned seed) { return Data::drawn(count, seed, Dtype::F32); };
  const Data a = drawn(time * width, 1), b = drawn(time * width, 2), state = drawn(width, 3);
  const Data out(time * width, Dtype::F32);
  run(Affine{time, width, true, a.array(), b.array(), state.array(), out.array()}, pool);
  Answer all(1);
  for (Index i = 0; i < out.count(); i++) all[0].push_back(out.get(i));
  return all;
}

// Runs both passes of a matrix memory, with sizes that no vector divides.
template <class P>
Answer memory_answer(P& pool, bool erases, Index T, Index K, Index V, Index chunk) {
  const Index pairs = 5;
  const auto drawn = [&](Index count, unsigned seed) { return Data::drawn(count, seed, Dtype::F32); };
  const auto numbers = [](const Data& data) { return reinterpret_cast<float*>(data.array().data); };
  const auto empty = [](Index count) { return Data(count, Dtype::F32); };
  const Data q = drawn(T * pairs * K, 1), k = drawn(T * pairs * K, 2), v = drawn(T * pairs * V, 3);
  Data decay = drawn(T * pairs, 4), erase = drawn(T * pairs, 5);
  for (Index i = 0; i < decay.count(); i++) numbers(decay)[i] -= i % 11 ? 0.5f : 100.0f;
  const Data memory = drawn(pairs * K * V, 6), dread = drawn(T * pairs * V, 7), dfinal = drawn(pairs * K * V, 8);
  const Data read = empty(T * pairs * V), final = empty(pairs * K * V), dq = empty(q.count()), dk = empty(k.count());
  const Data dv = empty(v.count()), dmemory = empty(pairs * K * V);
  const Data ddecay = empty(T * pairs), derase = empty(T * pairs);
  Memory job{T, pairs, K, V, chunk, numbers(q), numbers(k), numbers(v), numbers(decay),
             erases ? numbers(erase) : nullptr, numbers(memory), numbers(read), numbers(final), nullptr};
  const Data kept = empty(job.chunks() * pairs * K * V);
  job.kept = numbers(kept);
  const MemoryGradients gradients{job, numbers(dread), numbers(dfinal), numbers(dq), numbers(dk), numbers(dv),
                                  numbers(ddecay), erases ? numbers(derase) : nullptr, numbers(dmemory)};
  if (!run(job, pool) || !run(gradients, pool)) std::printf("no memory\n");
  Answer all;
  for (const Data* data : {&read, &final, &kept, &dq, &dk, &dv, &ddecay, &dmemory, &derase}) {
    all.emplace_back();
    for (Index i = 0; i < data->count() && (erases || data != &derase); i++) all.back().push_back(data->get(i));
  }
  return all;
}
template <class P>
std::vector<Answer> memory_answers(P& pool) {
  return {memory_answer(pool, false, 37, 17, 9, 16), memory_answer(pool, true, 37, 17, 9, 16),
          memory_answer(pool, true, 5, 3, 33, 12), memory_answer(pool, false, 2, 1, 1, 1)};
}

int main() {
  if (!jaxrnn_use_isa(NAME(ISA))) return 1;
  const Shape parallel[] = {{20, 37, 70, 66, false, 1}, {40, 17, 70, 66, false, 1}, {40, 25, 64, 64, true, 1}};
  const Shape shapes[] = {
      {5, 1, 3, 5, false, 1},   {4, 5, 17, 33, true, 1},   {0, 3, 2, 4, false, 1},
      {3, 12, 5, 19, false, 4}, {2, 37, 40, 34, false, 1},
  };
  const Mode full{Dtype::F32, Precision::FLOAT32, 0};
  const Mode modes[] = {full,
                        {Dtype::BF16, Precision::FLOAT32, 4e-2f},
                        {Dtype::F16, Precision::FLOAT32, 5e-3f},
                        {Dtype::F32, Precision::BFLOAT16, 4e-2f},
                        {Dtype::F32, Precision::BFLOAT16_X3, 1e-4f}};
  std::atomic<int> wrong{0};
  std::vector<Case> cases;
  std::vector<Answer> want;
  Pool alone(0, false, 1), eager(3, false, 4);
  for (const char* cell : {"elman_tanh", "elman_relu", "lstm", "gru"}) {
    for (const Shape& shape : parallel) cases.push_back({cell, shape, true, full});
    for (const Shape& shape : shapes) {
      cases.push_back({cell, shape, false, full});
      for (const Mode& mode : modes) cases.push_back({cell, shape, true, mode});
    }
  }
  for (const Case& c : cases) {
    want.push_back(answer(c, alone));
    const float far = error(want.back(), answer({c.cell, c.shape, c.masked, full}, alone));
    const bool kink = c.cell == std::string("elman_relu");  // where rounding may change the slope from 0 to 1
    if (far <= c.mode.tolerance * (kink ? 5 : 1)) continue;
    std::printf("%s, T %d, dtype %d, precision %d: error %g\n", c.cell, static_cast<int>(c.shape.time),
                static_cast<int>(c.mode.dtype), static_cast<int>(c.mode.precision), far);
    wrong++;
  }
  want.push_back(affine_answer(alone));
  const std::vector<Answer> memories = memory_answers(alone);
  for (const Answer& one : memories) wrong += std::isinf(error(one, one));
  const auto check = [&](Pool& pool) {
    for (std::size_t i = 0; i <= cases.size(); i++) {
      wrong += (i < cases.size() ? answer(cases[i], pool) : affine_answer(pool)) != want[i];
    }
    wrong += memory_answers(pool) != memories;
  };
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; i++) callers.emplace_back([&] { check(eager); });
  for (auto& caller : callers) caller.join();
  {
    Pool late(3, true, 3);  // starts its tasks after all calls have returned
    check(late);
  }
  for (Index claimed : {2, 16}) {
    Pool none(0, false, claimed);
    check(none);
  }
  std::printf(wrong ? "%d differ\n" : "the same\n", wrong.load());
  return wrong ? 1 : 0;
}
