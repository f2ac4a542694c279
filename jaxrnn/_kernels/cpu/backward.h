// The backward pass: the time loop from the last step to the first.
#pragma once
#include "deltas.h"

namespace jaxrnn::JAXRNN_ISA {

template <class Cell, class Engine>
class BackwardLoop {
  using P = Panels<Cell>;
  using D = Deltas<Cell, Engine>;
  using Element = typename Engine::Element;

  // The weights transposed, in tiles.
  struct Packed {
    Element *input, *recurrent;
    Index tile, plane;  // elements of a tile in one plane, and in all

    Packed(Arena& arena, const Shape& shape) {
      tile = P::count(shape.hidden) * D::DEPTH * TILE;
      plane = tile * Engine::PLANES;
      recurrent = arena.take<Element>(tiles(shape.hidden) * plane);
      input = arena.take<Element>(tiles(shape.inputs) * plane);
    }
  };

  // What a part keeps from step to step: the gradients of the state (`carry`) and of the reset state, the deltas, and
  // for each row h_{t-1} (`previous`), the place of its deltas in this step (`current`; -1 for a row in the padding),
  // and its number among the rows that were valid in the step after this one (`number`; -1 for others). `rows` and
  // `places` list these.
  struct Workspace {
    D deltas;
    Index width, *current, *number, *rows, *places;
    float *carry, *reset_state, *sums;
    Array* previous;

    Workspace(Arena& arena, const Shape& shape, Rows part) : deltas(arena, shape, part), width(padded(shape.hidden)) {
      const Index count = part.count();
      current = arena.take<Index>(count);
      number = arena.take<Index>(count);
      rows = arena.take<Index>(count);
      places = arena.take<Index>(count);
      carry = arena.take<float>(Cell::STATES * count * width);
      reset_state = arena.take<float>(Cell::STATES * count * width);
      sums = arena.take<float>(BLOCK * TILE);
      previous = arena.take<Array>(count);
    }
  };

  // The rows that were valid in the step after this one: how many, and the first place of their deltas.
  struct Next {
    Index count, place;
  };

 public:
  static std::size_t shared(const Shape& shape) { return bytes_of<Packed>(shape); }
  static std::size_t workspace(const Shape& shape, Rows rows) { return bytes_of<Workspace>(shape, rows); }

  static std::size_t sums(const Shape& shape) { return static_cast<std::size_t>(D::sums(shape)) * sizeof(float); }

  static void pack(const Backward& job, char* shared, Share share) {
    Arena arena(shared);
    const Packed to(arena, job.shape);
    const Index hidden = job.shape.hidden, inputs = job.shape.inputs;
    Engine::template pack_transposed<Cell, Cell::FIRST_RECURRENT>(job.weights.w_h, hidden, hidden,
                                                                  share.cut(tiles(hidden)), to.recurrent);
    if (job.dxs) {
      Engine::template pack_transposed<Cell, Cell::FIRST_INPUT>(job.weights.w_x, inputs, hidden,
                                                                share.cut(tiles(inputs)), to.input);
    }
  }

  static void run(const Backward& job, const char* shared, char* workspace, char* sums, Rows rows) {
    Arena weights(const_cast<char*>(shared)), arena(workspace);
    const BackwardLoop loop{job, Packed(weights, job.shape), Workspace(arena, job.shape, rows),
                            reinterpret_cast<float*>(sums), rows};
    Engine::begin();
    loop.run_steps();
    Engine::end();
  }

  static void sum(const Backward& job, const char* sums, Index parts, Share share) {
    D::sum(job, sums, parts, share);
  }

 private:
  const Backward& job_;
  const Packed packed_;
  const Workspace work_;
  float* const sums_;
  const Rows rows_;

  BackwardLoop(const Backward& job, Packed packed, Workspace work, float* sums, Rows rows)
      : job_(job), packed_(packed), work_(work), sums_(sums), rows_(rows) {}

