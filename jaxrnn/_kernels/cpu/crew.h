// Threads that run rounds of work together, where a step of the time loop is shared between them.
#pragma once
#include <atomic>
#include <thread>
#include <vector>

#include "job.h"

namespace jaxrnn {

// Returns the time of a clock that never goes back.
std::int64_t nanoseconds();

// Waits until `done()`: for some microseconds at once, and then by letting other threads run.
template <class Done>
void wait_until(Done&& done) {
  for (int spins = 0; !done(); spins++) {
    if (spins > 10000) std::this_thread::yield();
  }
}

// The leader calls rounds. Other threads serve: from the next round on each takes a share, until the crew is closed.
// The leader never waits for a thread that has not come yet. Where it has waited for long, other processes have taken
// a core: it runs some rounds alone then, and four times as many whenever that happens again.
class Crew {
 public:
  explicit Crew(Index limit) : limit_(limit), done_(limit) {}

  Index limit() const { return limit_; }  // of the threads in a round

  // Sets what each thread does before its first round and after its last. The leader calls it before any round.
  void equip(void (*begin)(), void (*end)()) { begin_ = begin, end_ = end; }

  // Calls work(share) on each thread that is there, and returns when all have returned.
  template <class Work>
  void operator()(const Work& work) {
    const Index came = 1 + arrived_.load(std::memory_order_relaxed), of = came < limit_ ? came : limit_;
    if (of == 1 || alone_ > 0) {
      if (alone_ > 0) alone_--;
      return work(Share{0, 1});
    }
    const std::int64_t begin = nanoseconds();
    work_ = &work;
    call_ = [](const void* work, Share share) { (*static_cast<const Work*>(work))(share); };
    const std::uint64_t round = ++number_ * MEMBERS + static_cast<std::uint64_t>(of);
    round_.store(round, std::memory_order_release);
    work(Share{0, of});
    const std::int64_t end = nanoseconds();
    for (Index i = 1; i < of; i++) {
      wait_until([&] { return done_[i].of.load(std::memory_order_acquire) == round; });
    }
    if (nanoseconds() - end > 4 * (end - begin) + LONG_WAIT) {
      alone_ = next_alone_;
      next_alone_ *= 4;
    }
  }

  // Ends the crew. Threads that serve leave, and those that come later leave at once.
  void close() { round_.store(CLOSED, std::memory_order_release); }

  // Takes shares until the crew is closed.
  void serve() {
    std::uint64_t last = 0;
    if (round_.load(std::memory_order_relaxed) == CLOSED) return;
    const Index index = 1 + arrived_.fetch_add(1, std::memory_order_relaxed);
    bool began = false;
    while (index < limit_) {
      std::uint64_t round = 0;
      wait_until([&] { return (round = round_.load(std::memory_order_acquire)) != last; });
      if (round == CLOSED) break;
      last = round;
      const Index of = static_cast<Index>(round % MEMBERS);
      if (index >= of) continue;  // came after the round had begun
      if (!began) begin_();
      began = true;
      call_(work_, Share{index, of});
      done_[index].of.store(round, std::memory_order_release);
    }
    if (began) end_();
  }

 private:
  static constexpr std::int64_t LONG_WAIT = 50000;  // nanoseconds, and more than the work of the leader explains
  static constexpr std::uint64_t MEMBERS = 1 << 16, CLOSED = ~std::uint64_t{0};

  struct alignas(64) Round {
    std::atomic<std::uint64_t> of{0};
  };

  const Index limit_;
  void (*begin_)() = [] {};
  void (*end_)() = [] {};
  const void* work_ = nullptr;
  void (*call_)(const void*, Share) = nullptr;
  std::uint64_t number_ = 0;
  Index alone_ = 0, next_alone_ = 32;  // rounds that the leader runs alone: now, and after the next long wait
  alignas(64) std::atomic<Index> arrived_{0};
  alignas(64) std::atomic<std::uint64_t> round_{0};  // its number and its threads
  std::vector<Round> done_;                         // the last that each thread has done
};

}  // namespace jaxrnn
