// The deltas, which are the gradients of the preactivations, and the gradients of weights and inputs computed from
// them.
//
// The deltas of valid rows are buffered for several steps. When there is no room for another step, one matmul adds
// [h | x | 1]^T deltas to the gradients of weights and biases, and one computes the gradients of those inputs.
#pragma once
#include "arena.h"
#include "cells.h"
#include "crew.h"
#include "panels.h"

namespace jaxrnn::JAXRNN_ISA {

template <class Cell, class Engine>
class Deltas {
  using P = Panels<Cell>;
  using Element = typename Engine::Element;
  static constexpr Index CHUNK = 256, GROUP_CHUNK = 64;  // approximate rows in one matmul for weights
  static constexpr Index MARGIN = 32;                    // rows past the last that a matmul may read

 public:
  static constexpr Index DEPTH = Engine::delta_depth(Cell::WIDTH);  // of one panel of deltas, in a matmul

  // Floats of the sums of the gradients of one set of weights: (panel, [h | x | 1], four preactivations).
  static Index sums(const Shape& shape) { return padded(P::count(shape.hidden) * height(shape) * TILE); }

  // Holds the deltas of `room` rows of each group of the batch, one group after the other, and after them those of one
  // step, which are preserved across a flush.
  Deltas(Arena& arena, const Shape& shape, Rows part, Index threads) : shape_(shape), count_(part.count()) {
    const Index wide = shape.groups > 1 ? GROUP_CHUNK : CHUNK, panels = P::count(shape.hidden);
    group_ = shape.groups > 1 ? shape.batch / shape.groups : count_;
    const Index steps = (wide + group_ - 1) / group_;
    room_ = group_ * (steps < shape.time ? steps : shape.time);
    spare_ = count_ / group_ * room_;
    deltas_ = arena.take<Element>(panels * next() * Engine::PLANES);
    const Index row = padded(room_, 32) + 32, rows = height(shape) + MARGIN;
    left_ = {arena.take<Element>(rows * row * Engine::PLANES), row, room_, rows * row};
    right_size_ = padded(Engine::right(room_), 32);
    right_ = arena.take<Element>(threads * right_size_);
    sums_ = arena.take<float>(threads * BLOCK * TILE);
    previous_ = arena.take<Array>(spare_);
    x_ = arena.take<Index>(spare_);
    filled_ = arena.take<Index>(count_ / group_);
  }

  // Empties the buffer, and sets a share of it to zero. Lanes past the last unit stay zero, as the weights that they
  // meet: no residual is loaded for them.
  void empty() const {
    for (Index g = 0; g < count_ / group_; g++) filled_[g] = 0;
  }
  void clear(Share share) const {
    const Rows mine = share.cut(plane() * Engine::PLANES);
    std::memset(deltas_ + mine.first, 0, static_cast<std::size_t>(mine.count()) * sizeof(Element));
  }

  // Returns whether there may be no room for another step.
  bool full() const {
    bool none = false;
    for (Index g = 0; g < count_ / group_; g++) none |= filled_[g] + group_ > room_;
    return none;
  }

  // Reserves a place for row `i` of the part, whose h_{t-1} is `previous` and whose inputs are row x of xs.
  Index place(Index i, Array previous, Index x) const {
    const Index g = i / group_, place = g * room_ + filled_[g]++;
    previous_[place] = previous;
    x_[place] = x;
    return place;
  }

  // Stores one vector of deltas, of preactivation v of a panel.
  void set(Index panel, Index place, Index v, Vector delta) const {
    Engine::store_elements(at(panel, place) + v * LANES, plane(), delta);
  }

  // Returns the deltas of places from `first` on as a left operand. `first_preactivation`: of those that have weights.
  Operand<const Element> operand(Index first, int first_preactivation) const {
    return {at(0, first) + Engine::delta_offset(first_preactivation), TILE, next(), plane()};
  }

  // Copies the deltas of some places next to each other, to where they survive a flush. Returns the first place.
  Index preserve(const Index* places, Index count) const {
    for (int part = 0; part < Engine::PLANES; part++) {
      for (Index panel = 0; panel < P::count(shape_.hidden); panel++) {
        for (Index i = 0; i < count; i++) {
          const Element* from = at(panel, places[i]) + part * plane();
          std::memmove(at(panel, spare_ + i) + part * plane(), from, TILE * sizeof(Element));
        }
      }
    }
    return spare_;
  }

