// The forward pass: the time loop from the first step to the last.
#pragma once
#include "arena.h"
#include "cells.h"
#include "panels.h"

namespace jaxrnn::JAXRNN_ISA {

template <class Cell, class Engine>
class ForwardLoop {
  using P = Panels<Cell>;
  using Element = typename Engine::Element;
  static constexpr Index SEGMENT = 64;  // of an operand whose elements are contiguous
  static constexpr Index AHEAD = 24;    // rows whose inputs are projected together if a part has few
  static constexpr Index STEPS = 4;     // whose inputs are projected together if the weights exceed the cache

  // A panel has the weights of h and then those of x, and the biases of the preactivations. `plane` and `panel` are
  // elements from a part of the numbers, and from a panel, to the next.
  struct Packed {
    Element *recurrent, *input;
    Index plane, panel;
    float* bias;

    Packed(Arena& arena, const Shape& shape) {
      const Index panels = P::count(shape.hidden), of_h = Engine::packed(shape.hidden, Cell::WIDTH);
      plane = of_h + Engine::packed(shape.inputs, Cell::WIDTH);
      panel = plane * Engine::PLANES;
      recurrent = arena.take<Element>(panels * panel);
      input = recurrent + of_h;
      bias = arena.take<float>(panels * TILE);
    }
  };

  // What a part keeps from step to step: the state of its rows in float32; the left operand [h_{t-1} | x_t] of the
  // valid rows of this step, which `rows` lists; the sums of a panel. If `steps` is not zero, the inputs of so many
  // steps are projected together, into `ahead`, and `slots` says where those of a row are.
  struct Workspace {
    Index width, steps, slots_count;
    float *states, *sums, *ahead;
    Operand<Element> h, x;  // x is the second part of the rows of h, or the inputs of several steps
    Index *rows, *slots;

    Workspace(Arena& arena, const Shape& shape, Rows part) : width(padded(shape.hidden)), steps(together(shape)) {
      const Index count = part.count(), panels = P::count(shape.hidden);
      slots_count = steps * count;
      states = arena.take<float>(Cell::STATES * count * width);
      sums = arena.take<float>(BLOCK * TILE);
      ahead = arena.take<float>(panels * Engine::padded_rows(slots_count) * TILE);
      h = operand(arena, count, Engine::padded_depth(shape.hidden) + shape.inputs);
      x = h;
      x.at += Engine::padded_depth(shape.hidden);
      if (steps > 0) x = operand(arena, slots_count, shape.inputs);
      rows = arena.take<Index>(count);
      slots = arena.take<Index>(slots_count);
    }

    static Operand<Element> operand(Arena& arena, Index rows, Index depth) {
      const Index row = padded(Engine::padded_depth(depth), 32) + 32, plane = Engine::padded_rows(rows) * row;
      return {arena.take<Element>(plane * Engine::PLANES), row, SEGMENT, plane};
    }

    // Follows from the shape alone, since the order of a sum depends on it: any cut of the rows gives the same results.
    static Index together(const Shape& shape) {
      const Index weights = Cell::GATES * shape.hidden * (shape.inputs + shape.hidden);
      const Index bytes = weights * static_cast<Index>(sizeof(Element)) * Engine::PLANES;
      const Index few = 2 * AHEAD / (shape.batch + 1);  // of two parts
      const bool reused = bytes <= caches().l2 || shape.batch > 2 * BLOCK;  // weights, by the rows of one step
      const Index steps = few > STEPS || reused ? few : STEPS;
      return steps < 2 ? 0 : steps < shape.time ? steps : shape.time;
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
    for (Index panel = panels.first; panel < panels.last; panel++) {
      const Index at = panel * to.panel;
      Engine::template pack<Cell, Cell::FIRST_RECURRENT>(job.weights.w_h, hidden, hidden, panel, to.recurrent + at,
                                                         to.plane);
      Engine::template pack<Cell, Cell::FIRST_INPUT>(job.weights.w_x, job.shape.inputs, hidden, panel, to.input + at,
                                                     to.plane);
      for (int v = 0; v < 4; v++) {
        const Index unit = P::unit(panel, v);
        const Array from = v < Cell::FIRST_INPUT ? job.weights.local + v * hidden
                                                 : job.weights.b + Cell::GATE[v] * hidden;
        store(to.bias + panel * TILE + v * LANES, load(from + unit, hidden - unit));
      }
    }
  }

