// The time loop.
#pragma once
#include "arena.h"
#include "cells.h"
#include "tile.h"

namespace jaxrnn::JAXRNN_ISA {

template <class Cell>
class ForwardLoop {
  using P = Panels<Cell>;
  static constexpr Index AHEAD = 4 * ROWS;  // rows whose inputs are met together

  // Weights in panels, and the biases of their terms.
  struct Packed {
    float *input, *recurrent, *bias;

    Packed(Arena& arena, const Shape& shape) {
      const Index panels = P::count(shape.hidden), row = Cell::WIDTH * LANES;
      input = arena.take<float>(panels * shape.inputs * row);
      recurrent = arena.take<float>(panels * shape.hidden * row);
      bias = arena.take<float>(panels * TILE);
    }
  };

  // What a part keeps from step to step: the memory of its rows, which of them take the step (`rows`; those in the
  // padding do not), and where the h that each of these comes from lies. Too few rows to fill a tile have the terms of
  // their inputs made for `steps` steps together (`ahead`, of the rows listed in `places`).
  struct Own {
    float *memory, *ahead;
    const float** old;
    Index *rows, *places, width, steps;

    Own(Arena& arena, const Shape& shape, Rows rows) : width(padded(shape.hidden)), steps(0) {
      const Index count = rows.count(), together = count > 0 && count < ROWS ? AHEAD / count : 0;
      if (together > 1) steps = together < shape.time ? together : shape.time;
      memory = arena.take<float>(Cell::STATES > 1 ? count * width : 0);
      ahead = arena.take<float>(steps * count * P::count(shape.hidden) * TILE);
      old = arena.take<const float*>(count);
      this->rows = arena.take<Index>(count);
      places = arena.take<Index>(steps * count);
    }
  };

 public:
  static std::size_t shared(const Shape& shape) { return bytes_of<Packed>(shape); }
  static std::size_t own(const Shape& shape, Rows rows) { return bytes_of<Own>(shape, rows); }

  static void pack(const Forward& job, char* shared, Share share) {
    Arena arena(shared);
    const Packed to(arena, job.shape);
    const Index hidden = job.shape.hidden;
    const Rows panels = share.cut(P::count(hidden));
    JAXRNN_ISA::pack<Cell, Cell::INPUT_TERM>(job.weights.w_x, job.shape.inputs, hidden, panels, to.input);
    JAXRNN_ISA::pack<Cell, Cell::STATE_TERM>(job.weights.w_h, hidden, hidden, panels, to.recurrent);
    for (Index panel = panels.first; panel < panels.last; panel++) {
      for (int v = 0; v < 4; v++) {
        const Index unit = P::unit(panel, v);
        const float* from = v < Cell::INPUT_TERM ? job.weights.local + v * hidden
                                                 : job.weights.b + Cell::GATE[v] * hidden;
        store(to.bias + panel * TILE + v * LANES, unit < hidden ? load(from + unit, hidden - unit) : Vector{});
      }
    }
  }

  static void run(const Forward& job, const char* shared, char* own, Rows rows) {
    Arena weights(const_cast<char*>(shared)), arena(own);
    const ForwardLoop loop{job, Packed(weights, job.shape), Own(arena, job.shape, rows), rows};
    loop.cross();
  }

 private:
  const Forward& job_;
  const Packed packed_;
  const Own own_;
  const Rows rows_;

  ForwardLoop(const Forward& job, Packed packed, Own own, Rows rows)
      : job_(job), packed_(packed), own_(own), rows_(rows) {}

  void cross() const {
    const Shape& shape = job_.shape;
    const Index hidden = shape.hidden, size = shape.batch * hidden, last = shape.step(shape.time - 1);
    const Index panels = P::count(hidden);
    const std::size_t bytes = static_cast<std::size_t>(hidden) * sizeof(float);
    if (Cell::STATES > 1) {
      for (Index r = rows_.first; r < rows_.last; r++) set_memory(r, job_.state + size + r * hidden);
    }
    for (Index s = 0; s < shape.time; s++) {
      if (own_.steps > 0 && s % own_.steps == 0) look_ahead(s);
      const Rows steppers{0, enter(s)};
      for (Index p = 0; p < panels; p++) {
        const Index panel = s % 2 ? panels - 1 - p : p;
        in_blocks(steppers, [&](Index i, auto count) { tile<decltype(count)::value>(s, i, panel); });
      }
    }
    const float* h = shape.time > 0 ? job_.ys + last * size : job_.state;
    for (Index r = rows_.first; r < rows_.last; r++) {
      std::memcpy(job_.final + r * hidden, h + r * hidden, bytes);
      if (Cell::STATES > 1) std::memcpy(job_.final + size + r * hidden, memory(r), bytes);
    }
  }

  // The lanes past the last unit are zero: a NaN that they hold would outlive a reset.
  void set_memory(Index row, const float* from) const {
    const Index hidden = job_.shape.hidden;
    std::memset(memory(row) + hidden, 0, static_cast<std::size_t>(own_.width - hidden) * sizeof(float));
    std::memcpy(memory(row), from, static_cast<std::size_t>(hidden) * sizeof(float));
  }

  float* memory(Index row) const { return own_.memory + (row - rows_.first) * own_.width; }

