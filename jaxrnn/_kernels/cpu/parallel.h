// Work in shares, done by the caller and by the threads of a pool that start in time.
#pragma once
#include <deque>
#include <memory>

#include "crew.h"

namespace jaxrnn {

// Calls work(i, crew) once for every i below `shares`, and returns when all are done. Each thread takes the next share
// when it is ready, and serves the crew of one if none is left, which has at most `members` threads. Threads that the
// pool starts late, or never, are not waited for. `work` must not throw. The pool is used only if `in_parallel`.
template <class Pool, class Work>
void in_crews(Pool& pool, Index shares, Index members, bool in_parallel, const Work& work) {
  const Index threads = in_parallel ? static_cast<Index>(pool.num_threads()) : 1, useful = shares * members;
  const Index others = (useful < threads ? useful : threads) - 1;
  if (others < 1) {
    for (Index i = 0; i < shares; i++) {
      Crew alone(1);
      work(i, alone);
    }
    return;
  }
  struct Board {  // outlives this call if a thread starts late
    std::atomic<Index> next{0}, done{0};
    std::deque<Crew> crews;
  };
  const auto board = std::make_shared<Board>();
  for (Index i = 0; i < shares; i++) board->crews.emplace_back(members);
  const auto take_shares = [board, shares, &work] {  // a late thread finds no share, and does not use `work`
    for (Index i = board->next++; i < shares; i = board->next++) {
      work(i, board->crews[i]);
      board->crews[i].close();
      board->done.fetch_add(1, std::memory_order_release);
    }
  };
  for (Index i = 1; i <= others; i++) {
    pool.Schedule([take_shares, board, shares, members, i] {
      take_shares();
      if (members > 1) board->crews[i % shares].serve();
    });
  }
  take_shares();
  wait_until([&] { return board->done.load(std::memory_order_acquire) >= shares; });
}

// The same with work(i), where a share needs no crew.
template <class Pool, class Work>
void parallel(Pool& pool, Index shares, bool in_parallel, const Work& work) {
  in_crews(pool, shares, 1, in_parallel, [&work](Index i, Crew&) { work(i); });
}

}  // namespace jaxrnn
