// The forward pass: the time loop from the first step to the last.
#pragma once
#include "arena.h"
#include "cells.h"
#include "tile.h"

namespace jaxrnn::JAXRNN_ISA {

template <class Cell>
class ForwardLoop {
  using P = Panels<Cell>;
  static constexpr Index AHEAD = 4 * ROWS;  // rows whose inputs are projected together

  // Weights in panels, and the biases of the preactivations.
  struct Packed {
    float *input, *recurrent, *bias;

    Packed(Arena& arena, const Shape& shape) {
      const Index panels = P::count(shape.hidden), row = Cell::WIDTH * LANES;
      input = arena.take<float>(panels * shape.inputs * row);
      recurrent = arena.take<float>(panels * shape.hidden * row);
      bias = arena.take<float>(panels * TILE);
    }
  };

  // What a part keeps from step to step: the cell state of its rows (c of an LSTM), the rows that are valid in this
  // step (`rows`), and a pointer to h_{t-1} of each of these (`previous`). If a part has too few rows to fill a tile,
  // the inputs of `steps` steps are projected together (into `ahead`, for the rows listed in `places`).
  struct Workspace {
    float *cell_state, *ahead;
    const float** previous;
    Index *rows, *places, width, steps;

    Workspace(Arena& arena, const Shape& shape, Rows rows) : width(padded(shape.hidden)), steps(0) {
      const Index count = rows.count(), together = count > 0 && count < ROWS ? AHEAD / count : 0;
      if (together > 1) steps = together < shape.time ? together : shape.time;
      cell_state = arena.take<float>(Cell::STATES > 1 ? count * width : 0);
      ahead = arena.take<float>(steps * count * P::count(shape.hidden) * TILE);
      previous = arena.take<const float*>(count);
      this->rows = arena.take<Index>(count);
      places = arena.take<Index>(steps * count);
    }
  };

 public:
  static std::size_t shared(const Shape& shape) { return bytes_of<Packed>(shape); }
  static std::size_t workspace(const Shape& shape, Rows rows) { return bytes_of<Workspace>(shape, rows); }

  static void pack(const Forward& job, char* shared, Share share) {
    Arena arena(shared);
    const Packed to(arena, job.shape);
    const Index hidden = job.shape.hidden;
    const Rows panels = share.cut(P::count(hidden));
    JAXRNN_ISA::pack<Cell, Cell::FIRST_INPUT>(job.weights.w_x, job.shape.inputs, hidden, panels, to.input);
    JAXRNN_ISA::pack<Cell, Cell::FIRST_RECURRENT>(job.weights.w_h, hidden, hidden, panels, to.recurrent);
    for (Index panel = panels.first; panel < panels.last; panel++) {
      for (int v = 0; v < 4; v++) {
        const Index unit = P::unit(panel, v);
        const float* from = v < Cell::FIRST_INPUT ? job.weights.local + v * hidden
                                                 : job.weights.b + Cell::GATE[v] * hidden;
        store(to.bias + panel * TILE + v * LANES, unit < hidden ? load(from + unit, hidden - unit) : Vector{});
      }
    }
  }

  static void run(const Forward& job, const char* shared, char* workspace, Rows rows) {
    Arena weights(const_cast<char*>(shared)), arena(workspace);
    const ForwardLoop loop{job, Packed(weights, job.shape), Workspace(arena, job.shape, rows), rows};
    loop.run_steps();
  }

 private:
  const Forward& job_;
  const Packed packed_;
  const Workspace work_;
  const Rows rows_;

  ForwardLoop(const Forward& job, Packed packed, Workspace work, Rows rows)
      : job_(job), packed_(packed), work_(work), rows_(rows) {}

  void run_steps() const {
    const Shape& shape = job_.shape;
    const Index hidden = shape.hidden, size = shape.batch * hidden, last = shape.step(shape.time - 1);
    const Index panels = P::count(hidden);
    const std::size_t bytes = static_cast<std::size_t>(hidden) * sizeof(float);
    if (Cell::STATES > 1) {
      for (Index r = rows_.first; r < rows_.last; r++) set_cell_state(r, job_.state + size + r * hidden);
    }
    for (Index s = 0; s < shape.time; s++) {
      if (work_.steps > 0 && s % work_.steps == 0) project_ahead(s);
      const Rows active{0, list_rows(s)};
      for (Index p = 0; p < panels; p++) {
        const Index panel = s % 2 ? panels - 1 - p : p;
        in_blocks(active, [&](Index i, auto count) { forward_tile<decltype(count)::value>(s, i, panel); });
      }
    }
    const float* h = shape.time > 0 ? job_.ys + last * size : job_.state;
    for (Index r = rows_.first; r < rows_.last; r++) {
      std::memcpy(job_.final + r * hidden, h + r * hidden, bytes);
      if (Cell::STATES > 1) std::memcpy(job_.final + size + r * hidden, cell_state(r), bytes);
    }
  }

  // The lanes past the last unit are zero: a NaN in them would survive a reset.
  void set_cell_state(Index row, const float* from) const {
    const Index hidden = job_.shape.hidden;
    std::memset(cell_state(row) + hidden, 0, static_cast<std::size_t>(work_.width - hidden) * sizeof(float));
    std::memcpy(cell_state(row), from, static_cast<std::size_t>(hidden) * sizeof(float));
  }

  float* cell_state(Index row) const { return work_.cell_state + (row - rows_.first) * work_.width; }