  // Adds all deltas to the sums, computes the gradients of the inputs with the transposed weights, and empties the
  // buffer.
  void flush(const Backward& job, const Element* input_weights, float* sums, Crew& crew) const {
    for (Index g = 0; g < count_ / group_; g++) {
      const Rows filled{g * room_, g * room_ + filled_[g]};
      filled_[g] = 0;
      if (filled.count() == 0) continue;
      crew([&](Share share) { transpose_all(job, filled, share); });
      crew([&](Share share) {
        add_to_weights(filled, sums + g * Deltas::sums(shape_), share);
        if (job.dxs) add_input_gradients(job, filled, input_weights, share);
      });
    }
  }

  // Adds the sums of all parts of each group, in their order, and writes a share in the layout of the gradients.
  static void sum(const Backward& job, const char* sums, Index parts, Share share) {
    const Shape& shape = job.shape;
    const Index size = Deltas::sums(shape), hidden = shape.hidden;
    const Rows mine = share.cut(P::count(hidden));
    const Index first_x = Engine::padded_rows(hidden), first_one = first_x + Engine::padded_rows(shape.inputs);
    for (Index g = 0; g < shape.groups; g++) {
      // Writes row k of the sums of one preactivation, of the units of a panel.
      const auto write = [&](Index panel, Index k, int v, Array to) {
        const Index unit = P::unit(panel, v);
        const float* at = reinterpret_cast<const float*>(sums) + g * parts * size +
                          (panel * height(shape) + k) * TILE + v * LANES;
        Vector total = load(at);
        for (Index part = 1; part < parts; part++) total += load(at + part * size);
        store(to + unit, total, hidden - unit);
      };
      // Writes the gradient of weights (rows, G, H), of the preactivations from `first_v` on: some rows of all panels
      // at a time, since the same rows of two panels are far apart.
      const auto write_weights = [&](Index first, Index rows, int first_v, Array to) {
        constexpr Index TOGETHER = 8;
        for (Index block = 0; block < rows; block += TOGETHER) {
          for (Index panel = mine.first; panel < mine.last; panel++) {
            for (Index k = block; k < block + TOGETHER && k < rows; k++) {
              for (int v = first_v; v < first_v + Cell::WIDTH; v++) {
                write(panel, first + k, v, to + ((g * rows + k) * Cell::GATES + Cell::GATE[v]) * hidden);
              }
            }
          }
        }
      };
      write_weights(0, hidden, Cell::FIRST_RECURRENT, job.dw_h);
      write_weights(first_x, shape.inputs, Cell::FIRST_INPUT, job.dw_x);
      for (Index panel = mine.first; panel < mine.last; panel++) {
        for (int v = 0; v < 4; v++) {
          const Array bias = v < Cell::FIRST_INPUT ? job.dlocal + (g * Cell::FIRST_INPUT + v) * hidden
                                                   : job.db + (g * Cell::GATES + Cell::GATE[v]) * hidden;
          write(panel, first_one, v, bias);
        }
      }
    }
  }

 private:
  // Rows of [h | x | 1], each part padded to whole tiles.
  static Index height(const Shape& shape) {
    return Engine::padded_rows(shape.hidden) + Engine::padded_rows(shape.inputs) + Engine::padded_rows(1);
  }

  Element* at(Index panel, Index place) const { return deltas_ + panel * next() + place * TILE; }
  Index next() const { return (spare_ + count_ + MARGIN) * TILE; }  // elements from a panel to the next
  Index plane() const { return P::count(shape_.hidden) * next(); }

  // Writes a share of the left operand, [h | x | 1]^T.
  void transpose_all(const Backward& job, Rows filled, Share share) const {
    const Index hidden = shape_.hidden, inputs = shape_.inputs;
    const Index first_x = Engine::padded_rows(hidden), first_one = first_x + Engine::padded_rows(inputs);
    transpose_rows(filled, 0, hidden, share, [&](Index place) { return previous_[place]; });
    transpose_rows(filled, first_x, inputs, share, [&](Index place) { return job.xs + x_[place] * inputs; });
    static float ones[LANES] = {1.0f};
    transpose_rows(filled, first_one, 1, share, [&](Index) { return Array{reinterpret_cast<char*>(ones)}; });
  }