  static void run(const Forward& job, const char* shared, char* workspace, Rows rows) {
    Arena weights(const_cast<char*>(shared)), arena(workspace);
    const ForwardLoop loop{job, Packed(weights, job.shape), Workspace(arena, job.shape, rows), rows};
    Engine::begin();
    loop.run_steps();
    Engine::end();
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
    const Index hidden = shape.hidden, panels = P::count(hidden);
    for (Index r = rows_.first; r < rows_.last; r++) set_state(r, job_.state);
    for (Index s = 0; s < shape.time; s++) {
      if (work_.steps > 0 && s % work_.steps == 0) project_ahead(s);
      const Rows active{0, list_rows(s)};
      for (Index p = 0; p < panels; p++) {
        const Index panel = s % 2 ? panels - 1 - p : p;  // to and fro: the last panels are still in the cache
        in_blocks_of_sums(active, [&](Rows block) { step_panel(s, panel, block); });
      }
    }
    for (int i = 0; i < Cell::STATES; i++) {
      for (Index r = rows_.first; r < rows_.last; r++) {
        copy(state(i, r), job_.final + (i * shape.batch + r) * hidden, hidden);
      }
    }
  }

  float* state(int i, Index row) const {
    return work_.states + (i * rows_.count() + row - rows_.first) * work_.width;
  }

  // Sets the state of a row. The lanes past the last unit are zero: a NaN in them would survive a reset.
  void set_state(Index row, Array from) const {
    const Shape& shape = job_.shape;
    for (int i = 0; i < Cell::STATES; i++) {
      const Array at = from + (i * shape.batch + row) * shape.hidden;
      for (Index unit = 0; unit < work_.width; unit += LANES) {
        store(state(i, row) + unit, load(at + unit, shape.hidden - unit));
      }
    }
  }

  static void copy(const float* from, Array to, Index count) {
    for (Index i = 0; i < count; i += LANES) store(to + i, load(from + i), count - i);
  }

  // Lists the valid rows of step `s` and copies h_{t-1} and the inputs of each to the left operand. Returns how many
  // there are. A row in the padding holds its state. This is the rule of jaxrnn/_core/masks.py, written again for
  // speed; tests/native/test_native.py::test_equals_scan_in_float64 holds the two equal.
  Index list_rows(Index s) const {
    const Shape& shape = job_.shape;
    const Index hidden = shape.hidden, start = shape.step(s) * shape.batch;
    Index count = 0;
    for (Index r = rows_.first; r < rows_.last; r++) {
      if (job_.masks.valid && !job_.masks.valid[start + r]) {
        copy(state(0, r), job_.ys + (start + r) * hidden, hidden);
        continue;
      }
      if (job_.masks.reset && job_.masks.reset[start + r]) set_state(r, job_.masks.reset_state);
      set_operand(work_.h, count, {reinterpret_cast<char*>(state(0, r)), Dtype::F32}, hidden);
      if (work_.steps == 0) set_inputs(count, start + r);  // after h, whose last vector may reach into them
      work_.rows[count++] = r;
    }
    return count;
  }

  // Sets row i of an operand. Its depth is padded with zeros.
  static void set_operand(Operand<Element> to, Index i, Array from, Index depth) {
    Element* at = to.from_row(i).at;
    for (Index k = 0; k < Engine::padded_depth(depth); k += LANES) {
      Engine::store_elements(at + k, to.plane, load(from + k, depth - k));
    }
  }

  void set_inputs(Index i, Index index) const {
    set_operand(work_.x, i, job_.xs + index * job_.shape.inputs, job_.shape.inputs);
  }