  void run_steps() const {
    const Shape& shape = job_.shape;
    const std::uint8_t* reset = nullptr;  // of the step after this one
    Next next{0, 0};
    start();
    for (Index s = shape.time - 1; s >= 0; s--) {
      const Index t = shape.step(s);
      if (work_.deltas.full()) {
        next.place = work_.deltas.preserve(work_.places, next.count);
        flush();
      }
      locate_rows(s);
      backward_step(t, reset, next);
      reset = job_.masks.reset ? job_.masks.reset + t * shape.batch : nullptr;
      next = list_rows();
    }
    flush();
    backward_step(-1, reset, next);
  }

  // Returns the row of array i of a state.
  float* of_state(float* state, int i, Index row) const {
    return state + (i * rows_.count() + row - rows_.first) * work_.width;
  }

  // Starts from the gradients of the final state, with no deltas and a zero gradient of the reset state.
  void start() const {
    const Shape& shape = job_.shape;
    const Index hidden = shape.hidden, groups = shape.groups > 1 ? rows_.count() * shape.groups / shape.batch : 1;
    work_.deltas.clear();
    std::memset(sums_, 0, sums(shape) * static_cast<std::size_t>(groups));
    for (Index r = 0; r < rows_.count(); r++) work_.number[r] = -1;
    for (int i = 0; i < Cell::STATES; i++) {
      for (Index r = rows_.first; r < rows_.last; r++) {
        const Index at = (i * shape.batch + r) * hidden;
        for (Index unit = 0; unit < work_.width; unit += LANES) {
          const Index lanes = hidden - unit;
          store(of_state(work_.carry, i, r) + unit, job_.dfinal ? load(job_.dfinal + (at + unit), lanes) : Vector{});
          store(of_state(work_.reset_state, i, r) + unit, Vector{});
        }
      }
    }
  }

  // Finds h_{t-1} of each row in step `s`, and a place for its deltas. This is the rule of jaxrnn/_core/masks.py,
  // written again for speed; tests/native/test_native.py::test_equals_scan_in_float64 holds the two equal.
  void locate_rows(Index s) const {
    const Shape& shape = job_.shape;
    const Index hidden = shape.hidden, inputs = shape.inputs, start = shape.step(s) * shape.batch;
    const Array last_h = s == 0 ? job_.state : job_.ys + shape.step(s - 1) * shape.batch * hidden;
    for (Index r = rows_.first; r < rows_.last; r++) {
      const Index i = r - rows_.first;
      if (job_.masks.valid && !job_.masks.valid[start + r]) {
        work_.current[i] = -1;
        for (Index k = 0; job_.dxs && k < inputs; k += LANES) {
          store(job_.dxs + ((start + r) * inputs + k), Vector{}, inputs - k);
        }
        continue;
      }
      const bool reset = job_.masks.reset && job_.masks.reset[start + r];
      work_.previous[i] = (reset ? job_.masks.reset_state : last_h) + r * hidden;
      work_.current[i] = work_.deltas.place(i, work_.previous[i], start + r);
    }
  }

  // Lists the valid rows of this step, for the step before it. Their places follow one another, but where the batch has
  // groups.
  Next list_rows() const {
    Index count = 0;
    for (Index i = 0; i < rows_.count(); i++) {
      work_.number[i] = work_.current[i] < 0 ? -1 : count;
      if (work_.current[i] < 0) continue;
      work_.rows[count] = rows_.first + i;
      work_.places[count++] = work_.current[i];
    }
    if (job_.shape.groups > 1) return {count, work_.deltas.preserve(work_.places, count)};
    return {count, count > 0 ? work_.places[0] : 0};
  }

  void flush() const { work_.deltas.flush(job_, packed_.input, sums_); }

