// Work in shares, done by the caller and by the threads of a pool that start in time.
#pragma once
#include <deque>
#include <memory>

#include "crew.h"

namespace jaxrnn {

// Calls work(i, crew) once for every i below `shares`, and returns when all are done. Each thread takes the next share
// when it is ready, and serves the crews of the others if none is left; a crew has at most `members` threads. Threads
// that the pool starts late, or never, are not waited for. `work` must not throw. The pool is used only if
// `in_parallel`.
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
    std::atomic<Index> next{0}, done{0}, servers{0};
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
  const auto take_part = [take_shares, board, shares, members] {
    take_shares();
    if (members == 1) return;
    const Index first = board->servers++;
    for (Index i = 0; i < shares; i++) board->crews[(first + i) % shares].serve();
  };
  for (Index i = 0; i < others; i++) {
    auto task = take_part;
    pool.Schedule(std::move(task));
  }
  take_part();
  wait_until([&] { return board->done.load(std::memory_order_acquire) >= shares; });
}

// The same with work(i), where a share needs no crew.
template <class Pool, class Work>
void parallel(Pool& pool, Index shares, bool in_parallel, const Work& work) {
  in_crews(pool, shares, 1, in_parallel, [&work](Index i, Crew&) { work(i); });
}

}  // namespace jaxrnn
