// Matmuls by the tiles of AMX: bfloat16 operands, float32 sums.
//
// A tile of sums is 16 rows times one vector. Its left operand is 16 rows of 32 k, its right operand 16 pairs of k for
// 16 units. With PLANES = 2 a float32 is the sum of two bfloat16, its high and its low part, and three products are
// added: high high, high low and low high.
#pragma once
#include "panels.h"

namespace jaxrnn::JAXRNN_ISA {

#if defined(JAXRNN_EMULATED_TILES)
// The same instructions in C++, for tests on a machine without them.
struct Registers {
  union {
    float sums[16][16];
    std::uint16_t elements[16][32];
  } tile[8];
};
static thread_local Registers registers;

INLINE void configure_tiles() {}
INLINE void release_tiles() { std::memset(&registers, 0x7f, sizeof(registers)); }
template <int T>
INLINE void load_tile(const void* from, Index stride) {
  for (int i = 0; i < 16; i++) std::memcpy(registers.tile[T].sums[i], static_cast<const char*>(from) + i * stride, 64);
}
template <int T>
INLINE void store_tile(void* to, Index stride) {
  for (int i = 0; i < 16; i++) std::memcpy(static_cast<char*>(to) + i * stride, registers.tile[T].sums[i], 64);
}
template <int SUMS, int LEFT, int RIGHT>
INLINE void multiply_tiles() {
  const auto& left = registers.tile[LEFT].elements;
  const auto& right = registers.tile[RIGHT].elements;
  const auto number = [](std::uint16_t half) {
    const std::uint32_t bits = static_cast<std::uint32_t>(half) << 16;
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
  };
  for (int k = 0; k < 32; k++) {
    float row[16];
    for (int j = 0; j < 16; j++) row[j] = number(right[k / 2][2 * j + k % 2]);
    for (int i = 0; i < 16; i++) {
      const float x = number(left[i][k]);
      for (int j = 0; j < 16; j++) registers.tile[SUMS].sums[i][j] += x * row[j];
    }
  }
}
#else
// Written as assembly, so that a compiler needs no flag and the number of a tile may be a template's argument.
struct alignas(64) TileConfiguration {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

INLINE void configure_tiles() {
  static const TileConfiguration all;
  asm volatile("ldtilecfg %0" : : "m"(all));
}
INLINE void release_tiles() { asm volatile("tilerelease" : : : "memory"); }
template <int T>
INLINE void load_tile(const void* from, Index stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(T) : "memory");
}
template <int T>
INLINE void store_tile(void* to, Index stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(T) : "memory");
}
template <int SUMS, int LEFT, int RIGHT>
INLINE void multiply_tiles() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(SUMS), "i"(LEFT), "i"(RIGHT));
}
#endif

template <int PARTS>
struct Tiles {
  using Element = std::uint16_t;
  static constexpr int PLANES = PARTS;
  static constexpr Index ROWS = 16, DEPTH = 32, MIN_ROWS = ROWS;
  static constexpr Index VECTOR = ROWS * DEPTH;    // elements of a right tile
  static constexpr double MIN_SHARED_FLOPS = 1e7;  // of a step that threads share: some 10 us

  static constexpr Index delta_offset(int) { return 0; }
  static constexpr Index delta_depth(int) { return TILE; }

  static constexpr Index packed(Index depth, int width) { return padded(depth, DEPTH) * width * LANES; }
  static constexpr Index padded_rows(Index rows) { return padded(rows, ROWS); }
  static constexpr Index padded_depth(Index depth) { return padded(depth, DEPTH); }
  static constexpr bool takes(Dtype dtype) { return PLANES == 1 && dtype == Dtype::BF16; }  // as elements
  static void begin() { configure_tiles(); }
  static void end() { release_tiles(); }

  // Stores one vector as elements, each part in its plane.
  INLINE void store_elements(Element* to, Index plane, Vector v) {
    for (int part = 0; part < PLANES; part++) {
      store_halves(reinterpret_cast<char*>(to + part * plane), part_of(v, part), LANES);
    }
  }