  // Lists the rows that take the step, and how many there are; where each comes from: the state handed in, the step
  // before, or the initial state where it begins anew. A row in the padding stays what it was.
  Index enter(Index s) const {
    const Shape& shape = job_.shape;
    const Index hidden = shape.hidden, size = shape.batch * hidden, mark = shape.step(s) * shape.batch;
    const std::size_t bytes = static_cast<std::size_t>(hidden) * sizeof(float);
    const float* before = s == 0 ? job_.state : job_.ys + shape.step(s - 1) * size;
    Index count = 0;
    for (Index r = rows_.first; r < rows_.last; r++) {
      if (job_.marks.valid && !job_.marks.valid[mark + r]) {
        std::memcpy(job_.ys + (mark + r) * hidden, before + r * hidden, bytes);
        continue;
      }
      const bool fresh = job_.marks.fresh && job_.marks.fresh[mark + r];
      if (fresh && Cell::STATES > 1) set_memory(r, job_.marks.initial + size + r * hidden);
      own_.rows[count] = r;
      own_.old[count++] = (fresh ? job_.marks.initial : before) + r * hidden;
    }
    return count;
  }

  // Makes the terms of the inputs, of step `s` and as many after it as are made together.
  void look_ahead(Index s) const {
    const Index count = rows_.count(), left = job_.shape.time - s, steps = own_.steps < left ? own_.steps : left;
    Index listed = 0;
    for (Index place = 0; place < steps * count; place++) {
      const Index row = rows_.first + place % count, mark = job_.shape.step(s + place / count) * job_.shape.batch + row;
      if (!job_.marks.valid || job_.marks.valid[mark]) own_.places[listed++] = place;
    }
    for (Index panel = 0; panel < P::count(job_.shape.hidden); panel++) {
      in_blocks({0, listed}, [&](Index i, auto m) {
        constexpr int M = decltype(m)::value;
        const float* x[M];
        Vector acc[M][4];
        UNROLL for (int m = 0; m < M; m++) {
          const Index place = own_.places[i + m];
          x[m] = inputs(s + place / count, rows_.first + place % count);
        }
        meet_inputs(acc, x, panel);
        UNROLL for (int m = 0; m < M; m++) {
          UNROLL for (int v = 0; v < 4; v++) store(ahead(own_.places[i + m], panel) + v * LANES, acc[m][v]);
        }
      });
    }
  }

  const float* inputs(Index s, Index row) const {
    return job_.xs + (job_.shape.step(s) * job_.shape.batch + row) * job_.shape.inputs;
  }

  float* ahead(Index place, Index panel) const {
    return own_.ahead + (place * P::count(job_.shape.hidden) + panel) * TILE;
  }

  // The terms of M rows of inputs, biases added.
  template <int M>
  void meet_inputs(Vector (&acc)[M][4], const float* const (&x)[M], Index panel) const {
    constexpr Index step = Cell::WIDTH * LANES;
    const Index depth = job_.shape.inputs;
    UNROLL for (int m = 0; m < M; m++) {
      UNROLL for (int v = 0; v < 4; v++) acc[m][v] = load(packed_.bias + panel * TILE + v * LANES);
    }
    accumulate<Cell::INPUT_TERM, Cell::WIDTH>(acc, x, 1, packed_.input + panel * depth * step, step, depth);
  }

  // Step `s` of M of the rows that take it, from number `i` on, for the units of one panel.
  template <int M>
  void tile(Index s, Index i, Index panel) const {
    const Shape& shape = job_.shape;
    constexpr Index step = Cell::WIDTH * LANES;
    const float *x[M], *h[M];
    Vector acc[M][4];
    UNROLL for (int m = 0; m < M; m++) h[m] = own_.old[i + m];
    if (own_.steps > 0) {
      UNROLL for (int m = 0; m < M; m++) {
        const Index place = s % own_.steps * rows_.count() + own_.rows[i + m] - rows_.first;
        UNROLL for (int v = 0; v < 4; v++) acc[m][v] = load(ahead(place, panel) + v * LANES);
      }
    } else {
      UNROLL for (int m = 0; m < M; m++) x[m] = inputs(s, own_.rows[i + m]);
      meet_inputs(acc, x, panel);
    }
    accumulate<Cell::STATE_TERM, Cell::WIDTH>(acc, h, 1, packed_.recurrent + panel * shape.hidden * step, step,
                                              shape.hidden);
    UNROLL for (int m = 0; m < M; m++) {
      UNROLL for (int u = 0; u < Cell::UNITS; u++) {
        const Index unit = P::unit(panel, u);
        if (unit < shape.hidden) finish(shape.step(s), own_.rows[i + m], unit, &acc[m][u], h[m]);
      }
    }
  }

  // From the terms of one vector of units to its state.
  __attribute__((always_inline)) void finish(Index t, Index row, Index unit, const Vector* term,
                                             const float* from) const {
    const Index at = t * job_.shape.batch + row, lanes = job_.shape.hidden - unit;
    Vector c = Cell::STATES > 1 ? load(memory(row) + unit) : Vector{}, kept[Cell::KEPT + 1];
    const Vector h = Cell::forward(term, load(from + unit, lanes), c, kept);
    store(job_.ys + at * job_.shape.hidden + unit, h, lanes);
    if (Cell::STATES > 1) store(memory(row) + unit, c);
    if (job_.kept) {
      float* to = job_.kept + (at * own_.width + unit) * Cell::KEPT;
      UNROLL for (int k = 0; k < Cell::KEPT; k++) store(to + k * LANES, kept[k]);
    }
  }
};

}  // namespace jaxrnn::JAXRNN_ISA
