// The kernels without XLA, for the sanitizers: every cell and odd sizes, under pools that help at once, late and never,
// from several threads at a time. Prints "the same" if all results are equal to the last bit.
// Built with the kernels of one instruction set, ISA; LACKS_A and LACKS_B name those that are left out, to save time.
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

// Threads that take tasks from a queue; `hold` keeps them all until it is let go.
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
  bool marked;
};

// Exactly as large as it must be, so that a step beyond it is seen.
using Array = std::vector<float>;

Array drawn(Index count, unsigned seed) {
  Array out(count);
  for (auto& x : out) {
    seed = seed * 1664525u + 1013904223u;
    x = static_cast<float>(seed >> 8) / (1 << 24) - 0.5f;
  }
  return out;
}

// Forward and backward; all that comes out, in one array.
template <class P>
Array answer(const Case& c, P& pool) {
  const Kernel& k = *find_kernel(c.cell, std::strlen(c.cell));
  const auto [T, B, I, H, reverse, N] = c.shape;
  const Array xs = drawn(T * B * I, 1), w_x = drawn(I * k.gates * H, 2), w_h = drawn(H * k.gates * H, 3);
  const Array b = drawn(k.gates * H, 4), local = drawn(k.locals * H, 5), state = drawn(k.states * B * H, 6);
  const Array initial = drawn(k.states * B * H, 7), dys = drawn(T * B * H, 8), dfinal = drawn(k.states * B * H, 9);
  std::vector<std::uint8_t> valid(T * B), fresh(T * B);
  for (Index i = 0; i < T * B; i++) valid[i] = i / B < T - i % B % 3, fresh[i] = valid[i] && i % 5 == 0;
  Array ys(T * B * H), final(k.states * B * H), kept(T * B * k.kept * padded(H)), dxs(T * B * I);
  Array dw_x(N * w_x.size()), dw_h(N * w_h.size()), db(N * b.size()), dlocal(N * local.size());
  Array dstate(state.size()), dinitial(state.size());
  const Weights weights{w_x.data(), w_h.data(), b.data(), local.data()};
  const Marks marks = c.marked ? Marks{valid.data(), fresh.data(), initial.data()} : Marks{};
  const Forward there{c.shape,      weights,   marks,        xs.data(),
                      state.data(), ys.data(), final.data(), kept.data()};
  Backward back{c.shape,    weights,     marks,         xs.data(),   state.data(), ys.data(),
                kept.data(), dys.data(),  dfinal.data(), dxs.data(),  dw_x.data(),  dw_h.data(),
                db.data(),  dlocal.data(), dstate.data(), dinitial.data()};
  if (!run(k, there, pool) || !run(k, back, pool)) std::printf("no memory\n");
  Array all;
  for (const Array* a : {&ys, &final, &dxs, &dw_x, &dw_h, &db, &dlocal, &dstate, &dinitial}) {
    all.insert(all.end(), a->begin(), a->end());
  }
  return all;
}

// The affine recurrence, long enough for several threads, with a last vector that is not full.
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
    Pool late(3, true);  // starts its tasks when the calls are long over
    check(late);
  }
  std::printf(wrong ? "%d differ\n" : "the same\n", wrong.load());
  return wrong ? 1 : 0;
}
