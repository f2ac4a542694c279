// A register tile, and weights packed for it.
//
// A tile is M rows of four vectors. It is multiplied with a panel of weights: for every k, the vectors of row k of the
// weights for the units of the panel lie next to each other, so that memory is read in one direction only.
#pragma once
#include "vector.h"

namespace jaxrnn::JAXRNN_ISA {

constexpr Index TILE = 4 * LANES;  // the floats of one row of a tile

constexpr Index tiles(Index size) { return (size + TILE - 1) / TILE; }

// acc[m][FIRST + v] += sum over k of a[m][k * a_step] * panel[k * panel_step + v * LANES], for v < WIDTH.
template <int FIRST, int WIDTH, int M>
INLINE void accumulate(Vector (&acc)[M][4], const float* const (&a)[M], Index a_step, const float* panel,
                       Index panel_step, Index depth) {
  for (Index k = 0; k < depth; k++, panel += panel_step) {
    Vector row[WIDTH];
    UNROLL for (int v = 0; v < WIDTH; v++) row[v] = load(panel + v * LANES);
    UNROLL for (int m = 0; m < M; m++) {
      const Vector x = splat(a[m][k * a_step]);
      UNROLL for (int v = 0; v < WIDTH; v++) acc[m][FIRST + v] += x * row[v];
    }
  }
}

template <int M>
struct Count {
  static constexpr int value = M;
};

// Calls body(first row, Count<rows>) for blocks of at most ROWS rows, as equal as possible.
template <class Body>
INLINE void in_blocks(Rows rows, Body&& body) {
  const Index blocks = (rows.count() + ROWS - 1) / ROWS;
  for (Index i = 0; i < blocks; i++) {
    const Rows part{rows.first + rows.count() * i / blocks, rows.first + rows.count() * (i + 1) / blocks};
    switch (part.count()) {
      case 1: body(part.first, Count<1>{}); break;
      case 2: body(part.first, Count<2>{}); break;
      case 3: body(part.first, Count<3>{}); break;
#if JAXRNN_ROWS == 6
      case 4: body(part.first, Count<4>{}); break;
      case 5: body(part.first, Count<5>{}); break;
      case 6: body(part.first, Count<6>{}); break;
#endif
    }
  }
}

// The layout of the units of a cell in panels.
template <class Cell>
struct Panels {
  static constexpr Index count(Index hidden) { return (hidden + Cell::UNITS * LANES - 1) / (Cell::UNITS * LANES); }

  // Returns the first unit of vector v of a panel.
  static constexpr Index unit(Index panel, int v) {
    return (panel * Cell::UNITS + (Cell::UNITS == 1 ? 0 : v)) * LANES;
  }
};

// Packs weights (depth, G, H), of preactivations FIRST to FIRST + WIDTH, into panels (panel, depth, WIDTH, LANES).
template <class Cell, int FIRST>
void pack(const float* weights, Index depth, Index hidden, Rows panels, float* to) {
  for (Index panel = panels.first; panel < panels.last; panel++) {
    for (Index k = 0; k < depth; k++) {
      for (int v = 0; v < Cell::WIDTH; v++) {
        const Index unit = Panels<Cell>::unit(panel, v);
        const float* from = weights + (k * Cell::GATES + Cell::GATE[FIRST + v]) * hidden + unit;
        float* at = to + ((panel * depth + k) * Cell::WIDTH + v) * LANES;
        store(at, unit < hidden ? load(from, hidden - unit) : Vector{});
      }
    }
  }
}

// Packs the transpose of weights (features, G, H), with which the deltas of those preactivations are multiplied, to
// (tile of features, panel, WIDTH, LANES, TILE). Its order over k is that of the deltas.
template <class Cell, int FIRST>
void pack_transposed(const float* weights, Index features, Index hidden, Rows tiles, float* to) {
  const Index panels = Panels<Cell>::count(hidden);
  for (Index tile = tiles.first; tile < tiles.last; tile++) {
    for (Index panel = 0; panel < panels; panel++) {
      for (int v = 0; v < Cell::WIDTH; v++) {
        const Index unit = Panels<Cell>::unit(panel, v);
        float* block = to + ((tile * panels + panel) * Cell::WIDTH + v) * LANES * TILE;
        for (Index n = 0; n < TILE; n += LANES) {
          Vector rows[LANES];
          for (Index i = 0; i < LANES; i++) {
            const Index feature = tile * TILE + n + i;
            const float* from = weights + (feature * Cell::GATES + Cell::GATE[FIRST + v]) * hidden + unit;
            rows[i] = feature < features && unit < hidden ? load(from, hidden - unit) : Vector{};
          }
          transpose(rows);
          for (Index lane = 0; lane < LANES; lane++) store(block + lane * TILE + n, rows[lane]);
        }
      }
    }
  }
}

}  // namespace jaxrnn::JAXRNN_ISA
