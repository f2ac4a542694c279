// Work in shares, done by the caller and by the threads of a pool that start in time.
#pragma once
#include <atomic>
#include <memory>
#include <thread>

#include "job.h"

namespace jaxrnn {

// Calls work(i) once for every i below `shares`, and returns when all are done. No share waits for another. Each thread
// takes the next share when it is ready, so that threads which the pool starts late, or never, are not waited for.
// `work` must not throw. The pool is used only if `in_parallel`.
template <class Pool, class Work>
void parallel(Pool& pool, Index shares, bool in_parallel, const Work& work) {
  const Index threads = in_parallel ? static_cast<Index>(pool.num_threads()) : 1;
  const Index others = (shares < threads ? shares : threads) - 1;
  if (others < 1) {
    for (Index i = 0; i < shares; i++) work(i);
    return;
  }
  struct Board {  // outlives this call if a thread starts late
    std::atomic<Index> next{0}, done{0};
  };
  const auto board = std::make_shared<Board>();
  const auto take_shares = [board, shares, &work] {  // a late thread finds no share, and does not use `work`
    for (Index i = board->next++; i < shares; i = board->next++) {
      work(i);
      board->done.fetch_add(1, std::memory_order_release);
    }
  };
  for (Index i = 0; i < others; i++) {
    auto task = take_shares;
    pool.Schedule(std::move(task));
  }
  take_shares();
  for (int spins = 0; board->done.load(std::memory_order_acquire) < shares; spins++) {
    if (spins > 2000) std::this_thread::yield();
  }
}

}  // namespace jaxrnn
