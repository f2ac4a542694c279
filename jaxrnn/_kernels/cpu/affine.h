// The affine recurrence, s_t = a_t s_{t-1} + b_t, elementwise.
#pragma once
#include "vector.h"

namespace jaxrnn::JAXRNN_ISA {

// Crosses time with some columns, row by row as memory lies; the row before is in the cache still. Where a_t is zero a
// column begins anew, whatever it was: infinity and NaN do not pass.
extern void affine(const Affine& job, Rows columns) {
  const float* before = job.state;
  for (Index s = 0; s < job.time; s++) {
    const Index row = (job.reverse ? job.time - 1 - s : s) * job.width;
    for (Index i = columns.first; i < columns.last; i += LANES) {
      const Index lanes = columns.last - i;
      const Vector a = load(job.a + row + i, lanes), old = load(before + i, lanes);
      store(job.out + row + i, (a == 0.0f ? Vector{} : a * old) + load(job.b + row + i, lanes), lanes);
    }
    before = job.out + row;
  }
}

}  // namespace jaxrnn::JAXRNN_ISA
