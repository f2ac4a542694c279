// Which kernel a machine runs, and how a job is cut into parts. Everything but XLA.
#pragma once
#include <cstdlib>
#include <cstring>

#include "parallel.h"

namespace jaxrnn {

// Bytes that a thread keeps from call to call; null where the system has no more.
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
    return base_;
  }

  void done() {  // gives back what is too much to keep
    if (size_ > KEPT) {
      std::free(base_);
      base_ = nullptr;
      size_ = 0;
    }
  }

 private:
  static constexpr std::size_t PAGE = 4096, KEPT = std::size_t{256} << 20;
  char* base_ = nullptr;
  std::size_t size_ = 0;
};

// The kernel of a cell on this machine, for the best instruction set that it has; null for an unknown cell.
const Kernel* find_kernel(const char* cell, std::size_t length);

// The affine recurrence for the same instruction set, of some columns.
using AffineLoop = void (*)(const Affine&, Rows);
AffineLoop find_affine();

// Floating-point operations of a forward pass.
inline double flops(const Kernel& kernel, const Shape& shape) {
  return 2.0 * kernel.gates * shape.time * shape.batch * shape.hidden * (shape.inputs + shape.hidden);
}

constexpr double WORTH_HELP = 2e7;             // operations that a pool is asked to help with: about 0.3 ms
constexpr Index WORTH_HELP_PACKING = 1 << 19;  // floats

inline bool worth_help(const Kernel& kernel, const Shape& shape) { return flops(kernel, shape) >= WORTH_HELP; }
inline bool worth_help_packing(const Kernel& kernel, const Shape& shape) {
  return kernel.gates * shape.hidden * (shape.inputs + shape.hidden) >= WORTH_HELP_PACKING;
}

// Each row of a forward pass stands by itself, so that any cut gives the same bits.
template <class Pool>
bool run(const Kernel& kernel, const Forward& job, Pool& pool) {
  const Shape& shape = job.shape;
  const bool help = worth_help(kernel, shape);
  const Index most = shape.batch / 2 > 1 ? shape.batch / 2 : 1, threads = help ? pool.num_threads() : 1;
  const Index parts = threads < 1 ? 1 : threads < most ? threads : most;
  const std::size_t shared = kernel.forward_shared(shape);
  const std::size_t own = kernel.forward_own(shape, {0, (shape.batch + parts - 1) / parts});
  static thread_local Scratch scratch;
  char* base = scratch.take(shared + own * parts);
  if (!base) return false;
  parallel(pool, parts, help && worth_help_packing(kernel, shape),
           [&](Index i) { kernel.forward_pack(job, base, {i, parts}); });
  parallel(pool, parts, help, [&](Index i) {
    kernel.forward_run(job, base, base + shared + own * i, Share{i, parts}.cut(shape.batch));
  });
  scratch.done();
  return true;
}

// The columns of an affine recurrence stand by themselves too. They are cut where vectors end.
template <class Pool>
void run(const Affine& job, Pool& pool) {
  constexpr Index WORTH_HELP = 1 << 17;  // elements, about 0.1 ms
  const Index vectors = padded(job.width) / PADDED_TO, threads = pool.num_threads();
  const bool help = job.time * job.width >= WORTH_HELP && threads > 1;
  const Index parts = !help ? 1 : threads < vectors ? threads : vectors;
  const AffineLoop affine = find_affine();
  parallel(pool, parts, help, [&](Index i) {
    const Rows cut = Share{i, parts}.cut(vectors);
    const Index last = cut.last * PADDED_TO;
    affine(job, {cut.first * PADDED_TO, last < job.width ? last : job.width});
  });
}

// Parts of a batch that sum gradients for weights. They follow from the shape, never from the number of threads: so do
// the bits of the sums.
inline Index parts_of(const Kernel& kernel, const Shape& shape) {
  constexpr Index MOST = 16, ROWS = 16, STEPS = 512;  // of a part: rows at least, and steps of a row
  const auto least = [](Index a, Index b) { return a < b ? a : b; };
  if (!worth_help(kernel, shape) || shape.batch < 4) return 1;
  if (shape.groups > 1) return least(shape.groups, MOST);
  const Index parts = least(least(shape.batch / ROWS, shape.batch * shape.time / STEPS), MOST);
  return parts < 2 ? 2 : parts;
}

template <class Pool>
bool run(const Kernel& kernel, const Backward& job, Pool& pool) {
  const Shape& shape = job.shape;
  const Index parts = parts_of(kernel, shape), group = shape.batch / shape.groups;
  const bool grouped = shape.groups > 1, help = worth_help(kernel, shape);
  const bool help_packing = help && worth_help_packing(kernel, shape);
  const auto rows = [&](Index i) {
    const Rows cut = Share{i, parts}.cut(grouped ? shape.groups : shape.batch);
    return grouped ? Rows{cut.first * group, cut.last * group} : cut;
  };
  std::size_t own = 0;
  for (Index i = 0; i < parts; i++) {
    const std::size_t needed = kernel.backward_own(shape, rows(i));
    own = own < needed ? needed : own;
  }
  const Index summed = grouped ? shape.groups : parts;  // one alone is summed in place
  const std::size_t shared = kernel.backward_shared(shape), sums = summed > 1 ? kernel.backward_sums(shape) : 0;
  static thread_local Scratch scratch;
  char* base = scratch.take(shared + sums * summed + own * parts);
  if (!base) return false;
  char *sum = base + shared, *each = sum + sums * summed;
  parallel(pool, parts, help_packing, [&](Index i) { kernel.backward_pack(job, base, {i, parts}); });
  parallel(pool, parts, help, [&](Index i) {
    const Rows mine = rows(i);
    char* to = sums ? sum + sums * (grouped ? mine.first / group : i) : nullptr;
    kernel.backward_run(job, base, each + own * i, to, mine);
  });
  if (sums) {
    const Index each_group = grouped ? 1 : parts;
    parallel(pool, parts, help_packing, [&](Index i) { kernel.backward_sum(job, sum, each_group, {i, parts}); });
  }
  scratch.done();
  return true;
}

}  // namespace jaxrnn
