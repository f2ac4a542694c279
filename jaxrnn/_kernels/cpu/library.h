// The choice of a kernel for this machine, and the division of a job into parts. Independent of XLA.
#pragma once
#include <cstdlib>
#include <cstring>
#include <string_view>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "parallel.h"

namespace jaxrnn {

// Memory that a thread keeps from call to call. `take` returns null if the allocation fails.
class Scratch {
 public:
  ~Scratch() { std::free(base_); }

  char* take(std::size_t bytes) {
    if (bytes > size_) {
      const std::size_t page = bytes < HUGE_PAGE ? PAGE : HUGE_PAGE;
      std::free(base_);
      size_ = (bytes + page - 1) / page * page;
      base_ = static_cast<char*>(std::aligned_alloc(page, size_));
      if (!base_) size_ = 0;
#if defined(__linux__)
      if (base_ && page == HUGE_PAGE) madvise(base_, size_, MADV_HUGEPAGE);  // a hint: fewer addresses to translate
#endif
    }
#if defined(JAXRNN_POISON)  // for tests: a number that is read before it is written is NaN
    if (base_) std::memset(base_, 0xff, size_);
#endif
    return base_;
  }

  void release() {  // frees a buffer that is too large to keep
    if (size_ > MAX_RETAINED) {
      std::free(base_);
      base_ = nullptr;
      size_ = 0;
    }
  }

