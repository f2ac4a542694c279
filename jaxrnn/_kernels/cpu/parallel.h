// Work cut into shares, done by the caller and by whoever of a pool comes in time to help.
#pragma once
#include <atomic>
#include <memory>
#include <thread>

#include "job.h"

namespace jaxrnn {

// Calls work(i) once for every i below `shares`, and returns when all are done. No share waits for another. Helpers
// that the pool starts too late, or never, are not missed: whoever is there takes the next share. `work` must not throw.
// Nobody is called in unless `help_wanted`.
template <class Pool, class Work>
void parallel(Pool& pool, Index shares, bool help_wanted, const Work& work) {
  const Index threads = help_wanted ? static_cast<Index>(pool.num_threads()) : 1;
  const Index helpers = (shares < threads ? shares : threads) - 1;
  if (helpers < 1) {
    for (Index i = 0; i < shares; i++) work(i);
    return;
  }
  struct Board {  // outlives this call where a helper comes late
    std::atomic<Index> next{0}, done{0};
  };
  const auto board = std::make_shared<Board>();
  const auto help = [board, shares, &work] {  // a late helper finds no share, and never looks at `work`
    for (Index i = board->next++; i < shares; i = board->next++) {
      work(i);
      board->done.fetch_add(1, std::memory_order_release);
    }
  };
  for (Index i = 0; i < helpers; i++) {
    auto task = help;
    pool.Schedule(std::move(task));
  }
  help();
  for (int spins = 0; board->done.load(std::memory_order_acquire) < shares; spins++) {
    if (spins > 2000) std::this_thread::yield();
  }
}

}  // namespace jaxrnn