  // Computes sums += [h | x | 1]^T deltas for a share of the panels.
  void add_to_weights(Rows filled, float* sums, Share share) const {
    const Index hidden = shape_.hidden, inputs = shape_.inputs;
    const Index first_x = Engine::padded_rows(hidden), first_one = first_x + Engine::padded_rows(inputs);
    const Rows panels = share.cut(P::count(hidden));
    for (Index panel = panels.first; panel < panels.last; panel++) {
      const auto right = Engine::pack_right(at(panel, filled.first), plane(), filled.count(),
                                            right_ + share.index * right_size_);
      float* to = sums + panel * height(shape_) * TILE;
      add<Cell::FIRST_RECURRENT, Cell::WIDTH>(0, hidden, right, filled.count(), to);
      add<Cell::FIRST_INPUT, Cell::WIDTH>(first_x, inputs, right, filled.count(), to);
      add<0, 4>(first_one, 1, right, filled.count(), to);
    }
  }

  template <int FIRST, int WIDTH>
  void add(Index first, Index rows, Panel<Element> right, Index depth, float* sums) const {
    const Operand<const Element> left{left_.from_row(first).at, left_.row, left_.segment, left_.plane};
    Engine::template multiply<WIDTH>(left, rows, {right.at + FIRST * Engine::VECTOR, right.vectors, right.plane},
                                     {depth, room_}, sums + first * TILE + FIRST * LANES, false);
  }

  // Writes rows of `size` numbers, one for each place, as columns of the left operand, from its row `first` on.
  template <class From>
  void transpose_rows(Rows filled, Index first, Index size, Share share, From&& from) const {
    const Rows vectors = share.cut((size + LANES - 1) / LANES);
    for (Index place = 0; place < Engine::padded_depth(filled.count()); place += LANES) {
      for (Index i = vectors.first * LANES; i < vectors.last * LANES; i += LANES) {
        Vector rows[LANES];
        for (Index n = 0; n < LANES; n++) {
          rows[n] = place + n < filled.count() ? load(from(filled.first + place + n) + i, size - i) : Vector{};
        }
        transpose(rows);
        for (Index n = 0; n < LANES && i + n < size; n++) {
          Engine::store_elements(left_.from_row(first + i + n).at + place, left_.plane, rows[n]);
        }
      }
    }
  }

  // Computes dx = deltas w_x^T for a share of the places.
  void add_input_gradients(const Backward& job, Rows filled, const Element* weights, Share share) const {
    const Index panels = P::count(shape_.hidden), inputs = shape_.inputs, size = panels * DEPTH * TILE;
    const Rows blocks = share.cut((filled.count() + MARGIN - 1) / MARGIN);
    const Rows mine{filled.first + blocks.first * MARGIN, filled.first + blocks.last * MARGIN};
    float* sums = sums_ + share.index * BLOCK * TILE;
    for (Index tile = 0; tile < tiles(inputs); tile++) {
      const Panel<Element> right{weights + tile * size * Engine::PLANES, 4, size};
      in_blocks_of_sums({mine.first, mine.last < filled.last ? mine.last : filled.last}, [&](Rows block) {
        std::memset(sums, 0, static_cast<std::size_t>(block.count() * TILE) * sizeof(float));
        Engine::template multiply<4>(operand(block.first, Cell::FIRST_INPUT), block.count(), right,
                                     {panels * DEPTH, DEPTH}, sums, false);
        for (Index place = block.first; place < block.last; place++) {
          const Array to = job.dxs + x_[place] * inputs;
          const float* from = sums + (place - block.first) * TILE;
          for (Index i = 0; i < TILE; i += LANES) {
            store(to + (tile * TILE + i), load(from + i), inputs - tile * TILE - i);
          }
        }
      });
    }
  }

  const Shape& shape_;
  Index count_, group_, room_, spare_, right_size_;
  Element *deltas_, *right_;
  Operand<Element> left_;
  float* sums_;
  Array* previous_;
  Index *x_, *filled_;
};

}  // namespace jaxrnn::JAXRNN_ISA
