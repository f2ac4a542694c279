// The layout of the units of a cell in panels, and the operands of a matmul.
//
// Every matmul adds to the sums of a panel, rows of TILE floats (four vectors), the product of some rows and a panel of
// packed weights. There is a way to multiply for vector units (`Fma`) and one for tiles of AMX (`Tiles`). It is a
// struct with the type of an element of its operands, their layout, and `multiply`.
#pragma once
#include "numbers.h"

namespace jaxrnn::JAXRNN_ISA {

constexpr Index TILE = 4 * LANES;  // the floats of one row of sums
constexpr Index BLOCK = 96;        // rows whose sums are kept at a time: a multiple of the rows of all tiles

constexpr Index tiles(Index size) { return (size + TILE - 1) / TILE; }

template <class Cell>
struct Panels {
  static constexpr Index count(Index hidden) { return (hidden + Cell::UNITS * LANES - 1) / (Cell::UNITS * LANES); }

  // Returns the first unit of vector v of a panel.
  static constexpr Index unit(Index panel, int v) {
    return (panel * Cell::UNITS + (Cell::UNITS == 1 ? 0 : v)) * LANES;
  }
};

// Rows of the left operand. Row i begins at `at + i * row`. Its elements lie in segments: the first of each is
// `segment` elements after the first of the one before. A number in several parts has one plane for each. Tiles read
// whole blocks of rows, of which those past the last are not used.
template <class Element>
struct Operand {
  Element* at;
  Index row, segment, plane;

  Operand from_row(Index i) const { return {at + i * row, row, segment, plane}; }
};

// A panel of the right operand, packed, with `vectors` vectors for each k.
template <class Element>
struct Panel {
  const Element* at;
  Index vectors, plane;
};

// The elements of a row that are multiplied, in all and in each segment.
struct Depth {
  Index total, segment;
};

// Floats from a row of a state to the next: a whole number of vectors, and of a size that spreads rows over the sets of
// a cache, since the same units of many rows are used together.
constexpr Index state_row(Index hidden) { return padded(hidden, 32) + 16; }

// Calls body(rows) for at most BLOCK rows at a time.
template <class Body>
INLINE void in_blocks_of_sums(Rows rows, Body&& body) {
  for (Index first = rows.first; first < rows.last; first += BLOCK) {
    body(Rows{first, rows.last - first < BLOCK ? rows.last : first + BLOCK});
  }
}

}  // namespace jaxrnn::JAXRNN_ISA
