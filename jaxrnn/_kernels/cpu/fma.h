// Matmuls by the fused multiply-add of the vector units, in float32.
//
// A block of rows times some vectors is summed in registers. The weights are taken in chunks of k that stay in the
// first-level cache while all rows meet them.
#pragma once
#include "panels.h"

namespace jaxrnn::JAXRNN_ISA {

// Calls body(first row, Count<rows>) for blocks of at most MAX rows, as equal as possible.
template <int MAX, class Body>
INLINE void in_blocks(Index rows, Body&& body) {
  const Index blocks = (rows + MAX - 1) / MAX;
  for (Index i = 0; i < blocks; i++) {
    const Index first = rows * i / blocks, count = rows * (i + 1) / blocks - first;
    switch (count) {
      case 1: body(first, Count<1>{}); break;
      case 2: body(first, Count<2>{}); break;
      case 3: body(first, Count<3>{}); break;
      case 4: if constexpr (MAX >= 4) body(first, Count<4>{}); break;
      case 5: if constexpr (MAX >= 5) body(first, Count<5>{}); break;
      case 6: if constexpr (MAX >= 6) body(first, Count<6>{}); break;
      case 7: if constexpr (MAX >= 7) body(first, Count<7>{}); break;
      case 8: if constexpr (MAX >= 8) body(first, Count<8>{}); break;
    }
  }
}

// A right operand: where the vectors of each k are. Packed ones lie together.
struct PackedRows {
  const float* at;
  Index vectors;

  Index step() const { return vectors * LANES; }  // floats from a k to the next
  const float* vector(int v) const { return at + v * LANES; }
};

// The vectors of one panel of unpacked weights (depth, G, H).
struct WeightRows {
  const float* at;
  Index row, offset[4];

  Index step() const { return row; }
  const float* vector(int v) const { return at + offset[v]; }
};

// Adds to the sums of M rows and V vectors the products of `depth`. Each sum has SPLIT accumulators, which take the
// products in turn: one row alone has too few sums to hide the latency of an addition.
template <int M, int V, int SPLIT, class Right>
__attribute__((noinline)) static void multiply_block(Operand<const float> a, Right right, Depth depth, float* sums) {
  Vector acc[SPLIT][M][V] = {};
  const float* row[M];
  const Index step = right.step();
  UNROLL for (int m = 0; m < M; m++) {
    row[m] = a.at + m * a.row;
    UNROLL for (int v = 0; v < V; v++) acc[0][m][v] = load(sums + m * TILE + v * LANES);
  }
  const auto add = [&](Index k, int split) {
    Vector weights[V];
    UNROLL for (int v = 0; v < V; v++) weights[v] = load(right.vector(v));
    UNROLL for (int m = 0; m < M; m++) {
      const Vector x = splat(row[m][k]);
      UNROLL for (int v = 0; v < V; v++) acc[split][m][v] += x * weights[v];
    }
    right.at += step;
  };
  for (Index left = depth.total; left > 0; left -= depth.segment) {
    const Index count = left < depth.segment ? left : depth.segment;
    Index k = 0;
    for (; k + SPLIT <= count; k += SPLIT) {
      UNROLL for (int split = 0; split < SPLIT; split++) add(k + split, split);
    }
    for (; k < count; k++) add(k, 0);
    UNROLL for (int m = 0; m < M; m++) row[m] += a.segment;
  }
  UNROLL for (int m = 0; m < M; m++) {
    UNROLL for (int v = 0; v < V; v++) {
      Vector sum = acc[0][m][v];
      UNROLL for (int split = 1; split < SPLIT; split++) sum += acc[split][m][v];
      store(sums + m * TILE + v * LANES, sum);
    }
  }
}

struct Fma {
  using Element = float;
  static constexpr Index VECTOR = LANES;  // elements from a vector of a panel to the next
  static constexpr int PLANES = 1;
  static constexpr Index MIN_ROWS = 2;              // of a part
  static constexpr double MIN_SHARED_FLOPS = 1e6;  // of a step that threads share: some 10 us

  // A delta's row has all four vectors; those that have no weights are left out.
  static constexpr Index delta_offset(int first) { return first * LANES; }
  static constexpr Index delta_depth(int width) { return width * LANES; }

  static constexpr Index packed(Index depth, int width) { return depth * width * LANES; }
  static constexpr Index padded_rows(Index rows) { return rows; }
  static constexpr Index padded_depth(Index depth) { return depth; }
  static constexpr bool takes(Dtype dtype) { return dtype == Dtype::F32; }  // as elements
  static void begin() {}
  static void end() {}

  INLINE void store_elements(float* to, Index, Vector v) { JAXRNN_ISA::store(to, v); }

