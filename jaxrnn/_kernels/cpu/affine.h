// The affine recurrence, s_t = a_t s_{t-1} + b_t, elementwise.
#pragma once
#include "numbers.h"

namespace jaxrnn::JAXRNN_ISA {

// Runs some columns over time, row by row in the order of memory, with the state in float32. Where a_t is zero the
// state is reset, even from infinity or NaN.
extern void affine(const Affine& job, Rows columns) {
  constexpr Index BLOCK = 1024;  // columns at a time: a page of state
  float state[BLOCK];
  for (Index first = columns.first; first < columns.last; first += BLOCK) {
    const Index count = columns.last - first < BLOCK ? columns.last - first : BLOCK;
    for (Index i = 0; i < count; i += LANES) store(state + i, load(job.state + (first + i), count - i));
    for (Index s = 0; s < job.time; s++) {
      const Index row = (job.reverse ? job.time - 1 - s : s) * job.width + first;
      for (Index i = 0; i < count; i += LANES) {
        const Vector a = load(job.a + (row + i), count - i), previous = load(state + i);
        const Vector next = (a == 0.0f ? Vector{} : a * previous) + load(job.b + (row + i), count - i);
        store(state + i, next);
        store(job.out + (row + i), next, count - i);
      }
    }
  }
}

}  // namespace jaxrnn::JAXRNN_ISA
