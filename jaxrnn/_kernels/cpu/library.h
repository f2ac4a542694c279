// The choice of a kernel for this machine, and the division of a job into parts. Independent of XLA.
#pragma once
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "parallel.h"

namespace jaxrnn {

// Memory that a thread keeps from call to call. `take` returns null if the allocation fails.
class Scratch {
 public:
  ~Scratch() { std::free(base_); }

  char* take(std::size_t bytes) {
    if (bytes > size_) {
      std::free(base_);
      size_ = (bytes + PAGE - 1) / PAGE * PAGE;
      base_ = static_cast<char*>(std::aligned_alloc(PAGE, size_));
      if (!base_) size_ = 0;
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
  static constexpr std::size_t PAGE = 4096, MAX_RETAINED = std::size_t{256} << 20;
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

// Returns the floating-point operations of a forward pass.
inline double flops(const Kernel& kernel, const Shape& shape) {
  return 2.0 * kernel.gates * shape.time * shape.batch * shape.hidden * (shape.inputs + shape.hidden);
}

constexpr double MIN_PARALLEL_FLOPS = 2e7;       // of a job that uses the pool: about 0.3 ms
constexpr Index MIN_PARALLEL_PACKING = 1 << 19;  // floats of weights

inline bool runs_in_parallel(const Kernel& kernel, const Shape& shape) {
  return flops(kernel, shape) >= MIN_PARALLEL_FLOPS;
}
inline bool packs_in_parallel(const Kernel& kernel, const Shape& shape) {
  return kernel.gates * shape.hidden * (shape.inputs + shape.hidden) >= MIN_PARALLEL_PACKING;
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

// Runs a forward pass. Rows are independent, so that the result is the same to the last bit for any number of parts.
template <class Pool>
bool run(const Kernel& kernel, const Forward& job, Pool& pool) {
  const Shape& shape = job.shape;
  const bool in_parallel = runs_in_parallel(kernel, shape);
  const Index max_parts = shape.batch / kernel.rows > 1 ? shape.batch / kernel.rows : 1;
  const Index threads = in_parallel ? pool.num_threads() : 1;
  const Index parts = threads < 1 ? 1 : threads < max_parts ? threads : max_parts;
  const std::size_t shared = kernel.forward_shared(shape);
  const auto rows = [&](Index i) { return Share{i, parts}.cut(shape.batch); };
  const std::size_t workspace = largest(parts, [&](Index i) { return kernel.forward_workspace(shape, rows(i)); });
  static thread_local Scratch scratch;
  char* base = scratch.take(shared + workspace * parts);
  if (!base) return false;
  parallel(pool, parts, in_parallel && packs_in_parallel(kernel, shape),
           [&](Index i) { kernel.forward_pack(job, base, {i, parts}); });
  parallel(pool, parts, in_parallel, [&](Index i) {
    kernel.forward_run(job, base, base + shared + workspace * i, rows(i));
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

// Returns the number of parts of the batch whose weight gradients are summed separately. It depends on the shape and
// not on the number of threads, so that the sums are the same to the last bit for any number of threads.
inline Index parts_of(const Kernel& kernel, const Shape& shape) {
  constexpr Index MAX_PARTS = 16, MIN_ROWS = 16, MIN_STEPS = 512;  // rows and steps of a part
  const auto min = [](Index a, Index b) { return a < b ? a : b; };
  if (!runs_in_parallel(kernel, shape) || shape.batch < 4) return 1;
  if (shape.groups > 1) return min(shape.groups, MAX_PARTS);
  const Index parts = min(min(shape.batch / MIN_ROWS, shape.batch * shape.time / MIN_STEPS), MAX_PARTS);
  return parts < 2 ? 2 : parts;
}

template <class Pool>
bool run(const Kernel& kernel, const Backward& job, Pool& pool) {
  const Shape& shape = job.shape;
  const Index parts = parts_of(kernel, shape), group = shape.batch / shape.groups;
  const bool grouped = shape.groups > 1, in_parallel = runs_in_parallel(kernel, shape);
  const bool pack_parallel = in_parallel && packs_in_parallel(kernel, shape);
  const auto rows = [&](Index i) {
    const Rows cut = Share{i, parts}.cut(grouped ? shape.groups : shape.batch);
    return grouped ? Rows{cut.first * group, cut.last * group} : cut;
  };
  const std::size_t workspace = largest(parts, [&](Index i) { return kernel.backward_workspace(shape, rows(i)); });
  const Index summed = grouped ? shape.groups : parts;
  const std::size_t shared = kernel.backward_shared(shape), sums = kernel.backward_sums(shape);
  static thread_local Scratch scratch;
  char* base = scratch.take(shared + sums * summed + workspace * parts);
  if (!base) return false;
  char *sum = base + shared, *each = sum + sums * summed;
  parallel(pool, parts, pack_parallel, [&](Index i) { kernel.backward_pack(job, base, {i, parts}); });
  parallel(pool, parts, in_parallel, [&](Index i) {
    const Rows mine = rows(i);
    kernel.backward_run(job, base, each + workspace * i, sum + sums * (grouped ? mine.first / group : i), mine);
  });
  const Index each_group = grouped ? 1 : parts;
  parallel(pool, parts, pack_parallel, [&](Index i) { kernel.backward_sum(job, sum, each_group, {i, parts}); });
  scratch.release();
  return true;
}

}  // namespace jaxrnn
