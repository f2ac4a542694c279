// The deltas, which are the gradients of the preactivations, and the gradients of weights and inputs computed from
// them.
//
// The deltas of valid rows are buffered for several steps. When there is no room for another step, one matmul adds
// [h | x | 1]^T deltas to the gradients of weights and biases, and one computes the gradients of those inputs.
#pragma once
#include "arena.h"
#include "cells.h"
#include "tile.h"

namespace jaxrnn::JAXRNN_ISA {

template <class Cell>
class Deltas {
  using P = Panels<Cell>;
  static constexpr Index CHUNK = 256, GROUP_CHUNK = 64;  // approximate rows in one matmul for weights

 public:
  static constexpr Index DEPTH = Cell::WIDTH * LANES;  // of one panel of deltas, in a matmul

  // Floats of the sums of the gradients of one set of weights: (panel, [h | x | 1], four preactivations).
  static Index sums(const Shape& shape) { return padded(P::count(shape.hidden) * rows(shape) * TILE); }

  // Holds the deltas of `room` rows of each group of the batch, one group after the other, and after them those of one
  // step, which are preserved across a flush.
  Deltas(Arena& arena, const Shape& shape, Rows part) : shape_(shape), count_(part.count()) {
    const Index wide = shape.groups > 1 ? GROUP_CHUNK : CHUNK;
    group_ = shape.groups > 1 ? shape.batch / shape.groups : count_;
    const Index steps = (wide + group_ - 1) / group_;
    room_ = group_ * (steps < shape.time ? steps : shape.time);
    spare_ = count_ / group_ * room_;
    deltas_ = arena.take<float>(P::count(shape.hidden) * next());
    left_ = arena.take<float>(room_ * padded(rows(shape), ROWS));
    previous_ = arena.take<const float*>(spare_ + count_);
    x_ = arena.take<const float*>(spare_ + count_);
    filled_ = arena.take<Index>(count_ / group_);
  }

  void clear() const {
    std::memset(deltas_, 0, static_cast<std::size_t>(P::count(shape_.hidden) * next()) * sizeof(float));
    for (Index g = 0; g < count_ / group_; g++) filled_[g] = 0;
  }

  // Returns whether there may be no room for another step.
  bool full() const {
    bool none = false;
    for (Index g = 0; g < count_ / group_; g++) none |= filled_[g] + group_ > room_;
    return none;
  }

  // Reserves a place for row `i` of the part, whose h_{t-1} is `previous` and whose input is `x`, and returns it.
  Index place(Index i, const float* previous, const float* x) const {
    const Index g = i / group_, place = g * room_ + filled_[g]++;
    previous_[place] = previous;
    x_[place] = x;
    return place;
  }

  float* at(Index panel, Index place) const { return deltas_ + panel * next() + place * TILE; }
  Index next() const { return (spare_ + count_) * TILE; }  // floats from a panel to the next

  // Adds all deltas to the sums (or overwrites the sums), computes the gradients of the inputs with the transposed
  // weights, and empties the buffer.
  void flush(const Backward& job, const float* input_weights, float* sums, bool overwrite) const {
    for (Index g = 0; g < count_ / group_; g++) {
      const Rows filled{g * room_, g * room_ + filled_[g]};
      add_to_weights(job, filled, sums ? sums + g * Deltas::sums(shape_) : nullptr, overwrite);
      if (job.dxs) add_input_gradients(job, filled, input_weights);
      filled_[g] = 0;
    }
  }

  // Copies the deltas of row `i` to where they survive a flush, and returns that place.
  Index preserve(Index i, Index place) const {
    for (Index panel = 0; panel < P::count(shape_.hidden); panel++) {
      std::memcpy(at(panel, spare_ + i), at(panel, place), TILE * sizeof(float));
    }
    return spare_ + i;
  }

  // Adds the sums of all parts of each group, in their order, and writes them in the layout of the gradients.
  static void sum(const Backward& job, const char* sums, Index parts, Share share) {
    const Shape& shape = job.shape;
    const Index size = Deltas::sums(shape), height = rows(shape);
    const Rows panels = share.cut(P::count(shape.hidden));
    for (Index g = 0; g < shape.groups; g++) {
      const float* from = reinterpret_cast<const float*>(sums) + g * parts * size;
      for (Index panel = panels.first; panel < panels.last; panel++) {
        for (Index row = 0; row < height; row++) {
          for (int v = 0; v < 4; v++) {
            const Place to = gradient(job, g, panel, row, v);
            if (to.lanes <= 0) continue;
            const float* at = from + (panel * height + row) * TILE + v * LANES;
            Vector total = load(at);
            for (Index p = 1; p < parts; p++) total += load(at + p * size);
            store(to.at, total, to.lanes);
          }
        }
      }
    }
  }

 private:
  // A vector in memory, of which the first `lanes` exist.
  struct Place {
    float* at;
    Index lanes;
  };

  static Index rows(const Shape& shape) { return shape.hidden + shape.inputs + 1; }

