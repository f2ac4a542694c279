// Products of small matrices in a core's caches, summed in registers.
//
// Matrices are row-major, with rows of whole vectors and zeros beyond their last number. The left one may lie in any
// order, since its numbers are taken one by one, so that a transposed left matrix costs nothing.
#pragma once
#include "vector.h"

namespace jaxrnn::JAXRNN_ISA {

constexpr int SIDE = 4;                              // rows of a block of sums
constexpr int WIDTH = REGISTERS == 32 ? 6 : 3;       // vectors of one, at most
constexpr Index GRAIN = LANES > SIDE ? LANES : SIDE;  // of the sizes of matrices

// The terms of a row's sums, for a triangular left matrix: those of the block of SIDE rows are the ones up to its last
// row, before its first, from its first on, or after its last.
enum class Span { ALL, UP_TO, BEFORE, FROM, AFTER };

// The product of two matrices: left(i, k) is left[i * row + k * step].
struct Factor {
  const float* left;
  Index row, step;
  const float* right;
  Index right_row, depth;
  Span span = Span::ALL;

  ALWAYS_INLINE Rows of_block(Index i) const {
    const Index end = i + SIDE < depth ? i + SIDE : depth;
    switch (span) {
      case Span::UP_TO: return {0, end};
      case Span::BEFORE: return {0, i};
      case Span::FROM: return {i, depth};
      case Span::AFTER: return {end, depth};
      default: return {0, depth};
    }
  }
};

// Where sums go, and what they start from: scale * from, or zero where `from` is null. A lower one has the blocks that
// a lower triangle needs.
struct Sums {
  float* at;
  Index row, rows, vectors;
  const float* from = nullptr;
  float scale = 1;
  bool lower = false;
};

// What is done with the sums x of a block last, where L is the left matrix of the last factor: nothing, or x = x + L x
// is solved, for a strictly lower or upper triangle.
enum class Solve { NONE, LOWER, UPPER };

// Computes SIDE rows and V vectors of sums, from row i and a column on.
template <int V, Solve SOLVE>
__attribute__((noinline)) static void sum_block(const Sums& sums, const Factor* factors, int count, Index i,
                                                Index column) {
  Vector acc[SIDE][V] = {};
  if (sums.from) {
    UNROLL for (int m = 0; m < SIDE; m++) {
      const float* from = sums.from + (i + m) * sums.row + column;
      UNROLL for (int v = 0; v < V; v++) acc[m][v] = sums.scale * load(from + v * LANES);
    }
  }
  for (const Factor* f = factors; f != factors + count; f++) {
    const Rows span = f->of_block(i);
    const Index row = f->row, step = f->step, right_row = f->right_row;
    const float *left = f->left + i * row + span.first * step, *right = f->right + span.first * right_row + column;
    for (Index k = span.first; k < span.last; k++, left += step, right += right_row) {
      Vector b[V];
      UNROLL for (int v = 0; v < V; v++) b[v] = load(right + v * LANES);
      UNROLL for (int m = 0; m < SIDE; m++) {
        const Vector a = splat(left[m * row]);
        UNROLL for (int v = 0; v < V; v++) acc[m][v] += a * b[v];
      }
    }
  }
  if constexpr (SOLVE != Solve::NONE) {
    const Factor& last = factors[count - 1];
    const float* left = last.left + i * (last.row + last.step);
    UNROLL for (int n = 1; n < SIDE; n++) {
      const int m = SOLVE == Solve::LOWER ? n : SIDE - 1 - n;
      UNROLL for (int known = 0; known < n; known++) {
        const int j = SOLVE == Solve::LOWER ? known : SIDE - 1 - known;
        const Vector a = splat(left[m * last.row + j * last.step]);
        UNROLL for (int v = 0; v < V; v++) acc[m][v] += a * acc[j][v];
      }
    }
  }
  UNROLL for (int m = 0; m < SIDE; m++) {
    UNROLL for (int v = 0; v < V; v++) store(sums.at + (i + m) * sums.row + column + v * LANES, acc[m][v]);
  }
}

template <Solve SOLVE, int V = WIDTH>
INLINE void sum_vectors(const Sums& sums, const Factor* factors, int count, Index i, Index column, Index vectors) {
  if (vectors == V) return sum_block<V, SOLVE>(sums, factors, count, i, column);
  if constexpr (V > 1) sum_vectors<SOLVE, V - 1>(sums, factors, count, i, column, vectors);
}

// Computes sums of products. A panel of columns is done for all rows, so that its part of the right matrices stays in
// the first-level cache.
template <Solve SOLVE = Solve::NONE, int N>
static void multiply(const Sums& sums, const Factor (&factors)[N]) {
  const Index panels = (sums.vectors + WIDTH - 1) / WIDTH, blocks = (sums.rows + SIDE - 1) / SIDE;
  for (Index panel = 0; panel < panels; panel++) {
    const Index first = sums.vectors * panel / panels, last = sums.vectors * (panel + 1) / panels;
    for (Index block = 0; block < blocks; block++) {
      const Index i = (SOLVE == Solve::UPPER ? blocks - 1 - block : block) * SIDE;
      const Index needed = sums.lower ? (i + SIDE + LANES - 1) / LANES : last;
      const Index vectors = (needed < last ? needed : last) - first;
      if (vectors > 0) sum_vectors<SOLVE>(sums, factors, N, i, first * LANES, vectors);
    }
  }
}

// Transposes a matrix whose sizes are whole vectors.
static void transpose(const float* from, Index from_row, Index rows, Index columns, float* to, Index to_row) {
  for (Index i = 0; i < rows; i += LANES) {
    for (Index j = 0; j < columns; j += LANES) {
      Vector block[LANES];
      UNROLL for (Index n = 0; n < LANES; n++) block[n] = load(from + (i + n) * from_row + j);
      transpose(block);
      UNROLL for (Index n = 0; n < LANES; n++) store(to + (j + n) * to_row + i, block[n]);
    }
  }
}

}  // namespace jaxrnn::JAXRNN_ISA