  // Packs some rows of weights (depth, G, H), of preactivations FIRST to FIRST + WIDTH, for the units of a panel, to
  // (depth, WIDTH, LANES).
  template <class Cell, int FIRST>
  static void pack(Array weights, Rows depth, Index hidden, Index panel, float* to, Index) {
    for (Index k = depth.first; k < depth.last; k++) {
      for (int v = 0; v < Cell::WIDTH; v++) {
        const Index unit = Panels<Cell>::unit(panel, v);
        const Array from = weights + ((k * Cell::GATES + Cell::GATE[FIRST + v]) * hidden + unit);
        JAXRNN_ISA::store(to + (k * Cell::WIDTH + v) * LANES, load(from, hidden - unit));
      }
    }
  }

  // Packs the transpose of a panel of weights (features, G, H), with which the deltas of those preactivations are
  // multiplied, to (tile of features, panel, WIDTH, LANES, TILE). Its order over k is that of the deltas.
  template <class Cell, int FIRST>
  static void pack_transposed(Array weights, Index features, Index hidden, Index panel, Rows tiles, float* to) {
    const Index panels = Panels<Cell>::count(hidden);
    for (Index tile = tiles.first; tile < tiles.last; tile++) {
      for (int v = 0; v < Cell::WIDTH; v++) {
        const Index unit = Panels<Cell>::unit(panel, v);
        float* block = to + ((tile * panels + panel) * Cell::WIDTH + v) * LANES * TILE;
        for (Index n = 0; n < TILE; n += LANES) {
          Vector rows[LANES];
          for (Index i = 0; i < LANES; i++) {
            const Index feature = tile * TILE + n + i;
            const Array from = weights + ((feature * Cell::GATES + Cell::GATE[FIRST + v]) * hidden + unit);
            rows[i] = feature < features ? load(from, hidden - unit) : Vector{};
          }
          transpose(rows);
          for (Index lane = 0; lane < LANES; lane++) JAXRNN_ISA::store(block + lane * TILE + n, rows[lane]);
        }
      }
    }
  }

  // Returns deltas (rows, TILE) as a right operand, which they are already.
  static constexpr Index right(Index) { return 0; }
  static Panel<float> pack_right(const float* deltas, Index, Index, float*) { return {deltas, 4, 0}; }

  // Adds to sums (rows, TILE) the product of the rows and WIDTH vectors of a panel. `alone`: the batch is one row.
  template <int WIDTH>
  static void multiply(Operand<const float> a, Index rows, Panel<float> panel, Depth depth, float* sums, bool alone) {
    multiply_rows<WIDTH>(a, rows, PackedRows{panel.at, panel.vectors}, depth, sums, alone);
  }

  // Returns whether `multiply_weights` takes these weights.
  template <class Cell>
  static bool takes_weights(Array weights, Index hidden) {
    return weights.dtype == Dtype::F32 && hidden % (Cell::UNITS * LANES) == 0;
  }

  // The same for weights (depth, G, H) as they are, of preactivations FIRST to FIRST + WIDTH, for the units of a panel.
  template <class Cell, int FIRST>
  static void multiply_weights(Operand<const float> a, Index rows, Array weights, Index hidden, Index panel,
                               Depth depth, float* sums, bool alone) {
    WeightRows right{reinterpret_cast<const float*>(weights.data), Cell::GATES * hidden, {}};
    for (int v = 0; v < Cell::WIDTH; v++) {
      right.offset[v] = Cell::GATE[FIRST + v] * hidden + Panels<Cell>::unit(panel, v);
    }
    multiply_rows<Cell::WIDTH>(a, rows, right, depth, sums, alone);
  }

 private:
  template <int WIDTH, class Right>
  static void multiply_rows(Operand<const float> a, Index rows, Right right, Depth depth, float* sums, bool alone) {
    constexpr Index BYTES = WIDTH * LANES * static_cast<Index>(sizeof(float));
    const Index fits = caches().l1 / 2 / BYTES, segments = fits / depth.segment > 1 ? fits / depth.segment : 1;
    const float* const first = right.at;
    for (Index k = 0; k < depth.total; k += segments * depth.segment) {
      const Index left = depth.total - k, all = segments * depth.segment;
      const Depth chunk{left < all ? left : all, depth.segment};
      const Operand<const float> from{a.at + k / depth.segment * a.segment, a.row, a.segment, 0};
      right.at = first + k * right.step();
      multiply_chunk<WIDTH>(from, rows, right, chunk, sums, alone);
    }
  }

  template <int WIDTH, class Right>
  static void multiply_chunk(Operand<const float> a, Index rows, Right right, Depth depth, float* sums, bool alone) {
    if (alone) return multiply_block<1, WIDTH, 2>(a, right, depth, sums);
    constexpr int MAX = REGISTERS == 32 ? (WIDTH == 4 ? 6 : 8) : (WIDTH == 4 ? 3 : 4);
    in_blocks<MAX>(rows, [&](Index i, auto m) {
      multiply_block<decltype(m)::value, WIDTH, 1>(a.from_row(i), right, depth, sums + i * TILE);
    });
  }
};

}  // namespace jaxrnn::JAXRNN_ISA