  // Differentiates step t; t = -1 stands for the initial state. Only rows that were valid in the next step need a
  // matmul.
  void backward_step(Index t, const std::uint8_t* reset, Next next) const {
    const Index hidden = job_.shape.hidden, depth = P::count(hidden) * D::DEPTH;
    for (Index r = rows_.first; r < rows_.last; r++) {
      if (work_.number[r - rows_.first] >= 0) continue;
      for (Index unit = 0; unit < hidden; unit += LANES) backward_units(t, reset, r, unit, Vector{});
    }
    for (Index tile = 0; tile < tiles(hidden); tile++) {
      const Panel<Element> right{packed_.recurrent + tile * packed_.plane, 4, packed_.tile};
      in_blocks_of_sums({0, next.count}, [&](Rows block) {
        std::memset(work_.sums, 0, static_cast<std::size_t>(block.count() * TILE) * sizeof(float));
        Engine::template multiply<4>(work_.deltas.operand(next.place + block.first, Cell::FIRST_RECURRENT),
                                     block.count(), right, {depth, D::DEPTH}, work_.sums, job_.shape.batch == 1);
        for (Index i = block.first; i < block.last; i++) {
          for (Index n = 0; n < TILE; n += LANES) {
            const Index unit = tile * TILE + n;
            const float* sums = work_.sums + (i - block.first) * TILE + n;
            if (unit < hidden) backward_units(t, reset, work_.rows[i], unit, load(sums));
          }
        }
      });
    }
  }

  // Differentiates step t of one vector of units; `d` is the gradient of h_t through the weights of the next step.
  void backward_units(Index t, const std::uint8_t* reset, Index row, Index unit, Vector d) const {
    const Shape& shape = job_.shape;
    const Index hidden = shape.hidden, size = shape.batch * hidden, lanes = hidden - unit, at = row * hidden + unit;
    const Index i = row - rows_.first;
    float* carry_h = of_state(work_.carry, 0, row) + unit;
    float* carry_cell = of_state(work_.carry, Cell::STATES - 1, row) + unit;
    float *reset_h = of_state(work_.reset_state, 0, row) + unit;
    float *reset_cell = of_state(work_.reset_state, Cell::STATES - 1, row) + unit;
    d += load(carry_h);
    Vector dc = Cell::STATES > 1 ? load(carry_cell) : Vector{};
    if (reset && reset[row]) {
      store(reset_h, load(reset_h) + d);
      if (Cell::STATES > 1) store(reset_cell, load(reset_cell) + dc);
      d = dc = Vector{};
    }
    if (t < 0) {
      store(job_.dstate + at, d, lanes);
      if (Cell::STATES > 1) store(job_.dstate + (size + at), dc, lanes);
      if (job_.dreset_state) {
        store(job_.dreset_state + at, load(reset_h), lanes);
        if (Cell::STATES > 1) store(job_.dreset_state + (size + at), load(reset_cell), lanes);
      }
      return;
    }
    const Index step = t * shape.batch + row, to = work_.current[i];
    if (job_.dys) d += load(job_.dys + (step * hidden + unit), lanes);
    if (to >= 0) {
      Vector residuals[Cell::RESIDUALS + 1], deltas[4];
      const Array from = job_.residuals + (step * work_.width + unit) * Cell::RESIDUALS;
      UNROLL for (int k = 0; k < Cell::RESIDUALS; k++) residuals[k] = load(from + k * LANES, LANES);
      const Vector previous = load(work_.previous[i] + unit, lanes), h = load(job_.ys + (step * hidden + unit), lanes);
      d = Cell::backward(d, dc, residuals, previous, h, deltas);
      const Index panel = unit / (Cell::UNITS * LANES), first = unit / LANES - panel * Cell::UNITS;
      UNROLL for (int v = 0; v < 4 / Cell::UNITS; v++) work_.deltas.set(panel, to, first + v, deltas[v]);
    }
    store(carry_h, d);
    if (Cell::STATES > 1) store(carry_cell, dc);
  }
};

}  // namespace jaxrnn::JAXRNN_ISA
