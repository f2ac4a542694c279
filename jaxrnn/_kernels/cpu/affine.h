// The affine recurrence, s_t = a_t s_{t-1} + b_t, elementwise.
#pragma once
#include "vector.h"

namespace jaxrnn::JAXRNN_ISA {

// Runs some columns over time, row by row in the order of memory, so that the row before is in the cache. Where a_t is
// zero the state is reset, even from infinity or NaN.
extern void affine(const Affine& job, Rows columns) {
  const float* last = job.state;
  for (Index s = 0; s < job.time; s++) {
    const Index row = (job.reverse ? job.time - 1 - s : s) * job.width;
    for (Index i = columns.first; i < columns.last; i += LANES) {
      const Index lanes = columns.last - i;
      const Vector a = load(job.a + row + i, lanes), previous = load(last + i, lanes);
      store(job.out + row + i, (a == 0.0f ? Vector{} : a * previous) + load(job.b + row + i, lanes), lanes);
    }
    last = job.out + row;
  }
}

}  // namespace jaxrnn::JAXRNN_ISA