  // Packs some rows of weights (depth, G, H), from a multiple of 32 on, of preactivations FIRST to FIRST + WIDTH, for
  // the units of a panel: (k / 32, WIDTH, tile), each part in its plane.
  template <class Cell, int FIRST>
  static void pack(Array weights, Rows depth, Index hidden, Index panel, Element* to, Index plane) {
    const Index rows = Cell::WIDTH * ROWS;
    for (Index i = depth.first / DEPTH * rows; i < padded(depth.last, DEPTH) / DEPTH * rows; i++) {
      const Index v = i / ROWS % Cell::WIDTH, k = i / ROWS / Cell::WIDTH * DEPTH + i % ROWS * 2;
      const Index unit = Panels<Cell>::unit(panel, static_cast<int>(v));
      const auto row = [&](Index k) {
        const Array from = weights + ((k * Cell::GATES + Cell::GATE[FIRST + v]) * hidden + unit);
        return k < depth.last ? load(from, hidden - unit) : Vector{};
      };
      const Vector even = row(k), odd = row(k + 1);
      for (int part = 0; part < PLANES; part++) {
        store_pairs(to + part * plane + i * DEPTH, part_of(even, part), part_of(odd, part));
      }
    }
  }

  // Packs the transpose of a panel of weights (features, G, H), with which the deltas of all preactivations are
  // multiplied, to (tile of features, part, panel, k / 32, 4, tile); it is zero for preactivations other than FIRST to
  // FIRST + WIDTH.
  template <class Cell, int FIRST>
  static void pack_transposed(Array weights, Index features, Index hidden, Index panel, Rows tiles, Element* to) {
    const Index panels = Panels<Cell>::count(hidden), plane = panels * TILE * TILE;
    for (Index tile = tiles.first; tile < tiles.last; tile++) {
      for (Index i = 0; i < 8; i++) {
        const Index block = i / 4, first = tile * TILE + i % 4 * LANES;
        for (int part = 0; part < PLANES; part++) {
          Vector rows[LANES];  // of a feature: 16 pairs of its weights
          for (Index n = 0; n < LANES; n++) {
            Halves halves[2] = {};
            for (int j = 0; j < 2; j++) {
              const int v = static_cast<int>(2 * block) + j;
              if (v < FIRST || v >= FIRST + Cell::WIDTH || first + n >= features) continue;
              const Index unit = Panels<Cell>::unit(panel, v);
              const Array from = weights + (((first + n) * Cell::GATES + Cell::GATE[v]) * hidden + unit);
              halves[j] = __builtin_convertvector(part_of(load(from, hidden - unit), part), Halves);
            }
            std::memcpy(&rows[n], halves, sizeof(halves));
          }
          transpose(rows);
          Element* at = to + (tile * PLANES + part) * plane + (panel * 8 + i) * VECTOR;
          for (Index pair = 0; pair < ROWS; pair++) std::memcpy(at + pair * DEPTH, &rows[pair], sizeof(Vector));
        }
      }
    }
  }

  // Packs deltas (rows, TILE) as a right operand, (part, k / 32, 4, tile).
  static constexpr Index right(Index rows) { return packed(rows, 4) * PLANES; }
  static Panel<Element> pack_right(const Element* deltas, Index plane, Index rows, Element* to) {
    const Index blocks = padded(rows, DEPTH) / DEPTH, size = right(rows) / PLANES;
    for (int part = 0; part < PLANES; part++) {
      for (Index i = 0; i < blocks * 4 * ROWS; i++) {
        const Index v = i / ROWS % 4, k = i / ROWS / 4 * DEPTH + i % ROWS * 2;
        const auto row = [&](Index k) {
          const Element* from = deltas + part * plane + k * TILE + v * LANES;
          return k < rows ? load_halves(reinterpret_cast<const char*>(from), LANES) : Bits{};
        };
        store_pairs(to + part * size + i * DEPTH, row(k), row(k + 1));
      }
    }
    return {to, 4, size};
  }