  // Computes sums += [h | x | 1]^T deltas. The left operand is packed ROWS columns at a time.
  void add_to_weights(const Backward& job, Rows filled, float* sums, bool overwrite) const {
    const Index hidden = shape_.hidden, inputs = shape_.inputs;
    static constexpr float ONE = 1.0f;
    // Calls body(first row of the sums, Count<rows>, which preactivations, source of row k).
    const auto each = [&](auto&& body) {
      in_blocks({0, hidden}, [&](Index i, auto m) {
        body(i, m, Preactivations<Cell::FIRST_RECURRENT, Cell::WIDTH>{}, [&](Index k) { return previous_[k] + i; });
      });
      in_blocks({0, inputs}, [&](Index i, auto m) {
        body(hidden + i, m, Preactivations<Cell::FIRST_INPUT, Cell::WIDTH>{}, [&](Index k) { return x_[k] + i; });
      });
      body(hidden + inputs, Count<1>{}, Preactivations<0, 4>{}, [](Index) { return &ONE; });
    };
    each([&](Index first, auto m, auto, auto&& from) {
      constexpr int M = decltype(m)::value;
      float* to = left_ + first * filled.count();
      for (Index k = filled.first; k < filled.last; k++, to += M) std::memcpy(to, from(k), M * sizeof(float));
    });
    for (Index panel = 0; panel < P::count(hidden); panel++) {
      const float* right = at(panel, filled.first);
      each([&](Index first, auto m, auto preactivations, auto&&) {
        add<decltype(m)::value>(left_ + first * filled.count(), right, filled.count(), preactivations, overwrite,
                                [&](int i, int v) { return sum_at(job, sums, panel, first + i, v); });
      });
    }
  }

  // Returns the place of the gradient of row `row` of [h | x | 1] and preactivation v of a panel; no lanes for none.
  static Place gradient(const Backward& job, Index group, Index panel, Index row, int v) {
    const Index hidden = job.shape.hidden, inputs = job.shape.inputs, unit = P::unit(panel, v);
    const auto of = [&](float* gradients, Index size, Index k) {
      return Place{gradients + ((group * size + k) * Cell::GATES + Cell::GATE[v]) * hidden + unit, hidden - unit};
    };
    const bool from_state = v >= Cell::FIRST_RECURRENT && v < Cell::FIRST_RECURRENT + Cell::WIDTH;
    const bool from_inputs = v >= Cell::FIRST_INPUT && v < Cell::FIRST_INPUT + Cell::WIDTH;
    if (row < hidden) return from_state ? of(job.dw_h, hidden, row) : Place{};
    if (row < hidden + inputs) return from_inputs ? of(job.dw_x, inputs, row - hidden) : Place{};
    if (from_inputs) return of(job.db, 1, 0);
    return {job.dlocal + (group * Cell::FIRST_INPUT + v) * hidden + unit, hidden - unit};
  }

  // Returns the place of a vector of the sums; without memory for sums, it is in the gradients themselves.
  static Place sum_at(const Backward& job, float* sums, Index panel, Index row, int v) {
    if (sums) return {sums + (panel * rows(job.shape) + row) * TILE + v * LANES, LANES};
    return gradient(job, 0, panel, row, v);
  }

  template <int FIRST, int WIDTH>
  struct Preactivations {};

  template <int M, int FIRST, int WIDTH, class Where>
  static void add(const float* left, const float* right, Index depth, Preactivations<FIRST, WIDTH>, bool overwrite,
                  Where&& where) {
    const float* a[M];
    Vector acc[M][4] = {};
    UNROLL for (int m = 0; m < M; m++) {
      a[m] = left + m;
      for (int v = FIRST; v < FIRST + WIDTH && !overwrite; v++) {
        const Place from = where(m, v);
        if (from.lanes > 0) acc[m][v] = load(from.at, from.lanes);
      }
    }
    accumulate<FIRST, WIDTH>(acc, a, M, right + FIRST * LANES, TILE, depth);
    UNROLL for (int m = 0; m < M; m++) {
      UNROLL for (int v = FIRST; v < FIRST + WIDTH; v++) {
        const Place to = where(m, v);
        if (to.lanes > 0) store(to.at, acc[m][v], to.lanes);
      }
    }
  }

  // Computes dx = deltas w_x^T.
  void add_input_gradients(const Backward& job, Rows filled, const float* weights) const {
    for (Index tile = 0; tile < tiles(shape_.inputs); tile++) {
      in_blocks(filled, [&](Index row, auto m) { input_gradients<decltype(m)::value>(job, row, tile, weights); });
    }
  }

  template <int M>
  void input_gradients(const Backward& job, Index row, Index tile, const float* weights) const {
    const Index panels = P::count(shape_.hidden), inputs = shape_.inputs;
    Vector acc[M][4] = {};
    const float* a[M];
    UNROLL for (int m = 0; m < M; m++) a[m] = at(0, row + m) + Cell::FIRST_INPUT * LANES;
    const float* block = weights + tile * panels * DEPTH * TILE;
    for (Index panel = 0; panel < panels; panel++, block += DEPTH * TILE) {
      accumulate<0, 4>(acc, a, 1, block, TILE, DEPTH);
      UNROLL for (int m = 0; m < M; m++) a[m] += next();
    }
    for (int m = 0; m < M; m++) {
      float* to = job.dxs + (x_[row + m] - job.xs);
      for (int v = 0; v < 4; v++) {
        const Index feature = tile * TILE + v * LANES;
        if (feature < inputs) store(to + feature, acc[m][v], inputs - feature);
      }
    }
  }

  const Shape& shape_;
  Index count_, group_, room_, spare_;
  float *deltas_, *left_;
  const float **previous_, **x_;
  Index* filled_;
};

}  // namespace jaxrnn::JAXRNN_ISA