  // Projects the inputs of step `s` and of the steps after it that are projected together.
  void project_ahead(Index s) const {
    const Index count = rows_.count(), left = job_.shape.time - s, steps = work_.steps < left ? work_.steps : left;
    Index listed = 0;
    for (Index place = 0; place < steps * count; place++) {
      const Index index = job_.shape.step(s + place / count) * job_.shape.batch + rows_.first + place % count;
      if (job_.masks.valid && !job_.masks.valid[index]) continue;
      set_inputs(listed, index);
      work_.slots[place] = listed++;
    }
    for (Index panel = 0; panel < P::count(job_.shape.hidden); panel++) {
      in_blocks_of_sums({0, listed}, [&](Rows block) {
        float* sums = ahead(block.first, panel);
        for (Index i = 0; i < block.count(); i++) copy_sums(packed_.bias + panel * TILE, sums + i * TILE);
        project(panel, block, sums, false);
      });
    }
  }

  float* ahead(Index slot, Index panel) const {
    return work_.ahead + (panel * Engine::padded_rows(work_.slots_count) + slot) * TILE;
  }

  static void copy_sums(const float* from, float* to) {
    UNROLL for (int v = 0; v < 4; v++) store(to + v * LANES, load(from + v * LANES));
  }

  // Adds x W_x of some rows of the operand.
  void project(Index panel, Rows rows, float* sums, bool alone) const {
    multiply<Cell::FIRST_INPUT>(work_.x, packed_.input, panel, job_.shape.inputs, rows, sums, alone);
  }

  template <int FIRST>
  void multiply(Operand<Element> a, const Element* weights, Index panel, Index depth, Rows rows, float* sums,
                bool alone) const {
    const Operand<const Element> from{a.from_row(rows.first).at, a.row, a.segment, a.plane};
    const Panel<Element> right{weights + panel * packed_.panel, Cell::WIDTH, packed_.plane};
    Engine::template multiply<Cell::WIDTH>(from, rows.count(), right, {depth, SEGMENT}, sums + FIRST * LANES, alone);
  }

  // Computes step `s` of some of the valid rows for the units of one panel.
  void step_panel(Index s, Index panel, Rows rows) const {
    const bool alone = job_.shape.batch == 1;
    for (Index i = rows.first; i < rows.last; i++) {
      const Index place = work_.steps > 0 ? s % work_.steps * rows_.count() + work_.rows[i] - rows_.first : 0;
      copy_sums(work_.steps > 0 ? ahead(work_.slots[place], panel) : packed_.bias + panel * TILE,
                work_.sums + (i - rows.first) * TILE);
    }
    const bool projected = work_.steps > 0, joint = Cell::FIRST_INPUT == Cell::FIRST_RECURRENT && !projected;
    const Index depth = joint ? Engine::padded_depth(job_.shape.hidden) + job_.shape.inputs : job_.shape.hidden;
    if (!projected && !joint) project(panel, rows, work_.sums, alone);
    multiply<Cell::FIRST_RECURRENT>(work_.h, packed_.recurrent, panel, depth, rows, work_.sums, alone);
    for (Index i = rows.first; i < rows.last; i++) {
      for (int u = 0; u < Cell::UNITS; u++) {
        const Index unit = P::unit(panel, u);
        const float* sums = work_.sums + (i - rows.first) * TILE + u * LANES;
        if (unit < job_.shape.hidden) apply_gate(job_.shape.step(s), work_.rows[i], unit, sums);
      }
    }
  }

  // Computes the state of one vector of units from the sums, its preactivations.
  __attribute__((always_inline)) void apply_gate(Index t, Index row, Index unit, const float* sums) const {
    const Index at = t * job_.shape.batch + row;
    float *h = state(0, row) + unit, *c = state(Cell::STATES - 1, row) + unit;
    Vector preactivations[4], residuals[Cell::RESIDUALS + 1], cell_state = load(c);
    UNROLL for (int v = 0; v < 4 / Cell::UNITS; v++) preactivations[v] = load(sums + v * LANES);
    const Vector next = Cell::forward(preactivations, load(h), cell_state, residuals);
    if (Cell::STATES > 1) store(c, cell_state);
    store(h, next);
    store(job_.ys + (at * job_.shape.hidden + unit), next, job_.shape.hidden - unit);
    if (job_.residuals) {
      const Array to = job_.residuals + (at * work_.width + unit) * Cell::RESIDUALS;
      UNROLL for (int k = 0; k < Cell::RESIDUALS; k++) store(to + k * LANES, residuals[k], LANES);
    }
  }
};

}  // namespace jaxrnn::JAXRNN_ISA