  // Weights are always packed.
  template <class Cell>
  static constexpr bool takes_weights(Array, Index) {
    return false;
  }
  template <class Cell, int FIRST>
  static void multiply_weights(Operand<const Element>, Index, Array, Index, Index, Depth, float*, bool) {}

  // Adds to sums (rows, TILE) the product of the rows and WIDTH vectors of a panel. The rows, the sums and the depth
  // are padded to whole tiles: rows with anything, the depth with zeros.
  template <int WIDTH>
  static void multiply(Operand<const Element> a, Index rows, Panel<Element> panel, Depth depth, float* sums, bool) {
    for (Index i = 0; i < rows; i += 2 * ROWS, sums += 2 * ROWS * TILE) {
      const Operand<const Element> from = a.from_row(i);
      if (rows - i > ROWS) {
        multiply_block<2, 2>(from, panel, depth, sums);
        const Panel<Element> rest{panel.at + 2 * VECTOR, panel.vectors, panel.plane};
        multiply_block<2, WIDTH - 2>(from, rest, depth, sums + 2 * LANES);
      } else {
        multiply_block<1, WIDTH>(from, panel, depth, sums);
      }
    }
  }

 private:
  // Returns the high or the low part of each lane, rounded to bfloat16, in the low half of the lane. The low part of
  // what is not finite is zero.
  INLINE Bits part_of(Vector v, int part) {
    const Bits high = to_bfloat16(v);
    if (part == 0) return high;
    const Vector low = v - from_bfloat16(high);
    return to_bfloat16(low - low == 0.0f ? low : Vector{});
  }

  INLINE void store_pairs(Element* to, Bits even, Bits odd) {
    const Bits pairs = even | odd << 16;
    std::memcpy(to, &pairs, sizeof(pairs));
  }

  // The tiles of sums are 0 to 3, the left ones 4 and 5, the right ones 6 and 7.
  template <int R, int V>
  static void multiply_block(Operand<const Element> a, Panel<Element> panel, Depth depth, float* sums) {
    constexpr Index STRIDE = TILE * static_cast<Index>(sizeof(float));
    for_each<R * V>([&](auto n) {
      constexpr int N = decltype(n)::value;
      load_tile<N>(sums + N / V * ROWS * TILE + N % V * LANES, STRIDE);
    });
    add<R, V>(a, panel.at, panel.vectors, depth);
    if (PLANES > 1) {
      add<R, V>(a, panel.at + panel.plane, panel.vectors, depth);
      add<R, V>({a.at + a.plane, a.row, a.segment, a.plane}, panel.at, panel.vectors, depth);
    }
    for_each<R * V>([&](auto n) {
      constexpr int N = decltype(n)::value;
      store_tile<N>(sums + N / V * ROWS * TILE + N % V * LANES, STRIDE);
    });
  }

  // Adds the products of R tiles of rows and V vectors to the tiles of sums.
  template <int R, int V>
  INLINE void add(Operand<const Element> a, const Element* right, Index vectors, Depth depth) {
    const Index stride = a.row * static_cast<Index>(sizeof(Element));
    const Element* left = a.at;
    for (Index first = 0; first < depth.total; first += depth.segment, left += a.segment) {
      const Index remaining = depth.total - first, count = remaining < depth.segment ? remaining : depth.segment;
      for (Index k = 0; k < count; k += DEPTH, right += vectors * VECTOR) {
        load_tile<4>(left + k, stride);
        if constexpr (R == 2) load_tile<5>(left + ROWS * a.row + k, stride);
        for_each<V>([&](auto n) {
          constexpr int v = decltype(n)::value, RIGHT = 6 + v % 2;
          load_tile<RIGHT>(right + v * VECTOR, DEPTH * static_cast<Index>(sizeof(Element)));
          multiply_tiles<v, 4, RIGHT>();
          if constexpr (R == 2) multiply_tiles<V + v, 5, RIGHT>();
        });
      }
    }
  }

  template <int N, class Body>
  INLINE void for_each(Body&& body) {
    if constexpr (N > 0) {
      for_each<N - 1>(body);
      body(Count<N - 1>{});
    }
  }
};

}  // namespace jaxrnn::JAXRNN_ISA