  // Lists the valid rows of step `s` and where h_{t-1} of each lies: in the initial state, in the outputs of the step
  // before, or in the reset state. Returns how many there are. A row in the padding holds its state. This is the rule
  // of jaxrnn/_core/masks.py, written again for speed; tests/native/test_native.py::test_equals_scan_in_float64 holds
  // the two equal.
  Index list_rows(Index s) const {
    const Shape& shape = job_.shape;
    const Index hidden = shape.hidden, size = shape.batch * hidden, start = shape.step(s) * shape.batch;
    const std::size_t bytes = static_cast<std::size_t>(hidden) * sizeof(float);
    const float* last_h = s == 0 ? job_.state : job_.ys + shape.step(s - 1) * size;
    Index count = 0;
    for (Index r = rows_.first; r < rows_.last; r++) {
      if (job_.masks.valid && !job_.masks.valid[start + r]) {
        std::memcpy(job_.ys + (start + r) * hidden, last_h + r * hidden, bytes);
        continue;
      }
      const bool reset = job_.masks.reset && job_.masks.reset[start + r];
      if (reset && Cell::STATES > 1) set_cell_state(r, job_.masks.reset_state + size + r * hidden);
      work_.rows[count] = r;
      work_.previous[count++] = (reset ? job_.masks.reset_state : last_h) + r * hidden;
    }
    return count;
  }

  // Projects the inputs of step `s` and of the steps after it that are projected together.
  void project_ahead(Index s) const {
    const Index count = rows_.count(), left = job_.shape.time - s, steps = work_.steps < left ? work_.steps : left;
    Index listed = 0;
    for (Index place = 0; place < steps * count; place++) {
      const Index row = rows_.first + place % count, index = job_.shape.step(s + place / count) * job_.shape.batch + row;
      if (!job_.masks.valid || job_.masks.valid[index]) work_.places[listed++] = place;
    }
    for (Index panel = 0; panel < P::count(job_.shape.hidden); panel++) {
      in_blocks({0, listed}, [&](Index i, auto m) {
        constexpr int M = decltype(m)::value;
        const float* x[M];
        Vector acc[M][4];
        UNROLL for (int m = 0; m < M; m++) {
          const Index place = work_.places[i + m];
          x[m] = inputs(s + place / count, rows_.first + place % count);
        }
        project(acc, x, panel);
        UNROLL for (int m = 0; m < M; m++) {
          UNROLL for (int v = 0; v < 4; v++) store(ahead(work_.places[i + m], panel) + v * LANES, acc[m][v]);
        }
      });
    }
  }

  const float* inputs(Index s, Index row) const {
    return job_.xs + (job_.shape.step(s) * job_.shape.batch + row) * job_.shape.inputs;
  }

  float* ahead(Index place, Index panel) const {
    return work_.ahead + (place * P::count(job_.shape.hidden) + panel) * TILE;
  }

  // Computes x W_x + b for M rows of inputs.
  template <int M>
  void project(Vector (&acc)[M][4], const float* const (&x)[M], Index panel) const {
    constexpr Index step = Cell::WIDTH * LANES;
    const Index depth = job_.shape.inputs;
    UNROLL for (int m = 0; m < M; m++) {
      UNROLL for (int v = 0; v < 4; v++) acc[m][v] = load(packed_.bias + panel * TILE + v * LANES);
    }
    accumulate<Cell::FIRST_INPUT, Cell::WIDTH>(acc, x, 1, packed_.input + panel * depth * step, step, depth);
  }

  // Computes step `s` of M valid rows, from number `i` on, for the units of one panel.
  template <int M>
  void forward_tile(Index s, Index i, Index panel) const {
    const Shape& shape = job_.shape;
    constexpr Index step = Cell::WIDTH * LANES;
    const float *x[M], *h[M];
    Vector acc[M][4];
    UNROLL for (int m = 0; m < M; m++) h[m] = work_.previous[i + m];
    if (work_.steps > 0) {
      UNROLL for (int m = 0; m < M; m++) {
        const Index place = s % work_.steps * rows_.count() + work_.rows[i + m] - rows_.first;
        UNROLL for (int v = 0; v < 4; v++) acc[m][v] = load(ahead(place, panel) + v * LANES);
      }
    } else {
      UNROLL for (int m = 0; m < M; m++) x[m] = inputs(s, work_.rows[i + m]);
      project(acc, x, panel);
    }
    accumulate<Cell::FIRST_RECURRENT, Cell::WIDTH>(acc, h, 1, packed_.recurrent + panel * shape.hidden * step, step,
                                              shape.hidden);
    UNROLL for (int m = 0; m < M; m++) {
      UNROLL for (int u = 0; u < Cell::UNITS; u++) {
        const Index unit = P::unit(panel, u);
        if (unit < shape.hidden) apply_gate(shape.step(s), work_.rows[i + m], unit, &acc[m][u], h[m]);
      }
    }
  }

  // Computes the state of one vector of units from its preactivations.
  __attribute__((always_inline)) void apply_gate(Index t, Index row, Index unit, const Vector* preactivations,
                                             const float* from) const {
    const Index at = t * job_.shape.batch + row, lanes = job_.shape.hidden - unit;
    Vector c = Cell::STATES > 1 ? load(cell_state(row) + unit) : Vector{}, residuals[Cell::RESIDUALS + 1];
    const Vector h = Cell::forward(preactivations, load(from + unit, lanes), c, residuals);
    store(job_.ys + at * job_.shape.hidden + unit, h, lanes);
    if (Cell::STATES > 1) store(cell_state(row) + unit, c);
    if (job_.residuals) {
      float* to = job_.residuals + (at * work_.width + unit) * Cell::RESIDUALS;
      UNROLL for (int k = 0; k < Cell::RESIDUALS; k++) store(to + k * LANES, residuals[k]);
    }
  }
};

}  // namespace jaxrnn::JAXRNN_ISA
