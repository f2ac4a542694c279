// A test of the kernels without XLA, for the sanitizers: every cell and odd sizes, called from several threads at a
// time, with pools that start their tasks at once, late and never. Prints "the same" if all results are equal to the
// last bit. It is built for one instruction set, ISA; LACKS_A and LACKS_B name those that are left out, to save time.
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
  }
LEFT_OUT(LACKS_A)
LEFT_OUT(LACKS_B)
#define NAME(isa) TEXT(isa)
#define TEXT(isa) #isa
extern "C" int jaxrnn_use_isa(const char*);

using namespace jaxrnn;

// Threads that take tasks from a queue. With `hold` they start only when the pool is destroyed.
class Pool {
 public:
  Pool(Index threads, bool hold) : held_(hold) {
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
  Index num_threads() const { return 4; }
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
};

struct Case {
  const char* cell;
  Shape shape;
  bool masked;
};

// Exactly as large as needed, so that the sanitizer detects an access beyond the end.
using Array = std::vector<float>;

Array drawn(Index count, unsigned seed) {
  Array out(count);
  for (auto& x : out) {
    seed = seed * 1664525u + 1013904223u;
    x = static_cast<float>(seed >> 8) / (1 << 24) - 0.5f;
  }
  return out;
}

// Runs the forward and the backward pass, and returns all outputs in one array.
template <class P>
Array answer(const Case& c, P& pool) {
  const Kernel& k = *find_kernel(c.cell, std::strlen(c.cell));
  const auto [T, B, I, H, reverse, N] = c.shape;
  const Array xs = drawn(T * B * I, 1), w_x = drawn(I * k.gates * H, 2), w_h = drawn(H * k.gates * H, 3);
  const Array b = drawn(k.gates * H, 4), local = drawn(k.locals * H, 5), state = drawn(k.states * B * H, 6);
  const Array reset_state = drawn(k.states * B * H, 7), dys = drawn(T * B * H, 8), dfinal = drawn(k.states * B * H, 9);
  std::vector<std::uint8_t> valid(T * B), reset(T * B);
  for (Index i = 0; i < T * B; i++) valid[i] = i / B < T - i % B % 3, reset[i] = valid[i] && i % 5 == 0;
  Array ys(T * B * H), final(k.states * B * H), residuals(T * B * k.residuals * padded(H)), dxs(T * B * I);
  Array dw_x(N * w_x.size()), dw_h(N * w_h.size()), db(N * b.size()), dlocal(N * local.size());
  Array dstate(state.size()), dreset_state(state.size());
  const Weights weights{w_x.data(), w_h.data(), b.data(), local.data()};
  const StepMasks masks = c.masked ? StepMasks{valid.data(), reset.data(), reset_state.data()} : StepMasks{};
  const Forward forward{c.shape,      weights,   masks,        xs.data(),
                      state.data(), ys.data(), final.data(), residuals.data()};
  Backward backward{c.shape,    weights,     masks,         xs.data(),   state.data(), ys.data(),
                residuals.data(), dys.data(),  dfinal.data(), dxs.data(),  dw_x.data(),  dw_h.data(),
                db.data(),  dlocal.data(), dstate.data(), dreset_state.data()};
  if (!run(k, forward, pool) || !run(k, backward, pool)) std::printf("no memory\n");
  Array all;
  for (const Array* a : {&ys, &final, &dxs, &dw_x, &dw_h, &db, &dlocal, &dstate, &dreset_state}) {
    all.insert(all.end(), a->begin(), a->end());
  }
  return all;
}

// Runs the affine recurrence, long enough for several threads, with a last vector that is not full.
template <class P>
Array affine_answer(P& pool) {
  const Index time = 900, width = 151;
  const Array a = drawn(time * width, 1), b = drawn(time * width, 2), state = drawn(width, 3);
  Array out(time * width);
  run(Affine{time, width, true, a.data(), b.data(), state.data(), out.data()}, pool);
  return out;
}

int main() {
  if (!jaxrnn_use_isa(NAME(ISA))) return 1;
  const Shape shapes[] = {
      {7, 1, 3, 5, false, 1},   {9, 5, 17, 33, true, 1},    {0, 3, 2, 4, false, 1},
      {6, 12, 5, 19, false, 4}, {40, 37, 70, 66, false, 1},
  };
  std::vector<Case> cases;
  for (const char* cell : {"elman_tanh", "elman_relu", "lstm", "gru"}) {
    for (const Shape& shape : shapes) cases.push_back({cell, shape, true}), cases.push_back({cell, shape, false});
  }
  std::atomic<int> wrong{0};
  Pool alone(0, false), eager(3, false);
  std::vector<Array> expected;
  for (const Case& c : cases) expected.push_back(answer(c, alone));
  expected.push_back(affine_answer(alone));
  const auto check = [&](Pool& pool) {
    for (std::size_t i = 0; i <= cases.size(); i++) {
      const Array got = i < cases.size() ? answer(cases[i], pool) : affine_answer(pool);
      if (std::memcmp(got.data(), expected[i].data(), got.size() * sizeof(float)) != 0) wrong++;
    }
  };
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; i++) callers.emplace_back([&] { check(eager); });
  for (auto& caller : callers) caller.join();
  {
    Pool late(3, true);  // starts its tasks after all calls have returned
    check(late);
  }
  std::printf(wrong ? "%d differ\n" : "the same\n", wrong.load());
  return wrong ? 1 : 0;
}