 private:
  static constexpr std::size_t PAGE = 4096, HUGE_PAGE = std::size_t{2} << 20, MAX_RETAINED = std::size_t{256} << 20;
  char* base_ = nullptr;
  std::size_t size_ = 0;
};

// How the numbers of a matmul may be rounded: not at all, to a bfloat16, or to the sum of two.
enum class Precision { FLOAT32, BFLOAT16, BFLOAT16_X3 };

// Returns the kernel of a cell for the best instruction set of this machine; null for an unknown cell. bfloat16 matmuls
// are taken where the weights or the precision allow them and this machine has a unit for them.
const Kernel* find_kernel(std::string_view cell, Dtype weights, Precision precision);

// The affine recurrence of some columns, for the same instruction set.
using AffineLoop = void (*)(const Affine&, Rows);
AffineLoop find_affine();

// The kernels of a matrix memory, for the same instruction set.
const MemoryKernel& find_memory();

// Returns the floating-point operations of one step of a forward pass for some rows. Few rows cost as much as some,
// since the weights are read for them alone, or whole tiles are computed.
inline double flops_of_step(const Kernel& kernel, const Shape& shape, Index rows) {
  constexpr Index MIN_ROWS = 4;
  const Index least = kernel.rows > MIN_ROWS ? kernel.rows : MIN_ROWS;
  return 2.0 * kernel.gates * (rows < least ? least : rows) * shape.hidden * (shape.inputs + shape.hidden);
}

#if defined(JAXRNN_MIN_FLOPS)  // for tests: one that small jobs exceed
constexpr double MIN_PARALLEL_FLOPS = JAXRNN_MIN_FLOPS;
inline double min_shared_flops(const Kernel&) { return JAXRNN_MIN_FLOPS; }
#else
constexpr double MIN_PARALLEL_FLOPS = 2e7;  // of a job that uses the pool: about 0.3 ms
inline double min_shared_flops(const Kernel& kernel) { return kernel.shared_flops; }
#endif
constexpr Index MIN_PARALLEL_PACKING = 1 << 19;  // floats of weights

inline bool runs_in_parallel(const Kernel& kernel, const Shape& shape) {
  return flops_of_step(kernel, shape, shape.batch) * static_cast<double>(shape.time) >= MIN_PARALLEL_FLOPS;
}
inline bool packs_in_parallel(const Kernel& kernel, const Shape& shape) {
  return kernel.gates * shape.hidden * (shape.inputs + shape.hidden) >= MIN_PARALLEL_PACKING;
}

inline Index at_least_one(Index count) { return count < 1 ? 1 : count; }

// Returns the threads that share each step of a part, each with `units` hidden units at least.
inline Index members_of(const Kernel& kernel, const Shape& shape, Index threads, Index parts, Index units) {
  if (flops_of_step(kernel, shape, shape.batch / parts) < min_shared_flops(kernel)) return 1;
  const Index members = (threads + parts - 1) / parts, most = at_least_one((shape.hidden + units - 1) / units);
  return members < most ? members : most;
}

// Returns the largest workspace that one of the parts needs.
template <class Needed>
std::size_t largest(Index parts, Needed&& needed) {
  std::size_t most = 0;
  for (Index i = 0; i < parts; i++) {
    const std::size_t one = needed(i);
    most = most < one ? one : most;
  }
  return most;
}

// Whether the weights of a pass stay in a core's second-level cache next to what else a step needs. If they do, the
// batch is cut into parts, each for one thread. If they do not, threads share each step and divide the weights.
inline bool weights_fit(const Kernel& kernel, const Shape& shape) {
  return kernel.bytes * kernel.gates * shape.hidden * (shape.inputs + shape.hidden) <= caches().l2;
}
constexpr Index SHARED_ROWS = 128;  // at least, of a part whose steps are shared

// Runs a forward pass. Rows are independent, so that the result is the same to the last bit for any number of parts.
template <class Pool>
bool run(const Kernel& kernel, const Forward& job, Pool& pool) {
  const Shape& shape = job.shape;
  const bool in_parallel = runs_in_parallel(kernel, shape);
  const Index max_parts = at_least_one(shape.batch / (weights_fit(kernel, shape) ? kernel.rows : SHARED_ROWS));
  const Index threads = in_parallel ? at_least_one(pool.num_threads()) : 1;
  const Index parts = threads < max_parts ? threads : max_parts;
  const Index members = members_of(kernel, shape, threads, parts, kernel.forward_units);
  const std::size_t shared = kernel.forward_shared(shape);
  const auto rows = [&](Index i) { return Share{i, parts}.cut(shape.batch); };
  const auto needed = [&](Index i) { return kernel.forward_workspace(shape, rows(i), members); };
  const std::size_t workspace = largest(parts, needed);
  static thread_local Scratch scratch;
  char* base = scratch.take(shared + workspace * parts);
  if (!base) return false;
  const auto pack = [&](Index, Crew& crew) { kernel.forward_pack(job, base, crew); };
  if (parts > 1) in_crews(pool, 1, threads, packs_in_parallel(kernel, shape), pack);
  in_crews(pool, parts, members, in_parallel, [&](Index i, Crew& crew) {
    if (parts == 1) pack(i, crew);  // each thread packs the weights that it will read
    kernel.forward_run(job, base, base + shared + workspace * i, rows(i), crew);
  });
  scratch.release();
  return true;
}

// Runs an affine recurrence. Columns are independent; parts end where vectors end.
template <class Pool>
void run(const Affine& job, Pool& pool) {
  constexpr Index MIN_PARALLEL_ELEMENTS = 1 << 17;  // elements, about 0.1 ms
  const Index vectors = padded(job.width) / PADDED_TO, threads = pool.num_threads();
  const bool in_parallel = job.time * job.width >= MIN_PARALLEL_ELEMENTS && threads > 1;
  const Index parts = !in_parallel ? 1 : threads < vectors ? threads : vectors;
  const AffineLoop affine = find_affine();
  parallel(pool, parts, in_parallel, [&](Index i) {
    const Rows cut = Share{i, parts}.cut(vectors);
    const Index last = cut.last * PADDED_TO;
    affine(job, {cut.first * PADDED_TO, last < job.width ? last : job.width});
  });
}

// Runs a pass of a matrix memory, forward or backward, with parts of the pairs in parallel. Pairs are independent.
template <class Job, class Pool>
bool run(const Job& job, const Memory& of, std::size_t (*needed)(const Job&), void (*pass)(const Job&, char*, Rows),
         Pool& pool) {
  const double flops = 4.0 * of.time * of.pairs * (of.keys * of.values + of.chunk * (of.keys + of.values));
  const bool in_parallel = flops >= MIN_PARALLEL_FLOPS;
  const Index threads = in_parallel ? at_least_one(pool.num_threads()) : 1;
  const Index parts = threads < of.pairs ? threads : of.pairs;
  const std::size_t workspace = needed(job);
  static thread_local Scratch scratch;
  char* base = scratch.take(workspace * parts);
  if (!base) return false;
  parallel(pool, parts, in_parallel,
           [&](Index i) { pass(job, base + workspace * i, Share{i, parts}.cut(of.pairs)); });
  scratch.release();
  return true;
}
template <class Pool>
bool run(const Memory& job, Pool& pool) {
  return run(job, job, find_memory().forward_workspace, find_memory().forward, pool);
}
template <class Pool>
bool run(const MemoryGradients& job, Pool& pool) {
  return run(job, job.of, find_memory().backward_workspace, find_memory().backward, pool);
}

// Returns the number of parts of the batch whose weight gradients are summed separately. It depends on the shape and
// not on the number of threads, so that the sums are the same to the last bit for any number of threads.
inline Index parts_of(const Kernel& kernel, const Shape& shape) {
  constexpr Index MAX_PARTS = 16, MIN_ROWS = 16, MIN_STEPS = 512;  // rows and steps of a part
  const auto min = [](Index a, Index b) { return a < b ? a : b; };
  if (!runs_in_parallel(kernel, shape) || shape.batch < 4) return 1;
  if (shape.groups > 1) return min(shape.groups, MAX_PARTS);
  if (!weights_fit(kernel, shape)) return min(at_least_one(shape.batch / SHARED_ROWS), MAX_PARTS);
  const Index parts = min(min(shape.batch / MIN_ROWS, shape.batch * shape.time / MIN_STEPS), MAX_PARTS);
  return parts < 2 ? 2 : parts;
}

template <class Pool>
bool run(const Kernel& kernel, const Backward& job, Pool& pool) {
  const Shape& shape = job.shape;
  const Index parts = parts_of(kernel, shape), group = shape.batch / shape.groups;
  const bool grouped = shape.groups > 1, in_parallel = runs_in_parallel(kernel, shape);
  const bool pack_parallel = in_parallel && packs_in_parallel(kernel, shape);
  const Index threads = in_parallel ? at_least_one(pool.num_threads()) : 1;
  const Index members = members_of(kernel, shape, threads, parts, kernel.backward_units);
  const auto rows = [&](Index i) {
    const Rows cut = Share{i, parts}.cut(grouped ? shape.groups : shape.batch);
    return grouped ? Rows{cut.first * group, cut.last * group} : cut;
  };
  const auto needed = [&](Index i) { return kernel.backward_workspace(shape, rows(i), members); };
  const std::size_t workspace = largest(parts, needed);
  const Index summed = grouped ? shape.groups : parts;
  const std::size_t shared = kernel.backward_shared(shape), sums = kernel.backward_sums(shape);
  static thread_local Scratch scratch;
  char* base = scratch.take(shared + sums * summed + workspace * parts);
  if (!base) return false;
  char *first_sum = base + shared, *each = first_sum + sums * summed;
  const auto pack = [&](Index, Crew& crew) { kernel.backward_pack(job, base, crew); };
  const auto sum = [&](Index, Crew& crew) { kernel.backward_sum(job, first_sum, grouped ? 1 : parts, crew); };
  if (parts > 1) in_crews(pool, 1, threads, pack_parallel, pack);
  in_crews(pool, parts, members, in_parallel, [&](Index i, Crew& crew) {
    const Rows mine = rows(i);
    char* to = first_sum + sums * (grouped ? mine.first / group : i);
    if (parts == 1) pack(i, crew);  // each thread packs the weights that it will read
    kernel.backward_run(job, base, each + workspace * i, to, mine, crew);
    if (parts == 1) sum(i, crew);
  });
  if (parts > 1) in_crews(pool, 1, threads, pack_parallel, sum);
  scratch.release();
  return true;
}

}  // namespace jaxrnn
